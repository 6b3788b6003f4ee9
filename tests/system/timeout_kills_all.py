# SPDX-License-Identifier: MIT
"""An event runs longer than its stage's timeout: worker, program and what that has started are killed; it counts
as an attempt; after max_attempts the event is dead, exhausted. The events beside it are not blamed."""
import os

from harness import DIRECTORY, Instance, alive, append, check, equal, file_source, finish, python_stage, wait_for

BODY = '''
    if event["payload"].get("hangs"):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        child = os.fork()
        if child == 0:
            os.setsid()                     # neither its group nor its session holds it
            grandchild = os.fork()
            if grandchild == 0:
                witness("process", "grandchild", os.getpid(), os.getppid())
            while True:
                time.sleep(600)
        witness("process", "child", child, os.getppid())
        while True:
            time.sleep(600)
'''


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("slow", BODY)
    instance.configure(file_source("lines", lines,
                                   {"name": "slow", "exec": [stage], "timeout": "1500ms", "max_attempts": 2,
                                                    "retry": {"min": "50ms", "max": "50ms"}}))
    append(lines, {"id": "before"}, {"id": "hangs", "hangs": True}, *({"id": "after-%d" % i} for i in range(5)))
    instance.start()
    instance.wait_source(lambda s: s["dead"] == 1 and s["completed"] == 6, "one dead, six done")

    dead = instance.lines("queue", "--state", "dead")[0]
    equal((dead["uid"], dead["reason"], dead["attempts"], dead["crashes"]), ("hangs", "exhausted", 2, 0),
          "the event that hangs")
    check("timed out after 1.5s" in dead["error"] or "timed out after 1500ms" in dead["error"]
          or "timed out after 1s500ms"
          in dead["error"], "its reason: " + dead["error"])
    equal([call[2] for call in calls() if call[:2] == ["call", "hangs"]], [1, 2], "its attempts")
    for call in calls():
        check(call[0] != "call" or call[1] == "hangs" or call[2] == 1, "another event was blamed: %s" % call)

    processes = [pid for call in calls() if call[0] == "process" for pid in call[2:]]
    processes += [call[3] for call in calls() if call[:2] == ["call", "hangs"]]
    check(len(processes) >= 8, "both times all of them ran: %s" % processes)
    wait_for(lambda: not [pid for pid in set(processes) if alive(pid) and pid not in instance.workers()],
             "all of what hung to be killed")
    stage_status = instance.stage("slow")
    equal((stage_status["failed"], stage_status["crashed"]), (2, 0), "failed and crashed of the stage")
    check(stage_status["restarts"] >= 2, "the worker was restarted")
    instance.stop()
    finish()


main()
