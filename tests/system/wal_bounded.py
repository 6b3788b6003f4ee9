# SPDX-License-Identifier: MIT
"""The store's WAL stays below 64 MB at full load, though a reader holds an old state of the store now and then, and
nothing is lost by that: each event came out, and `check` finds nothing. WAL_SECONDS (12) says how long; the seed of the
reader's pauses is WAL_SEED."""
import contextlib
import os
import random
import sqlite3
import threading
import time

from harness import PATIENCE, PLUGINS, Instance, check, equal, finish, wait_for

SECONDS = float(os.environ.get("WAL_SECONDS", "12"))
SEED = int(os.environ.get("WAL_SEED", "4711"))
MEGABYTE = 1 << 20
BOUND = 64 * MEGABYTE
SLOW = 33 * MEGABYTE  # here writers are slowed down


class Watch(threading.Thread):
    """Looks at the WAL's size all the time."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.now, self.most, self.over = path, 0, 0, False
        self.start()

    def run(self):
        while not self.over:
            try:
                self.now = os.path.getsize(self.path)
            except FileNotFoundError:
                self.now = 0
            self.most = max(self.most, self.now)
            time.sleep(0.01)  # between two looks


@contextlib.contextmanager
def snapshot(instance):
    """The store as it is now, held."""
    with contextlib.closing(sqlite3.connect("file:%s?mode=ro" % instance.database, uri=True, timeout=PATIENCE)) as reader:
        reader.isolation_level = None
        reader.execute("BEGIN")
        count = reader.execute("SELECT sum(completed) FROM source").fetchone()
        yield
        equal(reader.execute("SELECT sum(completed) FROM source").fetchone(), count, "a state that is held")


def main():
    dice = random.Random(SEED)
    instance = Instance()
    plugin = os.path.join(PLUGINS, "plugin_count.so")
    stages = ", ".join('{name: stage-%d, plugin: %s, options: {member: action}}' % (n, plugin) for n in range(3))
    instance.configure("- {id: made, type: generate, count: 0, size: 400, page_size: 200, stages: [%s]}" % stages)
    instance.start()
    wal = Watch(instance.database + "-wal")
    instance.wait_source(lambda s: s["fetched"] > 1000, "events to flow")

    # One reader that holds its state until writers are slowed down, and a while beyond; then others, as they come.
    with snapshot(instance):
        end = time.monotonic() + PATIENCE / 2
        while wal.now < SLOW and time.monotonic() < end:
            time.sleep(0.02)  # between two looks
        slowed = wal.now >= SLOW
        time.sleep(min(2, SECONDS / 4))  # how long the reader takes
        completed = instance.source()["completed"]
    snapshots = 1
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        with snapshot(instance):
            time.sleep(dice.random() ** 4 * 3)  # how long the reader takes
        snapshots += 1
        time.sleep(dice.random() * 0.5)  # how long there is no reader
    wait_for(lambda: wal.now < SLOW / 2, lambda: "the WAL to begin again; it has %d bytes" % wal.now)
    instance.wait_source(lambda s: s["completed"] > completed, "work to go on")
    wal.over = True
    wal.join()
    check(wal.most < BOUND, "the WAL grew to %d bytes" % wal.most)
    instance.stop()
    done = instance.run("check")
    equal((done.returncode, done.stdout), (0, ""), "check: " + done.stderr)
    (fetched, over, live), = instance.query("SELECT fetched, completed, live FROM source")
    equal(fetched, over + live, "events that came in, and those that went out or are left")
    print("%d events, %d snapshots, the WAL had %.1f MB at most%s" %
          (over, snapshots, wal.most / MEGABYTE, "" if slowed else " (the machine was too slow to reach the slowdown)"))
    finish()


main()
