#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Stages dropped, added and reordered between two starts: events go on, none stays locked, none is run twice by a stage.

(In the original the rows of a dropped last stage stay locked for ever.)
"""
import os

from harness import DIRECTORY, Gate, Instance, append, check, equal, file_source, finish, python_stage, times_called, \
    wait_for

EVENTS = 40


class Chain:
    """An instance whose stages can be held up one by one, and changed between starts."""

    def __init__(self, name, stages):
        self.lines = os.path.join(DIRECTORY, name + "-lines")
        append(self.lines, *[{"id": str(n)} for n in range(EVENTS)])
        self.gates = {stage: Gate("%s-%s-gate" % (name, stage)) for stage in stages}
        self.stages = {stage: python_stage("%s-%s" % (name, stage), self.gates[stage].body) for stage in stages}
        self.instance = Instance("-" + name)

    def configure(self, names):
        self.instance.configure(file_source("file", self.lines, *[
            {"name": name, "exec": [self.stages[name][0]], "concurrency": 2, "input_buffer": 10} for name in names]),
            extra="drain_timeout: 100ms")

    def start(self, names, open=""):
        for name in open:
            self.gates[name].open()
        self.configure(names)
        self.instance.start(wait=False)

    def called(self, name):
        return len(self.stages[name][1]())

    def wait_held(self, name):
        """Waits until both workers of the stage process an event and others wait behind it."""
        wait_for(lambda: self.called(name) >= 2 and self.instance.query(
            "SELECT count(*) FROM progress WHERE token != 0 AND done != ''")[0][0] > 2, "events to stand before " + name)

    def committed(self):
        """(stage, uid) of every answer in the store, to be asked of while the daemon is down."""
        rows = self.instance.query("SELECT done, uid FROM progress JOIN event USING (seq)")
        return {(name, uid) for done, uid in rows for name in done.split()}

    def finish(self, names, held=(), killed=None):
        """All are done, each by each stage once; those in the hand of a held stage were called there before, too.

        killed: calls of each stage before the daemon was killed, and the answers that were stored then. Others may have
        come again.
        """
        wait_for(lambda: self.instance.query("SELECT completed, live FROM source") == [(EVENTS, 0)],
                 lambda: "all events to be done: %s" % self.instance.query("SELECT * FROM source"))
        equal(self.instance.query("SELECT count(*) FROM progress") + self.instance.query("SELECT count(*) FROM event"),
              [(0,), (0,)], "rows left")
        for name in names:
            called = times_called(self.stages[name][1])
            equal(set(called), {str(n) for n in range(EVENTS)}, "events called at " + name)
            if killed:
                again = {(name, call[1]) for call in self.stages[name][1]()[killed[0][name]:]}
                equal(again & killed[1], set(), "events called at %s after their answer was stored" % name)
            elif name not in held:
                equal(set(called.values()), {1}, "calls of each event at " + name)
        self.instance.stop()


# The last stage is dropped while events are in its hands and wait for it, and the daemon is killed, or stops gracefully.
for way in ("killed", "stopped"):
    chain = Chain("drop-" + way, "abc")
    chain.start("abc", open="ab")
    chain.wait_held("c")
    killed = None
    if way == "killed":
        chain.instance.kill()
        killed = {name: chain.called(name) for name in "ab"}, chain.committed()
        check(killed[1], "answers are stored")
    else:
        chain.instance.stop()
    before = chain.called("c")
    chain.start("ab")
    chain.finish("ab", killed=killed)
    equal(chain.called("c"), before, "calls of the dropped stage")

# A stage in front of the others: those that have passed the others run it once, and those others not again.
chain = Chain("front", "xab")
chain.start("ab", open="a")
chain.wait_held("b")
chain.instance.stop()
stopped_at = chain.called("a")
check(0 < stopped_at < EVENTS, "some events have passed a: %d" % stopped_at)
chain.start("xab", open="xb")
chain.finish("xab", held="b")

# Other order: what stood between a and b has a behind it, and goes through b only.
chain = Chain("order", "abc")
chain.start("abc", open="a")
chain.wait_held("b")
chain.instance.stop()
check(0 < chain.called("a") < EVENTS, "some events have passed a: %d" % chain.called("a"))
chain.start("cba", open="cb")
chain.finish("cba", held="b")

# The first stage is dropped while nothing has passed it.
chain = Chain("first", "ab")
chain.start("ab", open="b")
wait_for(lambda: chain.called("a") == 2, "both workers to process an event")
chain.instance.stop()
chain.start("b")
chain.finish("b")
finish()
