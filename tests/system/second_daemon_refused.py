#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A second daemon on the same store is refused and told who holds it; the first one's events are left alone.

(In the original it unlocks them, and both process them.)
"""
import os
import subprocess

from harness import BUILD, DIRECTORY, PATIENCE, Gate, Instance, append, check, equal, file_source, finish, python_stage, \
    times_called, wait_for

EVENTS = 30
gate = Gate()
script, calls = python_stage("stage", gate.body)
lines = os.path.join(DIRECTORY, "lines")
append(lines, *[{"id": str(n)} for n in range(EVENTS)])
first = Instance()
source = file_source("file", lines, {"name": "stage", "exec": [script], "concurrency": 3})
first.configure(source)
first.start()
wait_for(lambda: len(calls()) == 3, "three events to be processed")
locks = first.query("SELECT seq, token FROM progress ORDER BY seq")
equal(len([token for _, token in locks if token]), EVENTS, "locked events")
pids = first.workers()


def refused(config, told):
    """Starts a second daemon: it must end at once, with a message that names the holder."""
    second = subprocess.run([os.path.join(BUILD, "eventpiped"), "-c", config], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE)
    equal(second.returncode, 1, "exit status of the second daemon; it said: " + second.stdout)
    last = second.stdout.strip().splitlines()[-1]
    for word in told:
        check(word in last, "%r is not said: %s" % (word, second.stdout))


# With the same configuration; as another instance; under another name of the same file.
refused(first.config, (str(first.daemon.pid), first.name))
other = Instance("-other", store=first.storage)
other.configure(source)
refused(other.config, (str(first.daemon.pid), first.name, first.database))
link = os.path.join(DIRECTORY, "link.db")
os.symlink(first.database, link)
linked = Instance("-linked", store="sqlite:" + link)
linked.configure(source)
refused(linked.config, (str(first.daemon.pid), first.name))

equal(first.query("SELECT seq, token FROM progress ORDER BY seq"), locks, "locks of the first")
equal(first.query("SELECT start_number FROM settings"), [(1,)], "starts of the store")
equal(first.workers(), pids, "workers of the first")
equal(len(calls()), 3, "calls meanwhile")
equal(first.run("status").returncode, 0, "exit status of eventpipe status of the first")

# The first one's events finish, once each.
gate.open()
wait_for(lambda: first.query("SELECT completed, live FROM source") == [(EVENTS, 0)], "all events to be done")
equal(times_called(calls), {str(n): 1 for n in range(EVENTS)}, "calls of each event")
first.stop()

# No daemon holds it now: the other one may start.
append(lines, {"id": "last"})
other.start()
wait_for(lambda: first.query("SELECT completed FROM source") == [(EVENTS + 1,)], "the other's event to be done")
other.stop()
equal(times_called(calls)["last"], 1, "calls of the other's event")
finish()
