#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""200 events that fail for ever do not starve the newer ones. (In the original, 100 do.)

Once where there is time for everything, and once where trying the failing ones again takes many times the time there is;
there with one place before the stage, too.
"""
import os

from harness import DIRECTORY, Instance, append, equal, file_source, finish, python_stage, times_called, wait_for

FAILING, NEWER = 200, 50


def prove(name, seconds, input_buffer, retry, tries):
    script, calls = python_stage(name, """
    if event["payload"]["bad"]:
        time.sleep(%g)
        answer = {"error": "never"}
""" % seconds)
    lines = os.path.join(DIRECTORY, name + "-lines")
    append(lines, *[{"id": "bad-%d" % n, "bad": True} for n in range(FAILING)])
    instance = Instance("-" + name)
    instance.configure(file_source("file", lines, {"name": "stage", "exec": [script], "input_buffer": input_buffer,
                                                   "retry": retry}))
    instance.start()
    wait_for(lambda: len(times_called(calls)) == FAILING and min(times_called(calls).values()) >= tries,
             "all bad ones to have failed")

    append(lines, *[{"id": "good-%d" % n, "bad": False} for n in range(NEWER)])
    wait_for(lambda: instance.query("SELECT completed FROM source") == [(NEWER,)], "the newer ones to be done")
    equal({uid: count for uid, count in times_called(calls).items() if uid.startswith("good")},
          {"good-%d" % n: 1 for n in range(NEWER)}, "calls of the newer ones")

    # And the failing ones are all still there, and still tried, each of them.
    before = times_called(calls)
    wait_for(lambda: all(count > before[uid] for uid, count in times_called(calls).items() if uid.startswith("bad")),
             "all bad ones to be tried again")
    equal(instance.query("SELECT live, dead, completed FROM source"), [(FAILING, 0, NEWER)], "live, dead, completed")
    instance.wait_source(lambda s: s["stages"][0]["failed"] > tries * FAILING and s["live"] == FAILING,
                         "the status to show them")
    instance.stop()


prove("enough", 0, 16, {"min": "100ms", "max": "200ms"}, 2)
prove("too-little", 0.005, 16, {"min": "10ms", "max": "20ms"}, 1)
prove("one-place", 0.005, 1, {"min": "10ms", "max": "20ms"}, 1)
finish()
