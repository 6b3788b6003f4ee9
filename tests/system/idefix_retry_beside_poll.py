#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A retry falls due on time, within 100 ms, while one and the same long poll of a minute is pending at an Idefix backend.
(In the original the retry waits until the poll ends.)
"""
import statistics

from harness import Instance, check, equal, finish, python_stage, wait_for
from idefix import Broker, Simulator, check_logs, idefix_source

RETRY_MS, LATE_MS, RETRIES = 200, 100, 3

script, calls = python_stage("stage", """
    witness("at", event["uid"], time.monotonic())
    if attempt <= %d:
        answer = {"processed": False, "retry_after": "%dms"}
""" % (RETRIES, RETRY_MS))
broker = Broker()
backend = Simulator(broker)
instance = Instance()
instance.configure(idefix_source("quiet", broker, {"name": "stage", "exec": [script]}, long_poll="60s",
                                 response_timeout="10s"))
instance.start()
late = []
for number in range(1, 6):
    backend.wait_held()
    backend.event("event-%d" % number)
    backend.wait_stats(lambda stats: stats["held"] == 1 and stats["polls"] == number + 1, "the next poll to be held")
    wait_for(lambda: instance.query("SELECT completed FROM source") == [(number,)], "the event to be done", seconds=30)
    stats = backend.stats()
    equal((stats["polls"], stats["held"]), (number + 1, 1), "polls, and those held: it is the same one all the time")
    times = [call[2] for call in calls() if call[0] == "at" and call[1] == "event-%d" % number]
    equal(len(times), RETRIES + 1, "calls")
    pauses = [later - earlier for earlier, later in zip(times, times[1:])]
    check(min(pauses) >= RETRY_MS / 1000 - 0.01, "no retry comes before its time: %s" % pauses)
    late += [pause * 1000 - RETRY_MS for pause in pauses]
equal({request["data"]["timeout"] for request in backend.requests("events.get")}, {"1m0s"}, "what the polls asked for")
# A busy machine may be late once; what waits for a poll is late each time, and by seconds.
late.sort()
print("%d retries came %s ms after they were due" % (len(late), ", ".join("%.0f" % ms for ms in late)))
check(statistics.median(late) <= LATE_MS, "the median of the retries is late: %s ms" % late)
check(late[-1] < 2000, "a retry is very late: %s ms" % late)
instance.stop()
check_logs(backend, instance)
finish()
