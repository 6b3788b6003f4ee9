# SPDX-License-Identifier: MIT
"""Keeper and producer are killed again and again while events go through: both are restarted, every event comes
exactly once to its end, and commands work again."""
import os
import signal

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, wait_for

BODY = '    answer = {"processed": attempt > 1 or event["payload"]["n"] % 10 != 0, "retry_after": "50ms"}'
KILLS = 5
EVENTS = 100


def another(instance, which, old):
    """The pid of the process that came after `old`."""
    def look():
        status = instance.status()
        process = status["keeper"] if which == "keeper" else status["sources"][0]["producer"]
        if process["state"] in ("starting", "backoff") or process["pid"] == old:
            return None
        return process["pid"]
    return wait_for(look, "another %s than %d" % (which, old))


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("work", BODY)
    instance.configure(file_source("lines", lines, {"name": "work", "exec": [stage], "concurrency": 2},
                                   {"name": "then", "exec": [stage]}, page_size=7))
    instance.start()
    keeper, producer = instance.status()["keeper"]["pid"], instance.producers()[0]
    workers = sorted(instance.workers())
    for number in range(KILLS):
        append(lines, *({"id": "e-%d-%d" % (number, n), "n": n} for n in range(EVENTS)))
        seen = len(calls())
        wait_for(lambda: len(calls()) > seen, "events to be under way")
        os.kill(producer, signal.SIGKILL)
        os.kill(keeper, signal.SIGKILL)
        keeper, producer = another(instance, "keeper", keeper), another(instance, "producer", producer)
        equal(instance.run("queue", "--limit", "1").returncode in (0, 4), True, "queue with the new keeper")
    total = KILLS * EVENTS
    source = instance.wait_empty(total)
    equal((source["fetched"], source["completed"], source["dead"], source["duplicates"]), (total, total, 0, 0),
          "in the end")
    status = instance.status()
    equal(status["keeper"]["restarts"], KILLS, "restarts of the keeper")
    equal(status["sources"][0]["producer"]["restarts"], KILLS, "restarts of the producer")
    equal(sorted(instance.workers()), workers, "no worker was touched")
    # 90 of each hundred are called once by each stage, ten twice: no call was for nothing, since no worker crashed.
    equal(len(calls()), KILLS * (90 * 2 + 10 * 4), "calls")
    check("how=\"signal 9" in instance.log_text(), "the log tells the crashes")
    wait_for(lambda: instance.status()["health"] == "ok", "health ok")
    instance.stop()
    finish()


main()
