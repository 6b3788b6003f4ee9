#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Backoff, max_attempts, max_age and backlog.max_events. (The original has none of them.)"""
import os

from harness import DIRECTORY, Gate, Instance, append, check, equal, file_source, finish, python_stage, times_called, \
    wait_for

AT = '    witness("at", event["uid"], time.monotonic())\n'
MIN, MAX, ATTEMPTS = 0.1, 0.4, 6

# Pauses grow from min to max, with jitter, and end after max_attempts.
script, calls = python_stage("failing", AT + '    answer = {"error": "no luck at attempt %d" % attempt}')
lines = os.path.join(DIRECTORY, "failing-lines")
append(lines, *[{"id": str(n)} for n in range(8)])
instance = Instance("-attempts")
instance.configure(file_source("file", lines, {"name": "failing", "exec": [script], "max_attempts": ATTEMPTS,
                                               "retry": {"min": "100ms", "max": "400ms"}}))
instance.start()
instance.wait_source(lambda s: s["dead"] == 8, "all to be dead")
pauses = {}
for uid in (str(n) for n in range(8)):
    attempts = [call[2] for call in calls() if call[0] == "call" and call[1] == uid]
    equal(attempts, list(range(1, ATTEMPTS + 1)), "attempts of " + uid)
    times = [call[2] for call in calls() if call[0] == "at" and call[1] == uid]
    pauses[uid] = [later - earlier for earlier, later in zip(times, times[1:])]
    for number, pause in enumerate(pauses[uid]):
        # Jitter takes away a quarter; and a pause is shorter only by the milliseconds that are rounded.
        check(pause >= min(MIN * 2 ** number, MAX) * 0.75 - 0.005, "pauses of %s grow: %s" % (uid, pauses[uid]))
longest = [pause for each in pauses.values() for pause in each[2:]]
check(max(longest) - min(longest) > 0.04, "jitter spreads the longest pauses: %s" % longest)
dead = instance.lines("queue", "--state", "dead")
equal([(event["reason"], event["attempts"], event["error"]) for event in dead],
      [("exhausted", ATTEMPTS, "no luck at attempt %d" % ATTEMPTS)] * 8, "dead ones")
check("8 dead events" in instance.status()["reasons"][0], "the status says so: %s" % instance.status()["reasons"])
instance.stop()

# Too old: dead at the first failure after max_age, and not while it does not fail.
script, calls = python_stage("old", '    answer = {"processed": event["payload"]["good"], "retry_after": "100ms"}')
lines = os.path.join(DIRECTORY, "old-lines")
append(lines, {"id": "first", "good": True})
instance = Instance("-age")
instance.configure(file_source("file", lines, {"name": "old", "exec": [script], "max_age": "2s"}))
instance.start()
instance.wait_source(lambda s: s["completed"] == 1, "the stage to be at work")
append(lines, {"id": "bad", "good": False}, {"id": "good", "good": True})
instance.wait_source(lambda s: s["dead"] == 1 and s["completed"] == 2, "one to be dead, the others to be done")
dead = instance.lines("queue", "--state", "dead")
equal([(event["uid"], event["reason"]) for event in dead], [("bad", "expired")], "dead ones")
check(times_called(calls)["bad"] >= 2, "it was tried again before: %s" % times_called(calls))
instance.stop()

# A full backlog: fetching pauses, nothing is dropped, and it resumes.
EVENTS, LIMIT, PAGE = 100, 20, 5
gate = Gate()
script, calls = python_stage("slow", gate.body)
lines = os.path.join(DIRECTORY, "slow-lines")
append(lines, *[{"id": str(n)} for n in range(EVENTS)])
instance = Instance("-backlog")
instance.configure(file_source("file", lines, {"name": "slow", "exec": [script]}, page_size=PAGE,
                               backlog={"max_events": LIMIT}))
for start in range(2):
    instance.start()
    instance.wait_source(lambda s: s["state"] == "full", "the source to be full")
    status = instance.status()
    check(status["health"] == "degraded" and "full" in status["reasons"][0], "status: %s" % status["reasons"])
    [(fetched, live)] = instance.query("SELECT fetched, live FROM source")
    check(LIMIT <= fetched < LIMIT + PAGE and live == fetched, "fetched %d, live %d" % (fetched, live))
    if start == 0:
        instance.kill()  # it is as full after a restart
gate.open()
instance.wait_empty(EVENTS)
equal(instance.query("SELECT fetched, completed, duplicates, dead FROM source"), [(EVENTS, EVENTS, 0, 0)], "totals")
equal(set(times_called(calls)), {str(n) for n in range(EVENTS)}, "events called")
wait_for(lambda: instance.status()["health"] == "ok", "the health to be ok")
instance.stop()
finish()
