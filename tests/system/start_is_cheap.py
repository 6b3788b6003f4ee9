#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A start neither vacuums nor checks the store, and reads a small part of it only. (The original does both, each time.)"""
import os
import sqlite3

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, times_called, wait_for

EVENTS, BYTES, JUNK = 3000, 10000, 1000
READ_AT_MOST = 10 << 20  # by all processes, programs and libraries included; the store is more than three times as large

script, calls = python_stage("stage")
later_script, _ = python_stage("later", '    answer = {"processed": False, "retry_after": "10h"}')
lines = os.path.join(DIRECTORY, "lines")
append(lines)
instance = Instance()
instance.configure("- {id: many, type: generate, count: %d, size: %d, page_size: 500, stages: [{name: later, exec: [%s]}]}\n" %
                   (EVENTS, BYTES, later_script) + file_source("file", lines, {"name": "stage", "exec": [script]}))


def pages():
    return instance.query("PRAGMA page_count")[0][0], instance.query("PRAGMA freelist_count")[0][0]


def parent(pid):
    try:
        with open("/proc/%d/stat" % pid) as file:
            return int(file.read().rsplit(")", 1)[1].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def read_bytes(name):
    """What the daemon and the children of its own have read so far; the stages' programs are not meant."""
    everyone = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    total = 0
    for pid in [instance.daemon.pid] + [pid for pid in everyone if parent(pid) == instance.daemon.pid]:
        with open("/proc/%d/io" % pid) as file:
            total += next(int(line.split()[1]) for line in file if line.startswith(name))
    return total


def start_and_work(uid):
    """A start and one event, and what that cost."""
    append(lines, {"id": uid})
    instance.start()
    wait_for(lambda: times_called(calls)[uid] == 1, "the event that came since")
    instance.wait_source(lambda s: s["live"] == EVENTS, "the store to be counted", "many")
    cost = read_bytes("rchar")
    check(cost < READ_AT_MOST, "a start read %d bytes" % cost)


instance.start()
wait_for(lambda: instance.query("SELECT delayed FROM source WHERE name = 'many'") == [(EVENTS,)], "a large store")
instance.stop()

# Many free pages: they stay.
with sqlite3.connect(instance.database) as store:
    store.execute("CREATE TABLE gone(data BLOB)")
    store.executemany("INSERT INTO gone VALUES(zeroblob(?))", [(BYTES,)] * JUNK)
    store.execute("DROP TABLE gone")
store.close()
before = pages()
check(before[1] >= JUNK * BYTES // 4096 - 10, "free pages: %d of %d" % (before[1], before[0]))
for start in range(2):
    start_and_work("free-%d" % start)
    instance.stop()
    after = pages()
    check(after[0] == before[0] and after[1] >= before[1] - 10, "pages and free pages: %s, and then %s" % (before, after))

# A page is damaged, far from what a start needs: only a check of the store finds it.
with open(instance.database, "r+b") as file:
    content = file.read()
    size = int.from_bytes(content[16:18], "big")
    data = instance.query("SELECT data FROM event WHERE source = 1 LIMIT 1 OFFSET ?", EVENTS // 2)[0][0].encode()
    piece = data[BYTES // 2:BYTES // 2 + 200]
    place = content.index(piece, len(content) // 3) // size * size
    file.seek(place)
    file.write(b"\xff" * size)
with sqlite3.connect(instance.database) as store:
    try:
        found = store.execute("PRAGMA integrity_check").fetchall()
    except sqlite3.DatabaseError as error:
        found = [(str(error),)]
store.close()
check(found != [("ok",)], "the store is damaged")
start_and_work("damaged")
instance.stop()
equal(instance.run("check").returncode, 1, "exit status of eventpipe check, which does look")
finish()
