# SPDX-License-Identifier: MIT
"""What ps shows: each process of the instance says what it is and what it does; each stage has a process group of its
own, with its programs in it; supervisor, keeper and producer share theirs with no other process."""
import os
import re

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, wait_for

BODY = '''
    witness("group", os.getpgrp(), os.getppid())
    while not os.path.exists(__file__ + ".finish"):
        signal.sigtimedwait([signal.SIGCHLD], 0.02)
'''


def title(pid):
    with open("/proc/%d/cmdline" % pid, "rb") as file:
        return file.read().rstrip(b"\0").replace(b"\0", b" ").decode().rstrip(" ")


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("locate", BODY)
    other, _ = python_stage("other")
    instance.configure(file_source("quakes", lines, {"name": "locate", "exec": [stage], "concurrency": 4},
                                   {"name": "other", "exec": [other]}))
    instance.start()
    status = instance.status()
    check("eventpiped" in title(instance.daemon.pid) and instance.config in title(instance.daemon.pid),
          "the supervisor goes by its command line: " + title(instance.daemon.pid))
    check(title(status["keeper"]["pid"]).startswith("eventpiped: keeper"),
          "the keeper's: " + title(status["keeper"]["pid"]))
    producer = status["sources"][0]["producer"]["pid"]
    check("producer" in title(producer) and "quakes" in title(producer), "the producer's: " + title(producer))
    locate, then = status["sources"][0]["stages"]
    for worker in locate["workers"]:
        wait_for(lambda: title(worker["pid"]) == "eventpiped: quakes/locate[%d] idle" % worker["worker"],
                 lambda: "the title of an idle worker, found " + title(worker["pid"]))
    append(lines, {"id": "only"})
    call = wait_for(lambda: next((call for call in calls() if call[0] == "group"), None), "the event to be processed")
    group, parent = call[1:]
    worker = next(worker for worker in locate["workers"] if worker["pid"] == parent)
    wait_for(lambda: re.fullmatch(r"eventpiped: quakes/locate\[%d\] busy ev \d+" % worker["worker"], title(parent)),
             lambda: "the title of a busy worker, found " + title(parent))
    number = int(title(parent).split()[-1])
    shown = next(w for w in instance.stage("locate")["workers"] if w["pid"] == parent)
    equal((shown["event"], shown["state"]), (number, "busy"), "status and title name the same event")
    equal(instance.lines("show", "only")[0]["number"], number, "and so does show")

    groups = {stage["name"]: {os.getpgid(w["pid"]) for w in stage["workers"]} for stage in (locate, then)}
    equal(len(groups["locate"]), 1, "process groups of a stage")
    equal({group}, groups["locate"], "the program is in its stage's group")
    others = [os.getpgid(pid) for pid in (instance.daemon.pid, status["keeper"]["pid"],
                                          producer)] + list(groups["other"])
    check(group not in others and len(set(others)) == 4, "each has a group of its own: %s and %s" % (group, others))
    open(stage + ".finish", "w").close()
    instance.wait_empty(1)
    instance.stop()
    finish()


main()
