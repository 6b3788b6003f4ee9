#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A program that has answered, and is killed while it has no event: the next event finds it gone, and is not blamed. One that
ends before it has ever answered is broken, and its events say so."""
import os
import signal

from harness import DIRECTORY, Instance, append, equal, file_source, finish, python_stage, wait_for


def state_of(pid):
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "gone"


def one_that_worked():
    instance = Instance("-worked")
    lines = os.path.join(DIRECTORY, "worked.lines")
    stage, calls = python_stage("worked")
    instance.configure(file_source("lines", lines, {"name": "work", "exec": [stage], "max_crashes": 1}))
    append(lines, {"id": "first"})
    instance.start()
    instance.wait_empty(1)
    program = calls()[0][3]
    os.kill(program, signal.SIGKILL)
    wait_for(lambda: state_of(program) in ("Z", "gone"), "the program's end")
    append(lines, {"id": "second"})
    status = instance.wait_empty(2)
    equal((status["completed"], status["dead"]), (2, 0), "completed and dead")
    equal([call[1:3] for call in calls()], [["first", 1], ["second", 1]], "events and attempts")
    crashes = instance.lines("crashes")
    equal([("event" in crash, "killed by signal 9" in crash["how"]) for crash in crashes],
          [(False, True)], "crashes: %r" % crashes)
    instance.stop()


def one_that_never_did():
    instance = Instance("-never")
    lines = os.path.join(DIRECTORY, "never.lines")
    instance.configure(file_source("lines", lines, {"name": "work", "exec": ["sh", "-c", "exit 7"], "max_crashes": 1}))
    append(lines, {"id": "first"})
    instance.start(wait=False)
    instance.wait_source(lambda s: s["dead"] == 1, "its event to be dead")
    equal(instance.lines("queue", "--state", "dead")[0]["reason"], "crashed", "why")
    instance.stop()


one_that_worked()
one_that_never_did()
finish()
