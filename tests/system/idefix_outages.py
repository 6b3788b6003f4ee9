#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Outages of every kind at an Idefix source: each is shown with its reason, and then fetching goes on from the cursor.

A broker that is away at start; one that goes for seconds, after which fetching resumes within 1 s of its return; one that
accepts connections and stays silent; polls and a login that are never answered; answers that come after their deadline, or
twice; connections that break all the time.
"""
import socket
import threading
import time

from harness import Instance, check, equal, finish, wait_for
from idefix import Broker, Simulator, check_logs, idefix_source, seeing_stage, seen, uids_once

AWAY_S = [2.5, 2.5, 7]  # so long that a pause which grows from try to try would be noticed
RESUME_S = 1.0
DEFAULTS = {"retry": None, "long_poll": "3s", "response_timeout": None, "connect_timeout": None}


class Feed:
    """A daemon with one source, and what came of it."""

    def __init__(self, name, broker, **keys):
        self.name, self.broker, self.backend, self.sent = name, broker, None, []
        stage, self.calls = seeing_stage("stage-" + name, '    witness("at", event["uid"], time.monotonic())')
        self.instance = Instance("-" + name)
        self.instance.configure(idefix_source("feed", broker, {"name": "stage", "exec": [stage]}, domain=name, **keys))
        self.instance.start()
        self.pid = self.instance.producers()[0]

    def show_failing(self, *texts):
        """Until the status shows the source failing with this message, as the only thing amiss."""
        last = {}

        def look():
            last["status"] = status = self.instance.status()
            source = status["sources"][0]
            return status if source["error"] and all(word in source["error"] for word in texts) else None
        status = wait_for(look, lambda: "an error with %s; status: %s" % (texts, last["status"]))
        source = status["sources"][0]
        equal(status["health"], "degraded", "health with " + source["error"])
        check(len(status["reasons"]) == 1 and source["error"] in status["reasons"][0], "reasons: %s" % status["reasons"])
        check(source["failures"] > 0, "failures are counted: %s" % source)
        print(source["error"], flush=True)

    def add(self):
        uid = "%s-%d" % (self.name, len(self.sent))
        self.sent.append(uid)
        self.backend.event(uid, domain=self.name)
        return uid

    def at(self, uid):
        """When the stage was given it."""
        return next((call[2] for call in self.calls() if call[0] == "at" and call[1] == uid), None)

    def wait_at(self, uid):
        return wait_for(lambda: self.at(uid), lambda: "%s to arrive: %s" % (uid, self.instance.status()))

    def go_on(self):
        """A new event arrives, and all is well; nothing came twice, and the polls go on from the cursor."""
        self.wait_at(self.add())
        source = self.instance.wait_source(lambda s: s["completed"] == len(self.sent) and not s["error"]
                                           and s["state"] == "fetching", "all is well")
        equal((source["fetched"], source["duplicates"]), (len(self.sent), 0), "fetched, duplicates")
        equal(self.instance.status()["health"], "ok", "health")
        uids_once(seen(self.calls), self.sent, "the stage")
        wait_for(lambda: self.backend.requests("events.get")[-1]["data"].get("cid") == self.instance.source()["cursor"],
                 "a poll that goes on from the cursor")

    def stop(self):
        equal(self.instance.producers(), [self.pid], "it was the same producer all the time")
        self.instance.stop()
        check_logs(self.backend, self.instance)
        self.backend.wait_stats(lambda stats: stats["held"] == 0, "the end of the poll of who is gone")


class Silent:
    """Accepts connections at a port, and never says a word."""

    def __init__(self, port):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", port))
        self.listener.listen()
        self.accepted = []
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        try:
            while True:
                self.accepted.append(self.listener.accept()[0])
        except OSError:  # it was shut down
            pass

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        for each in [self.listener, *self.accepted]:
            each.close()


def gone_for_seconds(feed, backend):
    """With the defaults of a source: the pauses between tries must not keep it from coming back at once."""
    address = "onnection to " + feed.broker.url()
    for away in AWAY_S:
        backend.wait_held()
        gone = time.monotonic()
        feed.broker.stop()
        backend.wait_lost()
        uid = feed.add()
        feed.show_failing(address)
        wait_for(lambda: time.monotonic() - gone > away, "the end of the outage")
        feed.broker.start()
        back = time.monotonic()
        backend.wait_ready()
        back = max(back, backend.ready_at)
        late = feed.wait_at(uid) - back
        print("an outage of %.1f s, and %.0f ms from the broker's return to the first event" % (back - gone, 1000 * late),
              flush=True)
        check(late < RESUME_S, "fetching resumed %.2f s after the broker's return" % late)
        feed.go_on()


def silent_broker(feed, backend):
    backend.wait_held()
    feed.broker.stop()
    backend.wait_lost()
    silent = Silent(feed.broker.port)
    feed.show_failing(feed.broker.url() + " accepts connections but stays silent")
    silent.close()
    feed.broker.start()
    backend.wait_ready()
    feed.go_on()


def silent_backend(feed, backend):
    """The backend is gone, the broker is not: polls are not answered, then, on a new connection, the login is not."""
    backend.wait_held()
    backend.command("silent on")
    feed.show_failing("events.get", "within 1.5 s")
    feed.show_failing("login", "within 3 s")
    backend.command("silent off")
    feed.go_on()


def late_answer(feed, backend):
    """A page that comes when its poll has timed out and another poll is pending."""
    backend.wait_held()
    before = backend.stats()
    backend.command("late 700")
    uid = feed.add()  # its page goes astray; the next poll asks for it again
    feed.wait_at(uid)
    backend.wait_stats(lambda stats: stats["late"] == before["late"] + 1 and stats["polls"] >= before["polls"] + 2,
                       "a late page")
    feed.go_on()


def troubles(feed, backend):
    """Each page twice; every third answer drops; each comes late; connections break at both ends."""
    before = backend.stats()
    for name, number in (("duplicate-every", 1), ("drop-every", 3), ("delay", 300), ("disconnect-every", 2)):
        backend.command("%s %d" % (name, number))
        for _ in range(4):
            feed.wait_at(feed.add())
        backend.command(name + " 0")
        feed.go_on()
    stats = backend.stats()
    for name in ("kicks", "disconnects", "duplicated", "dropped"):
        check(stats[name] > before[name], "%s: %s" % (name, stats))
    print(stats)


def main():
    broker = Broker()
    broker.stop()
    feeds = [Feed("defaults", broker, **DEFAULTS),
             Feed("quick", broker, long_poll="1s", response_timeout="500ms", connect_timeout="1s")]
    for feed in feeds:
        feed.show_failing("no connection to " + broker.url(), "refused")
    broker.start()
    backend = Simulator(broker, "--domain", "defaults", "--domain", "quick")
    first, second = feeds
    first.backend = second.backend = backend
    for feed in feeds:
        feed.go_on()
    second.instance.stop()
    backend.wait_held()
    gone_for_seconds(first, backend)
    first.stop()

    second.instance.start()
    second.pid = second.instance.producers()[0]
    second.go_on()
    for trouble in (silent_broker, silent_backend, late_answer, troubles):
        trouble(second, backend)
    second.stop()
    finish()


main()
