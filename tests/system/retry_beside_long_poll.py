#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A retry does not wait for the long poll: it comes when it is due, while one and the same poll is held for a minute.

(In the original the retry waits until the poll ends.)
"""
from harness import Helper, Instance, check, equal, feed_source, finish, python_stage, wait_for

script, calls = python_stage("stage", """
    witness("at", event["uid"], time.monotonic())
    if attempt <= 3:
        answer = {"processed": False, "retry_after": "200ms"}
""")
feed = Helper("feed_server.py")
instance = Instance()
instance.configure(feed_source("feed", feed, {"name": "stage", "exec": [script]}, long_poll="60s"))
instance.start()
for number in (1, 2):
    wait_for(lambda: feed.ask("/stats")["held"] == 1, "a poll to be held")
    feed.ask("/add", '{"some":"thing"}\n')
    wait_for(lambda: feed.ask("/stats")["held"] == 1 and feed.ask("/stats")["polls"] == number + 1,
             "the next poll to be held")
    wait_for(lambda: instance.query("SELECT completed FROM source") == [(number,)], "the event to be done", seconds=30)
    stats = feed.ask("/stats")
    equal((stats["polls"], stats["held"]), (number + 1, 1), "polls, and those held: it is the same one all the time")
    times = [call[2] for call in calls() if call[0] == "at" and call[1] == str(number)]
    equal(len(times), 4, "calls")
    pauses = [later - earlier for earlier, later in zip(times, times[1:])]
    check(min(pauses) >= 0.19, "no retry comes before its time: %s" % pauses)
    check("timeout=60" in stats["path"], stats["path"])
instance.stop()
finish()
