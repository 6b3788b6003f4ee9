# SPDX-License-Identifier: MIT
"""The events of a run: lines of the user's sample, repeated, or made-up ones, appended to the file that stands for a source.
Each line has its own offset in the file, and the uid of a file source's event names the offset. So each event can be traced
back to its line.
"""
import array
import bisect
import json
import os
import re

SAMPLE_BYTES_MAX = 64 << 20
PAYLOAD_BYTES = 220  # of a made-up event, where the source says nothing
UID = re.compile(r"(\d+)-\d+-(\d+)-")  # of a file source: inode, generation, offset
WINDOW_MIN, WINDOW_MAX = 64, 20000


def refuse_constant(name: str) -> None:
    raise ValueError("%s is no JSON" % name)


def read_sample(path: str) -> list[bytes]:
    """The lines of the file that are not blank; ValueError or OSError says why there are none."""
    size = os.path.getsize(path)
    if not os.path.isfile(path) or not 0 < size <= SAMPLE_BYTES_MAX:
        raise ValueError("expected a file of 1 byte to 64 MiB with one JSON value a line")
    lines = []
    with open(path, "rb") as file:
        for number, line in enumerate(file.read().split(b"\n"), 1):
            line = line.strip(b" \t\r")
            if not line:
                continue
            try:
                json.loads(line.decode(), parse_constant=refuse_constant)
            except (ValueError, RecursionError):
                raise ValueError("line %d is not JSON" % number) from None
            lines.append(line)
    if not lines:
        raise ValueError("expected one JSON value a line, found none")
    return lines


class Feed:
    """The file of one source."""

    def __init__(self, path: str, sample: list[bytes], payload_bytes: int = PAYLOAD_BYTES):
        self.path, self.sample, self.payload_bytes = path, sample, payload_bytes
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.inode = os.fstat(self.file).st_ino
        self.offsets = array.array("Q")  # of each line
        self.size = 0

    def line(self, number: int) -> bytes:
        """From number 0."""
        if self.sample:
            return self.sample[number % len(self.sample)]
        text = '{"n":%d,"pad":"' % (number + 1)
        return (text + "x" * (self.payload_bytes - len(text) - 2) + '"}').encode()

    def write(self, events: int) -> None:
        lines = bytearray()
        for number in range(len(self.offsets), len(self.offsets) + events):
            self.offsets.append(self.size + len(lines))
            lines += self.line(number) + b"\n"
        written = 0
        while written < len(lines):
            written += os.write(self.file, lines[written:])
        self.size += len(lines)

    def number_of(self, uid: str) -> int | None:
        """The number, from 0, of the line that a uid names."""
        match = UID.match(uid)
        if not match or int(match[1]) != self.inode:
            return None
        offset = int(match[2])
        number = bisect.bisect_left(self.offsets, offset)
        return number if number < len(self.offsets) and self.offsets[number] == offset else None

    def close(self) -> None:
        os.close(self.file)


def window(before: int, ended_since: int) -> int:
    """How many events may be on their way, after a look at how many ended since the last one: slow stages are not flooded."""
    size = max(before, WINDOW_MIN)
    return min(size * 2 if ended_since * 2 > size else size, WINDOW_MAX)
