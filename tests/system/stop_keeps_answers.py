#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A graceful stop throws no finished answer away: no event comes again to a stage that has answered it. (In the original,
a graceful stop does.)"""
import os

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, times_called, wait_for

EVENTS, STOPS = 300, 4

stages = [python_stage(name, "    time.sleep(%g)" % seconds) for name, seconds in (("a", 0.001), ("b", 0.01), ("c", 0.002))]
lines = os.path.join(DIRECTORY, "lines")
append(lines, *[{"id": str(n)} for n in range(EVENTS)])
instance = Instance()
# Answers are committed at the stop, or not at all: nothing else would commit them so early.
instance.configure(file_source("file", lines, *[
    {"name": name, "exec": [script], "concurrency": 2, "batch": 10000,
     "commit_delay": "1h" if name != "b" else "5ms"}
    for name, (script, _) in zip("abc", stages)]))
for stop in range(1, STOPS + 1):
    instance.start(wait=False)
    # its signals are its own only once it has begun
    wait_for(lambda: instance.log_text().count("phase name=running") == stop, "the daemon to run")
    wait_for(lambda: len(stages[0][1]()) >= stop * EVENTS // (STOPS + 1), "more calls of a")
    instance.stop()
    called = [len(calls()) for _, calls in stages]
    processed = [row[0] for row in instance.query("SELECT processed FROM stage ORDER BY id")]
    equal(processed, called, "answers committed at stop %d, and calls" % stop)
check(any(count < EVENTS for count in called), "the stops came before the end")
instance.start()
instance.wait_empty(EVENTS)
for name, (_, calls) in zip("abc", stages):
    equal(times_called(calls), {str(n): 1 for n in range(EVENTS)}, "calls of " + name)
    check(all(call[2] == 1 for call in calls()), "no attempt was counted at " + name)
equal(instance.query("SELECT fetched, completed, live FROM source"), [(EVENTS, EVENTS, 0)], "fetched, completed, live")
instance.stop()
finish()
