#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The end of one source, or its failing for good, stops no other. (In the original, one source's end stops all.)"""
import os
import socket

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, wait_for

script, calls = python_stage("stage")
crash_script, _ = python_stage("crash", "    os.kill(os.getpid(), signal.SIGKILL)")
stage = {"name": "stage", "exec": [script]}
lines, missing = os.path.join(DIRECTORY, "lines"), os.path.join(DIRECTORY, "missing")
append(lines, {"id": "0"})
with socket.socket() as closed:
    closed.bind(("127.0.0.1", 0))  # bound, and not listening: connections are refused as long as this is open
    instance = Instance()
    instance.configure("\n".join((
        "- {id: ended, type: generate, count: 5, stages: [{name: stage, exec: [%s]}]}" % script,
        "- {id: closed, type: http, url: 'http://127.0.0.1:%d/', retry: {min: 100ms, max: 200ms}, "
        "stages: [{name: stage, exec: [%s]}]}" %
        (closed.getsockname()[1], script),
        "- {id: crashing, type: generate, count: 3, stages: [{name: crash, exec: [%s], max_crashes: 1}]}" % crash_script,
        file_source("missing", missing, stage),
        file_source("good", lines, stage))))
    instance.start()
    instance.wait_source(lambda s: s["state"] == "ended" and s["completed"] == 5, "the end of the first source", "ended")
    instance.wait_source(lambda s: s["state"] == "backoff" and s["failures"] >= 2, "the refused one to back off", "closed")
    instance.wait_source(lambda s: s["state"] == "ended" and s["dead"] == 3, "the crashing ones to be dead", "crashing")
    instance.wait_source(lambda s: s["completed"] == 1, "the first event of the good one", "good")
    for round in range(1, 6):
        append(lines, {"id": str(round)})
        wait_for(lambda: instance.query("SELECT completed FROM source WHERE name = 'good'") == [(round + 1,)],
                 "event %d of the good one" % round)

    # What failed for good so far begins when it can.
    append(missing, {"id": "found"})
    instance.wait_source(lambda s: s["completed"] == 1, "the file that was missing", "missing")
    source = instance.source("closed")
    equal((source["state"], source["fetched"]), ("backoff", 0), "state of the refused one")
    check(source["error"] and source["producer"]["pid"], "its error is shown, its producer lives: %s" % source)
    equal([s["producer"]["restarts"] for s in instance.status()["sources"]], [0] * 5, "restarts of producers")

    # The same after another start: an ended source stays so, the others go on.
    instance.stop()
    append(lines, {"id": "after"})
    instance.start()
    instance.wait_source(lambda s: s["completed"] == 7, "the event after the restart", "good")
    instance.wait_source(lambda s: s["state"] == "ended", "the end", "ended")
    equal(instance.query("SELECT name, fetched, completed FROM source WHERE name != 'crashing' ORDER BY name"),
          [("closed", 0, 0), ("ended", 5, 5), ("good", 7, 7), ("missing", 1, 1)], "totals")
    instance.stop()
finish()
