# SPDX-License-Identifier: MIT
"""Another program locks the store for a while: nothing is lost or acknowledged meanwhile, status says why, and work
goes on by itself. Likewise when the daemon starts while the store is locked. LOCKED_SECONDS (6): how long each of the
two locks is held."""
import os
import sqlite3
import time

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, wait_for

SECONDS = float(os.environ.get("LOCKED_SECONDS", "6"))


def failing(instance):
    status = instance.status()
    return status if status and status["store"]["error"] else None


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("work")
    instance.configure(file_source("lines", lines, {"name": "work", "exec": [stage]},
                                   {"name": "again", "exec": [stage]}))
    append(lines, *({"id": "e-%d" % i} for i in range(200)))
    instance.start()
    instance.wait_empty(200)
    pids = sorted(instance.workers() + instance.producers())

    thief = sqlite3.connect(instance.database, isolation_level=None, timeout=30)
    for number, begin in enumerate(("BEGIN IMMEDIATE", "BEGIN EXCLUSIVE")):
        before = 200 + number * 100
        thief.execute(begin)
        since = time.monotonic()
        append(lines, *({"id": "%s-%d" % (begin[6:], i)} for i in range(100)))
        status = wait_for(lambda: failing(instance), "status to say that the store fails")
        check("locked by another process" in status["store"]["error"], "the status says why: %s" % status["store"])
        equal(status["health"], "degraded", "health while the store is locked")
        check(any("locked by another process" in reason and "store" in reason for reason in status["reasons"]),
              "among the reasons: %s" % status["reasons"])
        equal(status["sources"][0]["fetched"], before, "nothing counts as fetched before it is stored")
        text = instance.run("status")
        equal(text.returncode, 1, "exit status of status")
        check("locked by another process" in text.stdout, "the text says it, too: " + text.stdout)
        looks = 0
        while looks == 0 or time.monotonic() - since < SECONDS:
            equal((instance.source()["fetched"], instance.source()["completed"]), (before, before), "fetched and completed")
            equal(len(calls()), 2 * before, "calls of the stages while nothing can be stored")
            equal(sorted(instance.workers() + instance.producers()), pids, "no process ends over it")
            looks += 1
            time.sleep(0.05)  # between two looks
        wait_for(lambda: failing(instance), "status to say it to the end")
        thief.execute("ROLLBACK")
        instance.wait_empty(before + 100)
        wait_for(lambda: instance.status()["health"] == "ok", "health ok again")
    thief.close()
    equal(sorted(instance.workers() + instance.producers()), pids, "no process crashed over it")
    instance.stop()

    # Locked at the start.
    thief = sqlite3.connect(instance.database, isolation_level=None, timeout=30)
    thief.execute("BEGIN EXCLUSIVE")
    append(lines, {"id": "late"})
    instance.start(wait=False)
    status = wait_for(lambda: failing(instance), "status to say that the store fails at the start")
    equal(status["phase"], "starting", "phase")
    thief.execute("ROLLBACK")
    thief.close()
    instance.wait_empty(401)
    equal(len({call[1] for call in calls()}), 401, "events seen by the stages")
    check("store-unavailable" in instance.log_text() and "store-recovered" in instance.log_text(), "the log tells both")
    # A worker whose answer waited for the lock may have been asked once only: no process crashed, so nothing ran twice.
    equal(len(calls()), 2 * 401, "calls in both stages")
    instance.stop()
    finish()


main()
