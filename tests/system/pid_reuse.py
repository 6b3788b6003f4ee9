# SPDX-License-Identifier: MIT
"""The process that a store's lock file names is gone, and its number has come back as somebody else's, while what is
left of its instance still holds the lock: the next daemon waits for the instance's end instead of taking that somebody
for a living holder. Its number is made to come back by writing this test's own into the file."""
import fcntl
import os
import re

from harness import DIRECTORY, PATIENCE, Instance, append, check, equal, file_source, finish, python_stage, wait_for


ROUNDS = 25  # of a daemon's that looks at the lock again and again; its start alone has fewer


def rounds(pid):
    """How often the process has gone to sleep so far."""
    with open("/proc/%d/status" % pid) as file:
        return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", file.read(), re.M).group(1))


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("work")
    instance.configure(file_source("lines", lines, {"name": "work", "exec": [stage]}))
    append(lines, {"id": "a"})
    instance.start()
    instance.wait_empty(1)
    path = os.path.realpath(instance.database + ".lock")
    with open(path) as file:
        text = file.read()
    check(re.search(r"^pid %d$" % instance.daemon.pid, text, re.M), "the lock file names its holder: " + text)
    check(re.search(r"^started [1-9]\d*$", text, re.M), "and when that was started: " + text)
    instance.stop()

    with open(path, "r+") as lock_file:  # what is left of the instance
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        lock_file.write(re.sub(r"^pid \d+$", "pid %d" % os.getpid(), text, flags=re.M))
        lock_file.truncate()
        lock_file.flush()
        append(lines, {"id": "b"})
        instance.start(wait=False)
        wait_for(lambda: instance.daemon.poll() is not None or rounds(instance.daemon.pid) > ROUNDS,
                 "the daemon to wait for the lock")
        equal(instance.daemon.poll(), None, "the daemon waits; it said: " + instance.log_text()[-500:])
    instance.wait_empty(2)

    # A living holder under its own number is refused as ever.
    second = Instance("-second", store=instance.storage)
    second.configure(file_source("lines", lines, {"name": "work", "exec": [stage]}))
    second.start(wait=False)
    equal(second.daemon.wait(PATIENCE), 1, "exit status of the second")
    second.daemon = None
    check("held by the process pid %d" % instance.daemon.pid in second.log_text(), "it names: " + second.log_text())
    instance.stop()
    equal([call[1] for call in calls()], ["a", "b"], "calls")
    finish()


main()
