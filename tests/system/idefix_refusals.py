#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What an Idefix backend refuses is said plainly, tried again, and costs no event; the token is never shown.

Error codes of login and of polls; the broker's own refusals: MQTT password and certificate; and 7, which is none.
"""
import os

from harness import DIRECTORY, Instance, check, equal, finish, wait_for
from idefix import ACCOUNT, DOMAIN, TOKEN, Broker, Simulator, check_logs, idefix_source, make_certificates, seeing_stage, \
    seen, token_file, uids_once

QUICK_MS, SLOW_MS = 100, 1500
# Code, command it answers, what the status must say; whether it is tried again slowly.
CODES = [
    (201, "login", ("refuses the token", ACCOUNT, "[201]"), True),
    (4, "login", ("refuses account", ACCOUNT, "[4]"), True),
    (5, "events.get", ("refuses account", ACCOUNT, "[5]"), True),
    (203, "events.get", ("`domain`", "[203]"), False),
    (204, "events.get", ("`address`", "[204]"), False),
    (205, "events.get", ("`address`", "[205]"), False),
    (208, "events.get", ("`domain`", "[208]"), False),
    (209, "events.get", ("`address`", "[209]"), False),
    (15, "events.get", ("[15]",), False),
    (15, "login", ("login", "[15]"), False),
    (2, "events.get", ("[2]",), False),
    (102, "login", ("login", "[102]"), False),
]
shown_texts = []


def show_failing(instance, texts, id=None):
    source = instance.wait_source(lambda s: s["error"] and all(word in s["error"] for word in texts) and s["next_try_in_ms"],
                                  "an error with %s, and its next try" % (texts,), id)
    equal(source["state"], "backoff", "state with " + source["error"])
    shown_texts.append(instance.run("status").stdout)
    print(source["error"], flush=True)
    return source


def by_code(backend, instance, calls):
    sent = []

    def go_on():
        sent.append("event-%d" % len(sent))
        backend.event(sent[-1])
        source = instance.wait_source(lambda s: s["completed"] == len(sent) and not s["error"], "the event to be done")
        equal((source["fetched"], source["duplicates"], source["dead"]), (len(sent), 0, 0), "fetched, duplicates, dead")
        uids_once(seen(calls), sent, "the stage")

    go_on()
    for code, command, texts, slow in CODES:
        backend.wait_held()
        backend.command("error %d 0 %s" % (code, command))
        if command == "login":
            backend.command("kick")
        sent.append("meanwhile-%d" % len(sent))  # comes with the poll that is held, or when the trouble is over
        backend.event(sent[-1])
        source = show_failing(instance, texts)
        if slow:
            check(source["next_try_in_ms"] > SLOW_MS // 2, "tried again slowly: in %d ms" % source["next_try_in_ms"])
            check(source["next_try_in_ms"] <= SLOW_MS * 5 // 4, "but soon enough: in %d ms" % source["next_try_in_ms"])
        instance.wait_source(lambda s: s["failures"] >= source["failures"] + (1 if slow else 2), "more tries")
        backend.command("error off")
        go_on()

    # A session that the backend has forgotten: the next call logs in again, once.
    backend.wait_held()
    logins = backend.stats()["logins"]
    backend.command("error 102 1")
    go_on()
    backend.wait_stats(lambda stats: stats["logins"] == logins + 1 and stats["held"] == 1, "one more login")

    # Nothing yet is no failure.
    failures, errors = instance.source()["failures"], backend.stats()["errors"]
    backend.command("error 7 3")
    wait_for(lambda: backend.stats()["errors"] >= errors + 3, "polls that run out")
    go_on()
    source = instance.source()
    equal((source["failures"], source["error"]), (failures, None), "failures and error after [7]")


def real_refusals(broker, backend, instance):
    """What is refused because it is wrong."""
    show_failing(instance, ("refuses the token", "[201]"), "token")
    show_failing(instance, ("`domain`", "[208]"), "domain")
    show_failing(instance, ("`address`", "[209]"), "address")
    show_failing(instance, ("MQTT user", "device"), "password")
    show_failing(instance, ("certificate is refused", "ca_file"), "authority")
    source = show_failing(instance, ("certificate is refused",), "system")
    check("ca_file" in source["error"], "it names the setting: " + source["error"])
    show_failing(instance, ("certificate is refused", "127.0.0.1"), "name")
    backend.event("late", domain="nowhere", address="device-nine")
    for id in ("domain", "address"):  # they exist now
        instance.wait_source(lambda s: s["completed"] == 1 and not s["error"], "the event of what was not found", id)


def main():
    broker = Broker(tls=True, user=("device", "77dev22p1"), subject="DNS:elsewhere.example")
    backend = Simulator(broker, "--account", "%s:%s" % (ACCOUNT, TOKEN))
    stage, calls = seeing_stage("stage")
    stages = {"name": "stage", "exec": [stage]}
    retry = {"min": "%dms" % QUICK_MS, "max": "%dms" % SLOW_MS}
    instance = Instance()
    instance.configure(idefix_source("feed", broker, stages, retry=retry))
    instance.start()
    by_code(backend, instance, calls)
    instance.stop()

    make_certificates(DIRECTORY, "stranger")
    other = Instance("-real")
    none = {"name": "none", "exec": ["cat"]}
    other.configure("".join([
        idefix_source("token", broker, none, token_file=token_file("not-" + TOKEN, "token.wrong")),
        idefix_source("domain", broker, stages, domain="nowhere"),
        idefix_source("address", broker, stages, domain=None, address="device-nine"),
        idefix_source("password", broker, none, password="77dev22p2"),
        idefix_source("authority", broker, none, tls=True, ca_file=os.path.join(DIRECTORY, "stranger-ca.pem")),
        idefix_source("system", broker, none, tls=True, ca_file=None),
        idefix_source("name", "ssl://127.0.0.1:%d" % broker.tls_port, none, ca_file=broker.ca_file),
    ]))
    other.start()
    real_refusals(broker, backend, other)
    other.stop()
    for text in shown_texts + [instance.log_text(), other.log_text()]:
        for secret in (TOKEN, "77dev22p1", "77dev22p2"):
            check(secret not in text, "a secret is shown: " + text[-2000:])
    check_logs(backend, instance, other)
    check(DOMAIN in backend.requests("events.get")[0]["data"]["domain"], "requests are looked at")
    equal({request["data"]["token"] for request in backend.requests("login")}, {TOKEN, "not-" + TOKEN}, "tokens sent")
    finish()


main()
