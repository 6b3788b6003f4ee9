#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""All earthquakes through a `file` source. The file grows in pieces that end anywhere in a line, and is rotated twice:
between two kills, and while the daemon is dead. See quakes.py.
"""
import os

import harness
import quakes


class FileFeed:
    def __init__(self, lines, rng):
        self.ends = [0]  # where each line ends, in bytes
        for line in lines:
            self.ends.append(self.ends[-1] + len(line.encode()) + 1)
        self.bytes = "".join(line + "\n" for line in lines).encode()
        self.rng = rng
        self.written = self.rotations = self.count = 0
        self.path = os.path.join(harness.DIRECTORY, "quakes.jsonl")
        self.source = "- id: quakes\n  type: file\n  path: %s\n  uid: /id\n  address: /properties/net\n" % self.path
        self.source += "  event_type: /properties/type"
        self.append(0)

    def append(self, end):
        with open(self.path, "ab") as file:
            file.write(self.bytes[self.written:max(end, self.written)])
        self.written = max(end, self.written)

    def show(self, count, piece):
        """The first `count` events stand in the file, and perhaps a part of the next."""
        if piece == 4:
            self.rotate()
        self.count = max(count, self.count)
        end = self.ends[self.count]
        part = self.rng.randrange(self.ends[self.count + 1] - end) if self.count + 1 < len(self.ends) else 0
        self.append(end + part)

    def rotate(self):
        """As logrotate does it: a whole last line, away with the file, and a new one."""
        self.count = next(count for count, end in enumerate(self.ends) if end >= self.written)
        self.append(self.ends[self.count])
        self.rotations += 1
        os.rename(self.path, "%s.%d" % (self.path, 3 - self.rotations))
        self.append(0)

    def while_down(self):
        self.rotate()
        self.show(self.count + 20, None)


quakes.run(FileFeed)
