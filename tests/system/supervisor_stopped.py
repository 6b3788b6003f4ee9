# SPDX-License-Identifier: MIT
"""The supervisor stands still (SIGSTOP): `eventpipe status` still answers, and says that it has sent no heartbeat;
the events go on meanwhile, and afterwards all is well. The commands that look answer from the store, and say so, while
the supervisor or the keeper stands still, however many calls wait before it already."""
import concurrent.futures
import os
import signal
import socket

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, wait_for


def keeper_of(instance):
    """The child that is no worker, no producer: by its title."""
    with open("/proc/%d/task/%d/children" % (instance.daemon.pid, instance.daemon.pid)) as file:
        for pid in file.read().split():
            with open("/proc/%s/cmdline" % pid) as title:
                if "keeper" in title.read():
                    return int(pid)
    raise AssertionError("there is no keeper")


def answers_from_store(instance):
    """The commands that only read, all at once, while the supervisor that should answer is stopped."""
    commands = {("queue", "--json"): '"uid":"dead"', ("show", "dead", "--json"): '"uid":"dead"',
             ("cursor", "lines"): ":", ("check",): ""}
    with concurrent.futures.ThreadPoolExecutor(len(commands)) as pool:
        asked = {command: pool.submit(instance.run, *command) for command in commands}
    for command, what in commands.items():
        done = asked[command].result()
        equal(done.returncode, 0, "exit status of %s; it said: %s" % (command, done.stderr))
        check(what in done.stdout.replace(" ", ""), "%s finds it: %s" % (command, done.stdout))
        check("does not answer" in done.stderr and "reading its store instead" in done.stderr,
              "%s says where it looks: %s" % (command, done.stderr))
    check("the store is sound" in asked[("check",)].result().stderr, "check has looked at the store")


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, _ = python_stage("work", '    if event["uid"] == "dead": answer = {"reject": "no"}')
    instance.configure(file_source("lines", lines, {"name": "work", "exec": [stage]}))
    append(lines, {"id": "first"}, {"id": "dead"})
    instance.start()
    instance.wait_empty(2)
    keeper = keeper_of(instance)
    os.kill(instance.daemon.pid, signal.SIGSTOP)
    waiting = []
    try:
        append(lines, *({"id": "e-%d" % i} for i in range(100)))
        instance.wait_empty(102)
        status = wait_for(lambda: (lambda s: s if any("sent no heartbeat" in r for r in s["reasons"]) else None)(
            instance.status()), "status to notice")
        equal(status["health"], "degraded", "health")
        check(any(str(instance.daemon.pid) in reason for reason in status["reasons"]),
              "it names the process: %s" % status["reasons"])
        done = instance.run("status")
        equal(done.returncode, 1, "exit status")
        check("sent no heartbeat" in done.stdout.split("\n\n")[0], "at its top: " + done.stdout)
        answers_from_store(instance)
        while True:  # until no more calls can wait
            caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            waiting.append(caller)
            caller.setblocking(False)
            try:
                caller.connect(instance.socket)
            except BlockingIOError:
                break
        answers_from_store(instance)
    finally:
        os.kill(instance.daemon.pid, signal.SIGCONT)
    for caller in waiting:
        caller.close()
    wait_for(lambda: len(instance.status()["reasons"]) == 1, "only the dead event to be told of again")
    os.kill(keeper, signal.SIGSTOP)
    try:
        answers_from_store(instance)
    finally:
        os.kill(keeper, signal.SIGCONT)
    done = wait_for(lambda: (lambda d: d if "reading its store" not in d.stderr else None)(instance.run("queue", "--json")),
                    "the keeper to answer again")
    equal(done.returncode, 0, "exit status of queue afterwards")
    instance.stop()
    finish()


main()
