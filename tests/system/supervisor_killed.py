# SPDX-License-Identifier: MIT
"""SIGKILL of the supervisor: the whole instance ends with it, programs and theirs; the next start waits for the
last of them, makes every lock void and goes on; what the killed one left in /dev/shm and on its socket does not
stop it."""
import fcntl
import os
import signal
import socket

from harness import DIRECTORY, Instance, alive, append, check, equal, file_source, finish, python_stage, wait_for

# The first attempt at event `hang-N` never ends.
BODY = '''
    if event["uid"].startswith("hang") and not os.path.exists(__file__ + ".relief"):
        witness("process", "self", os.getpid())
        while True:
            time.sleep(600)
'''


def children_of(pid):
    found = []
    for entry in os.listdir("/proc"):
        try:
            with open("/proc/%s/stat" % entry) as file:
                if int(file.read().rsplit(")", 1)[1].split()[1]) == pid:
                    found.append(int(entry))
        except (OSError, ValueError, IndexError):
            continue
    return found


def process_tree(pid):
    processes = [pid]
    for member in processes:
        processes += children_of(member)
    return processes


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("work", BODY)
    instance.configure(file_source("lines", lines, {"name": "work", "exec": [stage], "concurrency": 3},
                                   {"name": "then", "exec": [stage]}))
    append(lines, *({"id": "hang-%d" % i} for i in range(3)), *({"id": "e-%d" % i} for i in range(50)))
    instance.start()
    wait_for(lambda: len([call for call in calls() if call[0] == "process"]) == 3, "three events to be processed")
    processes = process_tree(instance.daemon.pid)
    check(len(processes) >= 1 + 1 + 1 + 4 + 4, "supervisor, keeper, producer, workers and programs: %d" % len(processes))

    os.kill(instance.daemon.pid, signal.SIGKILL)
    instance.daemon.wait(60)
    check(os.path.exists("/dev/shm/eventpipe-" + instance.name), "the killed one left its segment")
    check(os.path.exists(instance.socket), "and its socket")
    wait_for(lambda: not [pid for pid in processes if alive(pid)], "the whole instance to be gone")
    status = instance.status()
    equal(status["health"], "down", "health")
    check(any("did not end cleanly" in reason for reason in status["reasons"]),
          "status says that it was killed: %s" % status["reasons"])

    open(stage + ".relief", "w").close()
    instance.start()
    source = instance.wait_empty(53)
    equal((source["fetched"], source["completed"], source["duplicates"], source["dead"]), (53, 53, 0, 0), "in the end")
    # A killed daemon is no event's fault: none is blamed, each attempt is the first.
    equal({call[2] for call in calls() if call[0] == "call"}, {1}, "attempts")
    equal(instance.status()["sources"][0]["stages"][0]["crashed"], 0, "crashes counted")

    # A start while the last of the old instance is still there: a process with the lock, which is none of the daemon's
    # to kill, holds it off until it is gone.
    holder = os.open(instance.database + ".lock", os.O_RDWR)
    instance.daemon.kill()
    instance.daemon.wait(60)
    wait_for(lambda: try_lock(holder), "the instance's lock to be free")
    append(lines, {"id": "late"})
    before = len(instance.log_text())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        path = os.path.join(DIRECTORY, "notify")
        manager.bind(path)
        manager.settimeout(60)
        instance.start(wait=False, environment={"NOTIFY_SOCKET": path})
        equal(manager.recv(4096), b"STATUS=waiting for the store", "what the new one says")
    daemon = instance.daemon
    wait_for(lambda: sleeps(daemon.pid), "the new one to have tried and to wait")
    check("phase" not in instance.log_text()[before:], "it has not begun: " + instance.log_text()[before:])
    check(daemon.poll() is None, "it waits")
    os.close(holder)
    instance.wait_empty(54)
    instance.stop()
    check(not os.path.exists("/dev/shm/eventpipe-" + instance.name) and not os.path.exists(instance.socket),
          "nothing is left")
    finish()


def try_lock(fd):
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def sleeps(pid):
    with open("/proc/%d/stat" % pid) as file:
        return file.read().rsplit(")", 1)[1].split()[0] == "S"


main()
