#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Errors of a stage swallow neither workers nor events: all others are done at once, the failing ones later.

(In the original an error ends the worker silently, and the events after it are lost until the next start.)
"""
import os

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, times_called, wait_for

EVENTS, WORKERS = 60, 3
KINDS = {0: "crashes", 1: "errs", 2: "not yet", 3: "malformed answer"}

script, calls = python_stage("moody", """
    kind = event["payload"]["n"] % 6
    if attempt == 1 and kind == 0:
        sys.stderr.write("I had enough\\n")
        sys.exit(1)
    if attempt == 1 and kind == 1:
        answer = {"error": "not today"}
    if attempt == 1 and kind == 2:
        answer = {"processed": False}
    if attempt == 1 and kind == 3:
        answer = "mumble"
    if kind == 4:
        time.sleep(0.02)
""")
last_script, last_calls = python_stage("last")
lines = os.path.join(DIRECTORY, "lines")
append(lines, *[{"id": "%d" % n, "n": n} for n in range(EVENTS)])
instance = Instance()
instance.configure(file_source("file", lines,
                               {"name": "moody", "exec": [script], "concurrency": WORKERS,
                                "retry": {"min": "200ms", "max": "1s"}},
                               {"name": "last", "exec": [last_script]}))
instance.start()
instance.wait_empty(EVENTS)
equal(instance.query("SELECT completed, dead FROM source"), [(EVENTS, 0)], "completed, dead")
equal(times_called(calls), {str(n): 2 if n % 6 in KINDS else 1 for n in range(EVENTS)}, "calls of the moody stage")
equal(times_called(last_calls), {str(n): 1 for n in range(EVENTS)}, "calls of the last stage")
each = EVENTS // 6
equal(instance.query("SELECT processed, failed, retried, crashed FROM stage WHERE name = 'moody'"),
      [(EVENTS, each, each, 2 * each)], "processed, failed, retried, crashed")

# Every worker is still there, and takes part.
shown = EVENTS
pids = set()
while len(pids) < WORKERS:
    wait_for(lambda: all(worker["pid"] and worker["state"] == "idle" for worker in instance.stage("moody")["workers"]),
             lambda: "all workers to wait for more: %s" % instance.stage("moody"))
    append(lines, *[{"id": "%d" % n, "n": 4} for n in range(shown, shown + 5 * WORKERS)])
    shown += 5 * WORKERS
    wait_for(lambda: instance.query("SELECT completed FROM source") == [(shown,)], "%d events to be done" % shown)
    pids |= {call[3] for call in calls() if int(call[1]) >= EVENTS}
wait_for(lambda: instance.stage("moody")["state"] == "idle", lambda: "the stage to be well: %s" % instance.stage("moody"))
stage = instance.stage("moody")
equal(len(stage["workers"]), WORKERS, "workers")
check(stage["restarts"] >= 1, "the restarts are shown: %s" % stage)
equal(instance.query("SELECT live, dead FROM source"), [(0, 0)], "live, dead")
instance.stop()
finish()
