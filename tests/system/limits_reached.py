# SPDX-License-Identifier: MIT
"""The limits of open files and of processes are reached while the daemon runs. Without a descriptor the supervisor cannot
take calls, start processes or look for orphans: it sleeps between its turns all the same, and makes up for all of it when
there are some again. Without a process more, it tries again ever more rarely, and what runs goes on.

The supervisor's limits are set from outside, as no process can tell how many descriptors it needs. A process that loops
never goes to sleep by itself: that tells it from one that waits."""
import json
import os
import re
import signal
import socket
import subprocess

from harness import AS_OTHER, BUILD, DIRECTORY, OTHER_GROUP, OTHER_USER, PATIENCE, Instance, alive, append, can_as_other, check, equal, \
    file_source, finish, python_as_other, python_stage, wait_for

SLEEPS = 3  # of a supervisor's; one that loops has none
BODY = '''
    if event["uid"] == "breed":
        ready, told = os.pipe()
        if os.fork() == 0:
            os.setsid()
            witness("child", os.getpid())
            os.write(told, b"!")
            while True:
                time.sleep(600)
        os.read(ready, 1)
'''


def sleeps(pid):
    """How often the process has gone to sleep so far."""
    with open("/proc/%d/status" % pid) as file:
        return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", file.read(), re.M).group(1))


def limit(pid, name, soft, whom):
    """Sets a soft limit of another process, as its own user: not every root may; gives back what it was."""
    words = {"nofile": "Max open files", "nproc": "Max processes"}[name]
    with open("/proc/%d/limits" % pid) as file:
        before = re.search("^%s +(\\w+)" % words, file.read(), re.M).group(1)
    done = subprocess.run(["prlimit", "--pid", str(pid), "--%s=%s:" % (name, soft)], stderr=subprocess.PIPE, text=True, **whom)
    equal(done.returncode, 0, "prlimit: " + done.stderr)
    return before


def call(path):
    """A client that has asked, and waits."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(PATIENCE)
    client.connect(path)
    client.sendall(b'{"command":"ping"}\n')
    return client


def descriptors(instance, lines, calls):
    append(lines, {"id": "breed"})
    instance.wait_empty(1)
    child, = (words[1] for words in calls() if words[0] == "child")
    daemon, worker = instance.daemon.pid, instance.workers()[0]
    before = limit(daemon, "nofile", 3, {})  # those it has stay
    try:
        with call(instance.socket) as client:
            wait_for(lambda: "control-accept-paused" in instance.log_text(), "the call not to be taken")
            start = sleeps(daemon)
            wait_for(lambda: sleeps(daemon) >= start + SLEEPS, "the daemon to sleep while it can accept no connection")
            equal(instance.log_text().count("control-accept-paused"), 1, "how often the log tells that")
            os.kill(worker, signal.SIGKILL)
            wait_for(lambda: "start-failed" in instance.log_text(), "the worker's successor not to be started")
            start = sleeps(daemon)
            wait_for(lambda: sleeps(daemon) >= start + SLEEPS, "the daemon to sleep while it can start no process")
            check(alive(child), "what the worker left runs on, unseen")
            check("Too many open files" in json.dumps(instance.status()), "status says why")

            limit(daemon, "nofile", before, {})
            check("is running" in json.loads(client.recv(4096).splitlines()[-1])["message"], "the call is answered")
    finally:
        limit(daemon, "nofile", before, {})
    wait_for(lambda: not alive(child), "what the worker left to be ended")
    append(lines, {"id": "after"})
    instance.wait_empty(2)
    wait_for(lambda: len(instance.workers()) == 2, "both workers")


def processes(instance, lines, fetched, whom):
    """Only for a daemon that is not root, which has no limit of processes."""
    daemon, worker = instance.daemon.pid, instance.workers()[0]
    told = len(instance.log_text())
    before = limit(daemon, "nproc", 1, whom)
    try:
        os.kill(worker, signal.SIGKILL)
        pauses = wait_for(lambda: (lambda found: found if len(found) >= 3 else None)(
            re.findall(r"restart-delayed .*pause_ms=(\d+)", instance.log_text()[told:])), "three starts to fail")
        check("Resource temporarily unavailable" in instance.log_text()[told:], "why: " + instance.log_text()[told:])
        equal([int(pause) for pause in pauses[:3]], [250, 500, 1000], "pauses between the starts")
        append(lines, *({"id": "p-%d" % i} for i in range(50)))
        instance.wait_empty(fetched + 50)
    finally:
        limit(daemon, "nproc", before, whom)
    wait_for(lambda: len(instance.workers()) == 2, "both workers")


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("work", BODY)
    stages = {"name": "work", "exec": [stage], "concurrency": 2}
    instance.configure(file_source("lines", lines, stages))
    instance.start()
    descriptors(instance, lines, calls)
    instance.stop()

    prefix, other = (), None
    if os.geteuid() == 0:
        python = python_as_other()
        prefix = ("setpriv", "--reuid", OTHER_USER, "--regid", OTHER_GROUP, "--clear-groups")
        if not python or not can_as_other(os.path.join(BUILD, "eventpiped"), "-V"):
            print("not tried: the limit of processes, as this root cannot run the daemon as another")
            finish()
            return
        other = Instance("-other")
        stages["exec"] = [python, "-B", stage]
        os.unlink(os.path.join(DIRECTORY, "work.witness"))
        lines = os.path.join(DIRECTORY, "other-lines")
        append(lines)
        other.configure(file_source("lines", lines, dict(stages, directory="/")))
        for path in (DIRECTORY, other.directory, lines, other.config):
            os.chown(path, int(OTHER_USER), int(OTHER_GROUP))
    used = other or instance
    used.start(prefix=prefix)
    append(lines, {"id": "first"})
    fetched = used.wait_source(lambda s: s["fetched"] > 0 and not s["ready"] + s["running"] + s["delayed"], "the first")["fetched"]
    processes(used, lines, fetched, AS_OTHER if other else {})
    used.stop()
    finish()


main()
