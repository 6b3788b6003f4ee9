# SPDX-License-Identifier: MIT
"""Limits of a stage: an allocation bomb leaves all others running, its event is blamed and goes dead as crashed; files,
CPU time and processes are each shown to hold; a plugin's worker has them itself; what would not hold is refused."""
import json
import os
import subprocess
import sys

from harness import BUILD, DIRECTORY, OTHER_GROUP, PLUGINS, Instance, append, check, equal, file_source, finish, \
    python_as_other, skip, wait_for

# Answers with what it found in its event's context, so that it needs no right to write a file.
PROGRAM = '''
import json, os, signal, sys
held = []
for line in sys.stdin:
    kind = json.loads(line)["event"]["payload"].get("kind")
    found = None
    if kind == "bomb":
        while True:
            held.append(bytearray(1 << 24))
    if kind == "spin":
        while True:
            pass
    if kind == "files":
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError as error:
            found = [error.errno, held[-1]]
        while held:
            os.close(held.pop())
    if kind == "processes":
        children = []
        try:
            while len(children) < 64:
                child = os.fork()
                if child == 0:
                    signal.pause()
                    os._exit(0)
                children.append(child)
        except OSError as error:
            found = [error.errno, len(children)]
        for child in children:
            os.kill(child, 9)
            os.waitpid(child, 0)
    print(json.dumps({"reject": json.dumps(found)} if found else {"processed": True}), flush=True)
'''

def sanitized():
    """AddressSanitizer maps terabytes for itself: no limit of memory makes sense for such a worker."""
    with open(os.path.join(BUILD, "eventpiped"), "rb") as file:
        return b"__asan_init" in file.read()


def limit(pid, name):
    with open("/proc/%d/limits" % pid) as file:
        return next(line[len(name):].split()[0] for line in file if line.startswith(name))


def dead(instance, uid):
    return next(event for event in instance.lines("queue", "--state", "dead") if event["uid"] == uid)


def programs():
    instance = Instance()
    lines = {name: os.path.join(DIRECTORY, name) for name in ("bomb", "spin", "files", "processes", "calm")}
    limits = {"bomb": {"memory": "256M"}, "spin": {"cpu": "1s"}, "files": {"files": 20}, "calm": {}}
    own = {}  # the keys of the stage with limited processes
    python = python_as_other()
    if python:
        limits["processes"] = {"processes": 5}
        # Of a user whom no other test has, nor another run of this one: all processes of a user count.
        own = {"user": str(54400 + os.getpid() % 10000), "group": OTHER_GROUP, "directory": "/", "exec": [python, "-B", "-c", PROGRAM]}
    elif os.geteuid() != 0:
        limits["processes"] = {"processes": 1}  # all of this user's on the machine are counted: there are more
    else:
        print("not tried: processes, since this root cannot run stages as others")
    # No time limit: on a busy machine a second of CPU time may take longer than the 30 s of the default.
    stage = {"exec": [sys.executable, "-B", "-c", PROGRAM], "max_crashes": 1, "timeout": "0"}
    instance.configure("\n".join(
        file_source(name, lines[name], dict(stage, name="work", limits=limits[name], **(own if name == "processes" else {})))
        for name in limits))
    for name in limits:
        append(lines[name], {"id": name, "kind": name}, {"id": name + "-after", "kind": "none"})
    instance.start()
    calm = 2  # the stage beside them goes on working all the time
    for name in limits:
        if name == "calm":
            continue
        calm += 10
        append(lines["calm"], *({"id": "calm-%d" % n} for n in range(calm - 10, calm)))
        instance.wait_source(lambda s: s["dead"] == 1 and s["completed"] == 1, "%s: one dead, one done" % name, name)
    instance.wait_empty(calm, "calm")

    for name, cause in (("bomb", "program exited with code 1 before it answered; last stderr output:"),
                        ("spin", "program was killed by signal 24 (SIGXCPU) before it answered")):
        found = dead(instance, name)
        equal((found["reason"], found["crashes"], found["attempts"]), ("crashed", 1, 0), name)
        check(cause in found["error"], "%s: its reason: %s" % (name, found["error"]))
    check("MemoryError" in dead(instance, "bomb")["error"], "the bomb's last stderr output")
    equal(json.loads(dead(instance, "files")["error"]), [24, 19], "EMFILE, and the largest descriptor")
    if "processes" in limits:
        # itself is one of them
        equal(json.loads(dead(instance, "processes")["error"]), [11, 4 if own else 0], "EAGAIN, and its processes")
    for name in ("calm", "files"):
        equal(instance.stage("work", name)["restarts"], 0, "restarts of " + name)
    instance.stop()


def workers():
    """A plugin's code runs in the worker: the limits are the worker's, and an event goes through."""
    instance = Instance("-plugin")
    lines = os.path.join(DIRECTORY, "plugin-lines")
    limits = {"files": 70, "cpu": "5s"}
    if not sanitized():
        limits["memory"] = "512MiB"
    instance.configure(file_source("plugin", lines, {"name": "count", "plugin": os.path.join(PLUGINS, "plugin_count.so"),
                                                     "options": {"member": "type"}, "limits": limits}))
    append(lines, {"id": "1", "type": "a"}, {"id": "2", "type": "b"})
    instance.start()
    instance.wait_source(lambda s: s["completed"] == 2, "both done")
    worker = wait_for(instance.workers, "the worker")[0]
    equal(limit(worker, "Max open files"), "70", "the worker's files")
    check(5 <= int(limit(worker, "Max cpu time")) < 120, "the worker's CPU time: " + limit(worker, "Max cpu time"))
    if "memory" in limits:
        equal(limit(worker, "Max address space"), str(512 << 20), "the worker's memory")
    producer = instance.producers()[0]
    check(limit(producer, "Max open files") != "70", "no other process's")
    instance.stop()


def refused():
    instance = Instance("-refused")
    stage = {"name": "s", "exec": ["cat"], "limits": {"processes": 5}}
    instance.configure("- " + json.dumps({"id": "g", "type": "generate", "count": 1, "stages": [stage]}))
    for arguments in ((), ("-t",)):
        done = subprocess.run([os.path.join(BUILD, "eventpiped"), "-c", instance.config, *arguments],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        equal(done.returncode, 1 if arguments else 2, "exit status")
        check("config.yaml:6: sources[0].stages[0].limits.processes: this limit does not bind root" in done.stderr,
              "it says why, with the line: " + done.stderr)
    check(not os.path.exists(instance.database), "nothing was started")


def main():
    if not os.path.exists("/proc/self/limits"):
        skip("there is no /proc/self/limits")
    programs()
    workers()
    if os.geteuid() == 0:
        refused()
    finish()


main()
