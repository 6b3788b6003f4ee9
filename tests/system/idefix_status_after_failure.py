#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Status tells of a failure as long as it lasts and no longer, however long a poll waits.

With polls of 60 s and no event: after an outage, and after a single error, all is well again within seconds. What fails each
time (error 102 after each login; answers that cannot be read) stays a failure, is counted, and asked for less and less.
"""
from harness import Instance, check, equal, finish, wait_for
from idefix import Broker, Simulator, idefix_source, seeing_stage

SOON = 20  # seconds; a poll waits for 60
stage, calls = seeing_stage("stage", "    pass")


def failing(instance, *texts):
    return instance.wait_source(lambda s: s["error"] and all(word in s["error"] for word in texts), "an error: %s" % (texts,))


def well(instance):
    instance.wait_source(lambda s: not s["error"] and s["state"] == "fetching", "all is well", seconds=SOON)
    equal(instance.status()["health"], "ok", "health")


def main():
    broker = Broker()
    backend = Simulator(broker, "--domain", "acme")
    instance = Instance()
    instance.configure(idefix_source("feed", broker, {"name": "stage", "exec": [stage]}, domain="acme", long_poll="60s",
                                     response_timeout="500ms", retry={"min": "50ms", "max": "1s"}))
    instance.start()
    backend.wait_held()
    well(instance)

    broker.stop()
    failing(instance, broker.url())
    broker.start()
    backend.wait_ready()
    well(instance)

    backend.wait_held()
    backend.command("error 2")
    backend.command("kick")  # ends the poll that is held: the next one gets the error
    wait_for(lambda: "[2]" in instance.log_text(), "the error in the log")
    well(instance)

    for order, texts in (("error 102 0", "102"), ("garbage random 0", "cannot be read")):
        backend.wait_held()
        backend.command(order)
        backend.command("kick")
        failing(instance, texts)
        works = instance.log_text().count("fetch-recovered")
        logins = backend.stats()["logins"]
        source = instance.wait_source(lambda s: s["failures"] >= 5, "failures in a row with " + order)
        equal(instance.log_text().count("fetch-recovered"), works, "a fetch that works with " + order)
        check(backend.stats()["logins"] - logins <= source["failures"], "logins: %s" % backend.stats())
        equal(instance.status()["health"], "degraded", "health with " + order)
        backend.command(order.split()[0] + " off")
        well(instance)
    instance.stop()
    finish()


main()
