#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""No fetch error ends a source: each kind is shown with the time of the next try, and then it goes on from its cursor.

(In the original any error but a timeout does.)
"""
import os

from harness import DIRECTORY, Helper, Instance, append, check, equal, feed_source, finish, python_stage, times_called, \
    wait_for

# Mode of the feed, its value, what the error must name.
ERRORS = [("fail", "", "500"), ("unavailable", "", "503"), ("deny", "", "401"), ("forbid", "", "403"),
          ("missing", "", "404"), ("limit", "3", "429"), ("notjson", "", "JSON"), ("empty", "", "JSON"),
          ("cutjson", "", "cut off"), ("cutoff", "", ""), ("close", "", "")]
LONGEST_MS = 500  # retry.max, and a quarter of it as jitter

feed = Helper("feed_server.py")
script, calls = python_stage("stage")
instance = Instance()
instance.configure(feed_source("feed", feed, {"name": "stage", "exec": [script]}, retry={"min": "100ms", "max": "400ms"}))
instance.start()
pid = instance.producers()[0]
shown = 0


def add():
    global shown
    shown += 1
    feed.ask("/add", '{"some":"thing"}\n')
    return shown


def done():
    return instance.query("SELECT fetched, completed, duplicates FROM source")[0] == (shown, shown, 0)


def wait_failing(message):
    """Until the status shows the error and when it is tried again, and that is the only thing amiss."""
    seen = {}

    def look():
        seen["status"] = status = instance.status()
        source = status["sources"][0]
        return status if source["error"] and message in source["error"] and source["next_try_in_ms"] > 0 else None
    status = wait_for(look, lambda: "an error with %r and the next try; status: %s" % (message, seen["status"]))
    source = status["sources"][0]
    equal((status["health"], source["state"]), ("degraded", "backoff"), "health, state with " + message)
    check(len(status["reasons"]) == 1 and source["error"] in status["reasons"][0] and "next try" in status["reasons"][0],
          "reasons: %s" % status["reasons"])
    return source


def wait_well():
    wait_for(done, lambda: "%d events to be done: %s" % (shown, instance.query("SELECT * FROM source")))
    instance.wait_source(lambda s: s["state"] == "fetching" and not s["error"], "the error to be gone")
    equal(instance.status()["health"], "ok", "health")


add()
wait_well()
for mode, value, message in ERRORS:
    feed.ask("/control?mode=%s&value=%s&count=0" % (mode, value))
    add()  # comes with the poll that is held now; the next one fails
    wait_for(done, "the event to be done")
    add()
    source = wait_failing(message)
    if mode == "limit":
        check(LONGEST_MS < source["next_try_in_ms"] <= 3000, "Retry-After is heeded: %d ms" % source["next_try_in_ms"])
        check("401" not in source["error"], source["error"])
    else:
        check(source["next_try_in_ms"] <= LONGEST_MS, "%s: next try in %d ms" % (mode, source["next_try_in_ms"]))
    if mode == "fail":
        failures = source["failures"]
        instance.wait_source(lambda s: s["failures"] >= failures + 3, "more tries")
    feed.ask("/control?mode=normal")
    wait_well()
    check("since=%d&" % shown in feed.ask("/stats")["path"], "it asks from its cursor on: " + feed.ask("/stats")["path"])

# No process listens, and later one does.
port = feed.port
feed.close()
wait_failing("")
lines = os.path.join(DIRECTORY, "lines")
append(lines, *[{"n": n} for n in range(shown + 5)])
feed = Helper("feed_server.py", "--port", str(port), lines)
shown += 5
wait_well()

equal(times_called(calls), {str(n): 1 for n in range(1, shown + 1)}, "calls of each event")
equal(instance.producers(), [pid], "it was the same producer all the time")
instance.stop()
finish()
