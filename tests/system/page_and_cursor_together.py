#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A page and the cursor behind it are stored together: kills in between leave nothing that a later start fails on.

(The original stores them one after the other; a stop in between makes each later start fail on a duplicate UID.)
"""
import os
import random
import signal

from harness import Gate, Helper, Instance, check, equal, feed_source, finish, python_stage, times_called, wait_for

KILLS, BURST = 20, 20

feed = Helper("feed_server.py")
feed_line = '{"some": "thing"}\n'
script, calls = python_stage("count")
instance = Instance()
instance.configure(feed_source("feed", feed, {"name": "count", "exec": [script]}, page_size=1))
instance.start()

# The producer crashes while it stores pages, again and again.
shown = 0
for kill in range(KILLS):
    pid = wait_for(lambda: next(iter(instance.producers()), None), "a producer")
    before = instance.query("SELECT fetched FROM source")[0][0]
    feed.ask("/add", feed_line * BURST)
    shown += BURST
    amid = before + random.randrange(shown - before)
    wait_for(lambda: instance.query("SELECT fetched FROM source")[0][0] >= amid, "%d events to be stored" % amid)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: instance.producers() not in ([], [pid]), "the producer to be started again")
wait_for(lambda: instance.query("SELECT completed FROM source")[0][0] == shown, "all events to be done")
equal(instance.query("SELECT fetched, completed, live, duplicates, cursor FROM source"), [(shown, shown, 0, 0, str(shown))],
      "fetched, completed, live, duplicates, cursor")
check(instance.source()["producer"]["restarts"] == KILLS, "restarts of the producer: %s" % instance.source()["producer"])
equal(times_called(calls), {str(n): 1 for n in range(1, shown + 1)}, "calls of each event")

# The daemon crashes while pages are stored, and starts again.
feed.ask("/add", feed_line * BURST * 5)
wait_for(lambda: instance.query("SELECT fetched FROM source")[0][0] > shown + BURST, "more events")
shown += BURST * 5
instance.kill()
instance.start()
wait_for(lambda: instance.query("SELECT completed FROM source")[0][0] == shown, "all events to be done after the restart")
equal(instance.query("SELECT fetched, live, duplicates FROM source"), [(shown, 0, 0)], "fetched, live, duplicates")
equal(set(times_called(calls)), {str(n) for n in range(1, shown + 1)}, "the events that were called")
instance.stop()

# Pages that are sent again while their events are in the store: duplicates, counted and skipped.
gate = Gate()
script, calls = python_stage("later", gate.body)
again = Instance("-again")
again.configure(feed_source("feed", feed, {"name": "later", "exec": [script], "concurrency": 2}, page_size=10))
again.start()
wait_for(lambda: again.query("SELECT fetched FROM source") == [(shown,)], "all events to be stored")
before = again.lines("cursor", "feed")[0]["cursor"]
equal(before, str(shown), "cursor")
again.run("cursor", "feed", "--set", str(shown - 30))
again.wait_source(lambda s: s["duplicates"] == 30 and s["cursor"] == before, "30 duplicates")
status = again.status()
equal((status["health"], status["reasons"], status["sources"][0]["state"]), ("ok", [], "fetching"), "status")
equal(again.query("SELECT fetched, live FROM source"), [(shown, shown)], "fetched, live")
gate.open()
again.wait_empty(shown)
equal(times_called(calls), {str(n): 1 for n in range(1, shown + 1)}, "calls of each event")
again.stop()
finish()
