#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Retries do not wait for the end of the backlog, nor for a source that brings more than its stage can do.

The opposite of failing_events_starve_none: here the newer ones are those that never end.
"""
from harness import Instance, check, equal, finish, python_stage, wait_for

script, calls = python_stage("stage", """
    time.sleep(0.002)
    if event["uid"] == "made-1":
        witness("again", "made-1", attempt)
        answer = {"processed": attempt > 3, "retry_after": "100ms"}
""")
instance = Instance()
instance.configure("- {id: made, type: generate, stages: [{name: stage, exec: [%s], input_buffer: 64}]}" % script)
instance.start()
wait_for(lambda: len([call for call in calls() if call[0] == "again"]) == 4, "three retries")
wait_for(lambda: instance.source()["state"] == "fetching", "the flood to go on")
[(fetched, completed, live)] = wait_for(
    lambda: instance.query("SELECT fetched, completed, live FROM source WHERE fetched > completed + 64"),
    "more to be fetched than done")
equal(fetched, completed + live, "fetched")
kinds = [call[0] for call in calls()]
others = kinds[:len(kinds) - kinds[::-1].index("again")].count("call") - 4
check(3 < others < 2000, "the others are done, too, and not thousands of them before the retries: %d" % others)
equal([call[2] for call in calls() if call[0] == "again"], [1, 2, 3, 4], "attempts")
instance.stop()
finish()
