# SPDX-License-Identifier: MIT
"""The recorder: a stage after the last one. It writes down the uid of each event, then answers processed.

So an event that it has recorded has come through all stages, and an event that is completed was recorded. The daemon
runs it as an exec stage: python3 recorder.py FILE. read() is for the program that counts afterwards.
"""
import json
import os
import sys
from collections.abc import Iterator

STAGE_NAME = "eventpipe-chaos-recorder"
ANSWER = b'{"processed":true}\n'


def command(path: str) -> list[str]:
    """The exec stage's program and arguments."""
    return [sys.executable, "-I", "-S", "-B", os.path.abspath(__file__), path]


def record(path: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for line in sys.stdin.buffer:
        entry = json.loads(line)["event"]["uid"].encode() + b"\n"
        # One write, appended as a whole: a kill leaves no half line.
        if os.write(file, entry) != len(entry):
            sys.exit("the recorder cannot write all of an entry to " + path)
        sys.stdout.buffer.write(ANSWER)
        sys.stdout.buffer.flush()


def read(path: str) -> Iterator[str]:
    """The uid of each call, in their order."""
    try:
        with open(path) as file:
            for line in file:
                yield line.rstrip("\n")
    except FileNotFoundError:
        return


if __name__ == "__main__":
    record(sys.argv[1])
