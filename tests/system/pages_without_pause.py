#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""No pause per page: 60 pages of one event pass in less than 60 s, from every kind of source. (The original waits 1 s.)"""
import os
import time

from harness import DIRECTORY, Helper, Instance, append, check, equal, feed_source, file_source, finish, python_stage, \
    wait_for

PAGES = 60
BOUND = 30.0  # seconds, for what takes less than one

lines = os.path.join(DIRECTORY, "lines")
append(lines, *[{"id": "line-%d" % n} for n in range(PAGES)])
feed_lines = os.path.join(DIRECTORY, "feed")
append(feed_lines, *[{"n": n} for n in range(PAGES)])
feed = Helper("feed_server.py", feed_lines)
script, _ = python_stage("stage")
stage = {"name": "stage", "exec": [script]}

instance = Instance()
instance.configure("\n".join((
    feed_source("feed", feed, stage, page_size=1),
    file_source("file", lines, stage, page_size=1),
    '- {id: made, type: generate, count: %d, page_size: 1, stages: [{name: stage, exec: [%s]}]}' % (PAGES, script))))
begin = time.monotonic()
instance.start()
wait_for(lambda: instance.query("SELECT count(*) FROM source WHERE completed = ?", PAGES) == [(3,)],
         lambda: "three sources to be done: %s" % instance.query("SELECT name, fetched, completed FROM source"))
took = time.monotonic() - begin
check(took < BOUND, "%d pages of one event took %.1f s" % (PAGES, took))

# They were pages of one event indeed, and one request each: the last one waits for an event to come.
wait_for(lambda: feed.ask("/stats")["held"] == 1, "the request after the last event")
equal(feed.ask("/stats")["polls"], PAGES + 1, "requests")
instance.stop()
finish()
