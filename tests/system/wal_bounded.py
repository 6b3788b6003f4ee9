# SPDX-License-Identifier: MIT
"""The store's log stays below 64 MB at full load, though a reader holds an old state of the store now and then, and
nothing is lost by that: each event came out, and `check` finds nothing. LOG_SECONDS (12) says how long; the seed of the
reader's pauses is LOG_SEED."""
import contextlib
import os
import random
import sqlite3
import threading
import time

from harness import PATIENCE, PLUGINS, Instance, check, equal, finish, wait_for

SECONDS = float(os.environ.get("LOG_SECONDS", "12"))
SEED = int(os.environ.get("LOG_SEED", "4711"))
MEGABYTE = 1 << 20
BOUND = 64 * MEGABYTE
SLOW = 33 * MEGABYTE  # here writers are slowed down


class Watch(threading.Thread):
    """Looks at the log's size all the time."""

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
        count = reader.execute("SELECT sum(finished) FROM source").fetchone()
        yield
        equal(reader.execute("SELECT sum(finished) FROM source").fetchone(), count, "a state that is held")


def main():
    dice = random.Random(SEED)
    instance = Instance()
    plugin = os.path.join(PLUGINS, "plugin_count.so")
    stages = ", ".join('{name: stage-%d, plugin: %s, options: {member: action}}' % (n, plugin) for n in range(3))
    instance.configure("- {id: made, type: generate, count: 0, size: 400, page: 200, stages: [%s]}" % stages)
    instance.start()
    log = Watch(instance.database + "-wal")
    instance.wait_source(lambda s: s["fetched"] > 1000, "events to flow")

    # One reader that holds its state until writers are slowed down, and a while beyond; then others, as they come.
    with snapshot(instance):
        end = time.monotonic() + PATIENCE / 2
        while log.now < SLOW and time.monotonic() < end:
            time.sleep(0.02)  # between two looks
        slowed = log.now >= SLOW
        time.sleep(min(2, SECONDS / 4))  # how long the reader takes
        finished = instance.source()["finished"]
    snapshots = 1
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        with snapshot(instance):
            time.sleep(dice.random() ** 4 * 3)  # how long the reader takes
        snapshots += 1
        time.sleep(dice.random() * 0.5)  # how long nobody reads
    wait_for(lambda: log.now < SLOW / 2, lambda: "the log to begin anew; it has %d bytes" % log.now)
    instance.wait_source(lambda s: s["finished"] > finished, "work to go on")
    log.over = True
    log.join()
    check(log.most < BOUND, "the log grew to %d bytes" % log.most)
    instance.stop()
    done = instance.run("check")
    equal((done.returncode, done.stdout), (0, ""), "check: " + done.stderr)
    (fetched, over, live), = instance.query("SELECT fetched, finished, live FROM source")
    equal(fetched, over + live, "events that came in, and those that went out or are left")
    print("%d events, %d snapshots, the log had %.1f MB at most%s" %
          (over, snapshots, log.most / MEGABYTE, "" if slowed else " (the machine was too slow to reach the brake)"))
    finish()


main()
