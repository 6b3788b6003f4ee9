# SPDX-License-Identifier: MIT
"""The backend is unreachable, refuses the login, answers errors and malformed pages: the producer stays and tries again,
status shows the error and the time of the next try, retries and the backlog go on meanwhile, and all is well when
it is back."""
import json
import os
import urllib.request

from harness import DIRECTORY, Helper, Instance, check, equal, finish, python_stage, wait_for

BODY = '''
    answer = {"processed": event["payload"]["event"]["n"] != 0 or attempt > 3, "retry_after": "100ms"}
'''
# mode of the feed server, value, texts that must stand in the status
MODES = (
    ("deny", None, ("401", "refuses the login")),
    ("fail", None, ("500",)),
    ("notjson", None, ("JSON",)),
    ("toobig", 200000, ("100000",)),
    ("limit", 1, ("429",)),
)


def control(feed, mode, value):
    url = feed.url("/control?count=0&mode=" + mode + ("" if value is None else "&value=%d" % value))
    urllib.request.urlopen(url).read()


def add(feed, *numbers):
    body = "".join('{"n":%d}\n' % number for number in numbers).encode()
    urllib.request.urlopen(feed.url("/add"), body).read()


def main():
    empty = os.path.join(DIRECTORY, "feed.jsonl")
    open(empty, "w").close()
    feed = Helper("feed_server.py", empty)
    stage, calls = python_stage("count", BODY)
    source = {"id": "feed", "type": "http", "url": feed.url("/array?since={cursor}&limit={limit}&timeout={timeout}"),
              "cursor": {"last_event_path": "/id", "initial": "0"}, "uid": "/id", "long_poll": "1s", "max_bytes": 100000,
              "retry": {"min": "200ms", "max": "400ms"}, "stages": [{"name": "count", "exec": [stage]}]}
    instance = Instance()
    instance.configure("- " + json.dumps(source))
    add(feed, 1, 2, 3)
    instance.start()
    instance.wait_source(lambda s: s["completed"] == 3, "the first three events")
    producer = instance.source()["producer"]["pid"]

    def called(number, attempt=1):
        return ["call", str(number), attempt] in [call[:3] for call in calls()]

    fetched = 3
    for mode, value, texts in MODES:
        fetched += 1
        add(feed, 0)  # not processed until its fourth attempt: a retry that must go on while the backend fails
        wait_for(lambda: called(fetched), "the event before mode " + mode)
        control(feed, mode, value)
        retried = fetched
        fetched += 1
        add(feed, fetched)  # a poll that waits is answered, and the next one fails
        status = instance.wait_source(lambda s: s["state"] == "backoff" and s["error"] and s["failures"] > 1,
                                      "an error shown, and a second failure, in mode " + mode)
        for word in texts:
            check(word in status["error"], "error in mode %s: expected %r in %r" % (mode, word, status["error"]))
        wait_for(lambda: called(retried, 4), "the retry to go on while the backend is in mode " + mode)
        status = wait_for(lambda: (lambda s: s if s and s["sources"][0]["next_try_in_ms"] > 0
                                   else None)(instance.status()),
                          "the time of the next try in mode " + mode)
        equal(status["health"], "degraded", "health in mode " + mode)
        check(any(reason.startswith("feed: ") and "next try in" in reason for reason in status["reasons"]),
              "the reason in mode %s: %s" % (mode, status["reasons"]))
        control(feed, "normal", None)
        wait_for(lambda: called(fetched), "the event that came in mode " + mode)
        instance.wait_source(lambda s: not s["error"] and s["state"] == "fetching", "all well after mode " + mode)
    instance.wait_source(lambda s: s["completed"] == s["fetched"] == fetched, "all events done")

    # Unreachable, also over a restart: injected events and retries go on.
    feed.close()
    instance.wait_source(lambda s: s["state"] == "backoff" and s["error"], "the feed to be missed")
    instance.lines("inject", "feed", stdin='{"uid":"by-hand","payload":{"event":{"n":0}}}\n')
    fetched += 1
    instance.wait_source(lambda s: s["completed"] == fetched, "the injected event, with its retries")
    equal(instance.source()["producer"]["pid"], producer, "it is the same producer all the time")
    instance.stop()
    instance.start(wait=False)
    instance.wait_source(lambda s: s["state"] == "backoff" and s["error"], "the feed to be missed after a restart")
    instance.lines("inject", "feed", stdin='{"uid":"by-hand-2","payload":{"event":{"n":0}}}\n')
    instance.wait_source(lambda s: s["completed"] == fetched + 1, "the next injected event")
    check("fetch-failed" in instance.log_text(), "the log tells the failures")
    instance.stop()
    finish()


main()
