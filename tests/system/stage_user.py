# SPDX-License-Identifier: MIT
"""An exec stage with `user` and `group`: its program runs as that user, with nothing of the daemon's rights or groups,
its stderr reaches the log, it ends with its worker and at a stop; an operator who is no root reads the same file; a
user that is not there, or that the daemon may not become, is refused with file and line."""
import json
import os
import signal
import subprocess

from harness import AS_OTHER, BUILD, DIRECTORY, OTHER_GROUP, OTHER_USER, Instance, alive, append, can_as_other, check, equal, file_source, \
    finish, python_as_other, skip, wait_for

PROGRAM = '''
import json, os, subprocess, sys
for line in sys.stdin:
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    with open("/dev/stderr", "w") as stderr:
        print("hello from", os.getuid(), file=stderr)
    status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
    print(json.dumps({"reject": json.dumps([os.getresuid(), os.getresgid(), os.getgroups(), status["NoNewPrivs"],
                                            int(status["CapEff"], 16), os.getpid(), child.pid])}), flush=True)
'''


def refused(instance, key, message, **whom):
    for arguments in ((), ("-t",)):
        done = subprocess.run([os.path.join(BUILD, "eventpiped"), "-c", instance.config, *arguments],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **whom)
        equal(done.returncode, 1 if arguments else 2, "exit status: " + done.stderr)
        check("config.yaml:6: sources[0].stages[0].%s: %s" % (key, message) in done.stderr, "why: " + done.stderr)


def configure_one(instance, **stage):
    instance.configure("- " + json.dumps({"id": "g", "type": "generate", "count": 1,
                                          "stages": [dict({"name": "s", "exec": ["cat"]}, **stage)]}))


def main():
    instance = Instance("-refused")
    configure_one(instance, user="no such user")
    refused(instance, "user", 'there is no user "no such user"')
    equal(instance.run("status").returncode, 3, "an operator's command reads it")
    if os.geteuid() != 0:
        configure_one(instance, user="0")
        refused(instance, "user", "only a daemon that runs as root can run a stage as")
        skip("only root can run stages as others")
    python = python_as_other()
    if not python:
        skip("this root cannot run processes as others, or they have no Python")

    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    instance.configure(file_source("lines", lines, {"name": "s", "exec": [python, "-B", "-c", PROGRAM],
                                                    "user": OTHER_USER, "group": OTHER_GROUP, "directory": "/"}))
    instance.start()
    count = 0

    def pids():
        """Of one event more: the program, and what it left running."""
        nonlocal count
        count += 1
        append(lines, {"id": "e-%d" % count})
        instance.wait_source(lambda s: s["dead"] == count, "the event rejected")
        told = next(event for event in instance.lines("queue", "--state", "dead") if event["uid"] == "e-%d" % count)
        found = json.loads(told["error"])
        equal(found[:5], [[int(OTHER_USER)] * 3, [int(OTHER_GROUP)] * 3, [int(OTHER_GROUP)], "1", 0], "as whom it runs")
        return found[5:]

    def gone(which, after):
        wait_for(lambda: not any(alive(pid) for pid in which), "all of it to be gone after " + after)

    mine = pids()
    wait_for(lambda: "hello from " + OTHER_USER in instance.log_text(), "its message in the log")
    os.kill(instance.workers()[0], signal.SIGKILL)
    gone(mine, "the worker's kill")
    wait_for(instance.workers, "another worker")
    mine = pids()
    instance.stop()
    gone(mine, "a stop")
    instance.start()
    mine = pids()
    instance.kill()
    gone(mine[:1], "the supervisor's kill")
    if alive(mine[1]):  # what that had started outlives the kill of a supervisor that is no unit of a service manager
        os.kill(mine[1], signal.SIGKILL)

    # A daemon that is no root: the program and the configuration must be readable for it, which our directory may not be.
    if can_as_other("test", "-r", instance.config) and can_as_other(os.path.join(BUILD, "eventpiped"), "-V"):
        configure_one(instance, user="0")
        refused(instance, "user", "only a daemon that runs as root can run a stage as", **AS_OTHER)
    finish()


main()
