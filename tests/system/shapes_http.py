#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The http source reads the usual shapes of feeds by configuration alone: CouchDB's _changes, Telegram's getUpdates, a
bare array whose last id is the cursor, an object with events and cursor in named members. What appears while a poll is
held comes at once, and each next poll, also after a restart, asks for what is behind the last event.
"""
import json
import os
import time
import urllib.parse
import urllib.request

import harness
from harness import check, equal, wait_for

LONG_POLL = 40  # seconds a poll is held; "at once" is far less
AT_ONCE = 10
FIRST, THEN, LATER = 130, 5, 3  # events: at first (more than a page), while a poll is held, after a restart

# id, URL behind the feed's address, configuration, what is asked for behind event N, an event's payload, its uid
SHAPES = [
    ("couchdb", "/couchdb/_changes?feed=longpoll&include_docs=true&since={cursor}&limit={limit}&timeout={timeout_ms}",
     'events: /results\n  cursor: {path: /last_seq, initial: "0"}\n  uid: /seq',
     lambda n: ("since", str(n)),
     lambda n, line: {"seq": n, "id": "doc-%d" % n, "changes": [{"rev": "1-%x" % n}], "doc": line}, str),
    ("couchdb-cluster", "/couchdb/_changes?feed=longpoll&form=string&since={cursor}&limit={limit}&timeout={timeout_ms}",
     'events: /results\n  cursor: {path: /last_seq, initial: "0"}\n  uid: /id',
     lambda n: ("since", "%d-g1AAA/+==" % n),
     lambda n, line: {"seq": "%d-g1AAA/+==" % n, "id": "doc-%d" % n, "changes": [{"rev": "1-%x" % n}], "doc": line},
     lambda n: "doc-%d" % n),
    ("telegram", "/telegram/getUpdates?offset={cursor}&limit={limit}&timeout={timeout}",
     'events: /result\n  cursor: {last_event_path: /update_id, increment: 1, initial: "0"}\n  uid: /update_id',
     lambda n: ("offset", str(n + 1)),
     lambda n, line: {"update_id": n, "message": line}, str),
    ("array", "/array?since={cursor}&limit={limit}&timeout={timeout}",
     'events: ""\n  cursor: {last_event_path: /id, initial: "0"}\n  uid: /id',
     lambda n: ("since", str(n)),
     lambda n, line: {"id": n, "event": line}, str),
    ("object", "/object?after={cursor}&limit={limit}&timeout={timeout}",
     'events: /data/events\n  cursor: {path: /meta/next}\n  uid: /name',
     lambda n: ("after", "c:%d" % n),
     lambda n, line: line, lambda n: "line-%d" % n),
]


def get(helper, path):
    with urllib.request.urlopen(helper.url(path), timeout=30) as answer:
        return json.load(answer)


class Shape:
    def __init__(self, feed, id, url, configuration, asked, payload, uid):
        self.id, self.asked, self.payload, self.uid = id, asked, payload, uid
        self.server = harness.Helper("feed_server.py", "--page", "100", "--shown", str(FIRST), feed)
        self.seen_path = os.path.join(harness.DIRECTORY, id + ".seen")
        stage = harness.script(id + ".py", "import json, sys\n"
                               "for line in sys.stdin:\n"
                               "    with open(%r, 'a') as seen:\n"
                               "        print(json.dumps(json.loads(line)['event']), file=seen)\n"
                               "    print('{\"processed\":true}', flush=True)\n" % self.seen_path)
        self.source = "- id: %s\n  type: http\n  page_size: 100\n  long_poll: %ds\n  url: \"%s\"\n  %s\n" % (
            id, LONG_POLL, self.server.url(url), configuration)
        self.source += "  stages:\n    - {name: note, exec: [python3, %s]}\n" % stage

    def seen(self):
        try:
            with open(self.seen_path) as file:
                return [json.loads(line) for line in file if line.endswith("\n")]
        except FileNotFoundError:
            return []

    def wait_held(self, count):
        """Waits until a poll is held that asks for what is behind event `count`."""
        name, value = self.asked(count)

        def look():
            stats = get(self.server, "/stats")
            query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(stats["path"]).query, keep_blank_values=True))
            return stats["held"] and query.get(name) == value
        wait_for(look, lambda: "%s: a held poll with %s=%s; last: %s"
                 % (self.id, name, value, get(self.server, "/stats")))

    def verify(self, lines):
        """All events so far, each once, in the order of their arrival."""
        found = self.seen()
        equal([event["uid"] for event in found], [self.uid(n + 1) for n in range(len(lines))], self.id + ": uids")
        equal([event["payload"] for event in found], [self.payload(n + 1, line) for n, line in enumerate(lines)],
              self.id + ": payloads")


def show(shapes, count, more):
    """More events appear while every feed holds a poll: they must come at once."""
    for shape in shapes:
        shape.wait_held(count)
    begin = time.monotonic()
    for shape in shapes:
        get(shape.server, "/show?count=%d" % more)
    for shape in shapes:
        wait_for(lambda: len(shape.seen()) >= count + more, lambda: "%s: %d events, %d seen"
                 % (shape.id, count + more, len(shape.seen())))
    seconds = time.monotonic() - begin
    check(seconds < AT_ONCE, "events that appeared during a poll came after %.1f s" % seconds)
    print("%d events at each of %d feeds came %.3f s after they appeared" % (more, len(shapes), seconds))


def main():
    lines = [{"name": "line-%d" % (n + 1), "big": 9007199254740993 + n, "text": "Kīlauea \"%d\"" % n}
             for n in range(FIRST + THEN + LATER)]
    feed = os.path.join(harness.DIRECTORY, "feed.jsonl")
    with open(feed, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
    shapes = [Shape(feed, *shape) for shape in SHAPES]
    instance = harness.Instance()
    instance.configure("".join(shape.source for shape in shapes))
    instance.start()
    for shape in shapes:
        instance.wait_empty(FIRST, shape.id)
    show(shapes, FIRST, THEN)
    for shape in shapes:
        instance.wait_empty(FIRST + THEN, shape.id)
        shape.verify(lines[:FIRST + THEN])
    begin = time.monotonic()
    instance.stop()
    check(time.monotonic() - begin < AT_ONCE, "a held poll delayed the stop")
    instance.start()
    show(shapes, FIRST + THEN, LATER)
    for shape in shapes:
        source = instance.wait_empty(len(lines), shape.id)
        equal([source[k] for k in ("fetched", "duplicates", "completed", "dead", "error")],
              [len(lines), 0, len(lines), 0, None], shape.id + ": fetched, duplicates, completed, dead, error")
        shape.verify(lines)
    wait_for(lambda: instance.status()["health"] == "ok", lambda: "health ok: %s" % instance.status()["reasons"])
    instance.stop()
    harness.finish()


main()
