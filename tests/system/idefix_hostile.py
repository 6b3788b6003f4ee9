#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Garbage of every kind from an Idefix backend, in each encoding: the reason is shown and logged, the producer lives on, the
cursor is not lost, and every event arrives afterwards, once. One bad event in a page is kept as dead, reason corrupt, with
its bytes, while the rest of the page goes on.
"""
import base64
import json
import os

from harness import DIRECTORY, Instance, check, equal, finish, wait_for
from idefix import Broker, Simulator, check_logs, event_text, idefix_source, seeing_stage, seen, uids_once

# Kind, how many answers (each form of it once, at least), what one of the reasons must say in MessagePack, in JSON.
KINDS = [
    ("random", 4, "cannot be read", "cannot be read"),
    ("not-gzip", 1, "does not inflate", "does not inflate"),
    ("gzip-bomb", 1, "larger", "larger"),
    ("truncated", 9, "cannot be read", "cannot be read"),
    ("lying", 5, "cannot be read", "does not inflate"),
    ("types", 11, "not a map", "not a JSON object"),
    ("flags", 8, "flags", "flags"),
]
EVENTS = 7  # on the page with a bad one
# What is wrong with the bad events, and how their bytes begin, in MessagePack and in JSON.
BAD = {True: [("no uid", b"\x81\xa4type"), ("not a map", b"\x11"), ("nested deeper", b"\x82\xa3uid\xa8bad-deep"),
              ("extension", b"\x82\xa3uid\xaabad-packed")],
       False: [("no uid", b'{"type":"nameless"'), ("not a JSON object", b"17"), ("nested deeper", b'{"uid":"bad-deep"')]}


class Trial:
    """One encoding: a daemon of its own."""

    def __init__(self, broker, encoding):
        self.encoding, self.packed = encoding, "j" not in encoding
        self.stage, self.calls = seeing_stage("stage-" + encoding)
        self.backend = Simulator(broker, name="sim-" + encoding)
        self.instance = Instance("-" + encoding)
        self.instance.configure(idefix_source("feed", broker, {"name": "stage", "exec": [self.stage]}, encoding=encoding,
                                              response_timeout="20s", retry={"min": "20ms", "max": "50ms"}))
        self.sent, self.dead, self.logged = [], 0, 0
        self.instance.start()
        self.pid = self.instance.producers()[0]

    def go_on(self):
        self.sent.append("%s-event-%d" % (self.encoding, len(self.sent)))
        self.backend.event(self.sent[-1])
        self.well()

    def well(self):
        """All that was sent is through, each event once."""
        wait_for(lambda: self.instance.query("SELECT completed, duplicates FROM source") == [(len(self.sent), 0)],
                 lambda: "%d events to be done: %s" % (len(self.sent), self.instance.status()))
        uids_once(seen(self.calls), self.sent, "the stage")

    def new_log(self):
        """What was logged since the last time."""
        text = self.instance.log_text()
        new, self.logged = text[self.logged:], len(text)
        return new

    def garbage(self, kind, count, message):
        self.backend.wait_held()
        self.new_log()
        before = self.backend.stats()["garbage"]
        self.backend.command("garbage %s %d" % (kind, count))
        self.backend.wait_stats(lambda stats: stats["garbage"] == before + count and stats["held"] == 1,
                                "%d times %s" % (count, kind))
        self.go_on()
        log = self.new_log()
        check("fetch-recovered after_failures=%d" % count in log, "each of %d times %s is a failure: %s" % (count, kind, log))
        check(message in log, "%s is not among the reasons for %s: %s" % (message, kind, log))

    def deep(self):
        """A page whose one event is nested 100,000 deep."""
        self.backend.wait_held()
        self.backend.command("garbage deep 1")
        self.dead += 1
        self.go_on()

    def bad_events(self):
        """A page with a bad event in its middle, one for each form."""
        for number, (message, begin) in enumerate(BAD[self.packed]):
            if number == 0:
                self.backend.command("garbage bad-event %d" % len(BAD[self.packed]))
            self.backend.wait_held()
            known = {event["uid"] for event in self.instance.lines("queue", "--state", "dead")}
            uids = ["%s-page-%d-%d" % (self.encoding, number, n) for n in range(EVENTS)]
            path = os.path.join(DIRECTORY, uids[0])
            with open(path, "w") as file:
                file.writelines(event_text(uid) + "\n" for uid in uids)
            self.backend.command("events " + path)
            self.sent += uids
            self.dead += 1
            self.well()
            dead = next(event for event in self.instance.lines("queue", "--state", "dead") if event["uid"] not in known)
            equal(dead["reason"], "corrupt", "reason")
            check(message in dead["error"], "%s, expected %s" % (dead["error"], message))
            if b"bad-" in begin:  # a uid that can be read is kept
                equal(dead["uid"], "bad-packed" if b"packed" in begin else "bad-deep", "uid of a bad event")
            event = self.instance.lines("show", dead["uid"])[0]
            raw = base64.b64decode(event["raw:b64"]) if "raw:b64" in event else json.dumps(event["event"]).encode()
            check(raw.replace(b" ", b"").startswith(begin), "its bytes: %r" % raw)
            equal([event["uid"] for event in seen(self.calls)][-EVENTS:], uids, "the rest of the page, in order")

    def run(self):
        self.go_on()
        for kind, count, packed, text in KINDS:
            self.garbage(kind, count, packed if self.packed else text)
        self.deep()
        self.bad_events()
        done, dead = len(self.sent), self.dead
        source = self.instance.wait_source(lambda s: (s["completed"], s["dead"], s["error"]) == (done, dead, None),
                                           "%d events done, %d dead, no error" % (done, dead))
        equal((source["fetched"], source["producer"]["pid"]), (done + dead, self.pid), "fetched, the producer's pid")
        cursors = [poll["data"].get("cid", "") for poll in self.backend.requests("events.get")]
        equal(cursors, sorted(cursors), "what the polls went on from")
        check(cursors[-1] > cursors[0], "they went on")
        equal(self.backend.stats()["logins"], 1, "logins: the connection was none the worse for it")
        self.instance.stop()
        check("crash process=producer" not in self.instance.log_text(), "a crash: " + self.instance.log_text()[-4000:])
        self.backend.close()
        check_logs(self.backend, self.instance)
        print("%s: %d events, %d dead" % (self.encoding, len(self.sent), self.dead), flush=True)


def main():
    broker = Broker()
    for encoding in ("mg", "m", "jg", "j"):
        Trial(broker, encoding).run()
    finish()


main()
