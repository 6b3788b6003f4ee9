#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What cannot be decoded is dead, reason corrupt, by itself: all else passes, at every start.

(In the original one row that cannot be decoded stops its source at every start.)
"""
import os
import sqlite3

from harness import DIRECTORY, Gate, Helper, Instance, append, check, equal, feed_source, file_source, finish, \
    python_stage, times_called, wait_for

CORRUPT = ["this is no JSON", '{"id":"cut', '{"id":{"an":"object"}}', '{"id":["a","list"]}',
           "\x00\xff\x7b", '{"id":"two"}{"id":"values"}']
gate = Gate()
gate.open()
script, calls = python_stage("stage", gate.body)
stage = {"name": "stage", "exec": [script]}
lines = os.path.join(DIRECTORY, "lines")
feed = Helper("feed_server.py")
instance = Instance()
instance.configure("\n".join((
    file_source("file", lines, stage, format="json"),
    feed_source("feed", feed, stage, uid="/event/id"))))  # the uid stands in the event here, and may be anything

good, bad = 0, 0
for start in range(3):
    # A few good ones between bad ones, some written while it runs and some while it does not.
    for text in CORRUPT:
        append(lines, {"id": "good-%d" % good}, text)
        feed.ask("/add", '{"id":"feed-%d"}\n{"id":{"n":%d}}\n' % (good, good))
        good += 1
    bad += len(CORRUPT)
    instance.start()
    wait_for(lambda: instance.query("SELECT completed FROM source ORDER BY name") == [(good,), (good,)],
             lambda: "%d good ones of each source to be done: %s" % (good, instance.query("SELECT * FROM source")))
    instance.wait_source(lambda s: s["state"] == "fetching" and not s["error"], "the file to be followed on", "file")
    instance.wait_source(lambda s: s["state"] == "fetching" and not s["error"], "the feed to be asked on", "feed")
    if start < 2:
        instance.stop()
dead = instance.lines("queue", "--state", "dead", "--source", "file")
equal(len(dead), bad, "dead ones of the file")
check(all(event["reason"] == "corrupt" and event["error"] for event in dead), "reasons: %s" % dead)
dead = instance.lines("queue", "--state", "dead", "--source", "feed")
equal([event["reason"] for event in dead], ["corrupt"] * good, "dead ones of the feed")
equal(set(times_called(calls).values()), {1}, "calls of each event")
equal(len(times_called(calls)), 2 * good, "events called")
instance.stop()

# Rows of the store that something else has spoilt.
gate.close()
append(lines, *[{"id": "row-%d" % n} for n in range(6)])
instance.start()
wait_for(lambda: instance.query("SELECT live - dead FROM source WHERE name = 'file'") == [(6,)], "six more events")
instance.kill()
with sqlite3.connect(instance.database) as store:
    numbers = [row[0] for row in store.execute("SELECT seq FROM event WHERE uid LIKE 'row-%' ORDER BY seq")]
    store.execute("UPDATE progress SET context = '{\"cut' WHERE seq = ?", (numbers[1],))
    store.execute("UPDATE event SET data = x'00ff7b' WHERE seq = ?", (numbers[3],))
store.close()
gate.open()
for start in range(2):
    instance.start()
    wait_for(lambda: instance.query("SELECT live - dead FROM source WHERE name = 'file'") == [(0,)],
             lambda: "the others to be done: %s" % instance.query("SELECT * FROM source"))
    left = [event for event in instance.lines("queue", "--source", "file") if event["uid"].startswith("row-")]
    equal([(event["uid"], event["state"], event["reason"], event["crashes"]) for event in left],
          [("row-1", "dead", "corrupt", 0), ("row-3", "dead", "corrupt", 0)], "left")
    check("context" in left[0]["error"] and "data" in left[1]["error"], "their errors: %s" % left)
    append(lines, {"id": "fresh-%d" % start})
    wait_for(lambda: times_called(calls)["fresh-%d" % start] == 1, "a fresh event")
    instance.stop()
finish()
