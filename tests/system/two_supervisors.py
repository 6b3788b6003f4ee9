# SPDX-License-Identifier: MIT
"""Two daemons started at the same instant: one wins, the other says who holds the store and ends; no event is done
twice."""
import os

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, wait_for

ROUNDS = 6


def main():
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("work")
    first, second = Instance("-a"), Instance("-b")
    second.storage = first.storage
    for instance in (first, second):
        instance.configure(file_source("lines", lines, {"name": "work", "exec": [stage], "concurrency": 2}))
    total = 0
    for number in range(ROUNDS):
        append(lines, *({"id": "e-%d-%d" % (number, i)} for i in range(20)))
        total += 20
        racers = (first, second) if number % 2 else (second, first)
        before = [len(racer.log_text()) for racer in racers]
        for racer in racers:
            racer.start(wait=False)
        wait_for(lambda: [racer for racer in racers if racer.daemon.poll() is not None], "one of the two to give up")
        losers = [racer for racer in racers if racer.daemon.poll() is not None]
        equal(len(losers), 1, "how many gave up")
        loser = losers[0]
        winner = first if loser is second else second
        equal(loser.daemon.returncode, 1, "exit status of the one that gave up")
        log = loser.log_text()[before[racers.index(loser)]:]
        check("held by the process pid %d (instance %s" % (winner.daemon.pid, winner.name) in log,
              "it names the winner: " + log)
        winner.wait_empty(total)
        winner.stop()
        loser.daemon = None
    uids = [call[1] for call in calls()]
    equal((len(uids), len(set(uids))), (total, total), "calls and events")
    finish()


main()
