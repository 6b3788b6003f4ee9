#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""All earthquakes through an `http` source that long-polls feed_server.py in pages of 100. See quakes.py."""
import os
import urllib.request

import harness
import quakes


class HttpFeed:
    def __init__(self, lines, _rng):
        path = os.path.join(harness.DIRECTORY, "feed.jsonl")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)
        self.server = harness.Helper("feed_server.py", "--page", "100", "--shown", "0", path)
        self.count = 0
        self.source = "- id: quakes\n  type: http\n  page_size: 100\n  long_poll: 20s\n"
        self.source += "  url: %s?after={cursor}&limit={limit}&timeout={timeout}\n" % self.server.url("/object")
        self.source += "  events: /data/events\n  cursor: {path: /meta/next}\n  retry: {min: 100ms, max: 500ms}\n"
        self.source += "  uid: /id\n  address: /properties/net\n  event_type: /properties/type"

    def show(self, count, _piece):
        if count > self.count:
            urllib.request.urlopen(self.server.url("/show?count=%d" % (count - self.count)), timeout=30).close()
            self.count = count

    def while_down(self):
        self.show(self.count + 20, None)


quakes.run(HttpFeed)
