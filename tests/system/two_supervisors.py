# SPDX-License-Identifier: MIT
"""Two daemons started at the same instant: one wins, the other says who is there already and ends, and takes nothing
from the winner; no event is done twice. Of one store, and of one name (with the same control socket) but two stores.
TWO_ROUNDS: how often each."""
import os

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, wait_for

ROUNDS = int(os.environ.get("TWO_ROUNDS", "8"))


def race(number, instances, told):
    """Both at once: the winner. told(winner): what the other one says."""
    gate = os.path.join(DIRECTORY, "gate-%d-%s" % (number, instances[1].name))
    racers = instances if number % 2 else instances[::-1]
    before = [len(racer.log_text()) for racer in racers]
    for racer in racers:
        racer.start(wait=False, prefix=("sh", "-c", 'until [ -e "$0" ]; do :; done; exec "$@"', gate))
    with open(gate, "w"):
        pass
    wait_for(lambda: [racer for racer in racers if racer.daemon.poll() is not None], "one of the two to give up")
    losers = [racer for racer in racers if racer.daemon.poll() is not None]
    equal(len(losers), 1, "how many gave up; they said: %s" % [r.log_text()[b:] for r, b in zip(racers, before)])
    loser = losers[0]
    winner = instances[0] if loser is instances[1] else instances[1]
    equal(loser.daemon.returncode, 1, "exit status of the one that gave up")
    log = loser.log_text()[before[racers.index(loser)]:]
    check(told(winner) in log, "it names the winner: " + log)
    loser.daemon = None
    wait_for(winner.up, lambda: "the winner to be up; its log: " + winner.log_text()[-2000:])
    return winner


def main():
    first, second = Instance("-a"), Instance("-b")
    second.storage = first.storage
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("work")
    for instance in (first, second):
        instance.configure(file_source("lines", lines, {"name": "work", "exec": [stage], "concurrency": 2}))
    total = 0
    for number in range(ROUNDS):
        append(lines, *({"id": "e-%d-%d" % (number, i)} for i in range(20)))
        total += 20
        winner = race(number, (first, second),
                      lambda winner: "held by the process pid %d (instance %s" % (winner.daemon.pid, winner.name))
        winner.wait_empty(total)
        winner.stop()
    uids = [call[1] for call in calls()]
    equal((len(uids), len(set(uids))), (total, total), "calls and events")

    first, second = Instance("-c"), Instance("-d")
    second.name, second.socket = first.name, first.socket
    for instance in (first, second):
        instance.configure(file_source("lines", lines, {"name": "work", "exec": [stage]}))
    for number in range(ROUNDS):
        winner = race(number, (first, second),
                      lambda winner: "an instance named %s runs already (process %d" % (winner.name, winner.daemon.pid))
        done = winner.run("pause", "lines")
        equal(done.returncode, 0, "exit status of a call to the winner; it said: " + done.stderr)
        winner.run("resume", "lines")
        winner.stop()
        check(not os.path.exists("/dev/shm/eventpipe-" + winner.name), "no segment is left")
    finish()


main()
