# SPDX-License-Identifier: MIT
"""A stage that starts processes of its own, in the background, in sessions of their own: nothing of it is left after
it crashed, after its worker was killed, after a restart, and after a stop."""
import os
import signal

from harness import DIRECTORY, Instance, alive, append, check, equal, file_source, finish, python_stage, wait_for

BODY = '''
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    ready, told = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            witness("process", "daemon", os.getpid())
            os.write(told, b"!")
            while True:
                time.sleep(600)
        os._exit(0)
    if os.fork() == 0:
        witness("process", "child", os.getpid())
        os.write(told, b"!")
        while True:
            time.sleep(600)
    os.read(ready, 1)
    os.read(ready, 1)
    if "crash" in event["uid"]:
        os._exit(3)
'''


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("breeder", BODY)
    instance.configure(file_source("lines", lines, {"name": "breeder", "exec": [stage], "max_crashes": 1}), "drain_timeout: 5s")
    instance.start()
    fetched = 0

    def bred():
        """One event more: all that its call has left running, and its program."""
        nonlocal fetched
        fetched += 1
        seen = len(calls())
        append(lines, {"id": "e-%d" % fetched})
        instance.wait_empty(fetched)
        new = calls()[seen:]
        pids = [call[2] for call in new if call[0] == "process"] + [call[3] for call in new if call[0] == "call"]
        equal(len(pids), 3, "processes that were left running")
        check(all(alive(pid) for pid in pids), "they run")
        return pids

    def gone(pids, after):
        wait_for(lambda: not [pid for pid in pids if alive(pid)],
                 lambda: "%s to be gone after %s" % ([p for p in pids if alive(p)], after))

    fetched += 1
    append(lines, {"id": "crash"})
    instance.wait_source(lambda s: s["dead"] == 1, "the crash to be blamed")
    pids = [call[2] for call in calls() if call[0] == "process"]
    equal(len(pids), 2, "processes that a crash left running")
    gone(pids, "a crash")
    wait_for(lambda: instance.workers(), "another worker")
    pids = bred()
    worker = instance.workers()[0]
    os.kill(worker, signal.SIGKILL)
    gone(pids + [worker], "the worker's kill")
    wait_for(lambda: instance.workers(), "another worker")
    pids = bred()
    equal(instance.run("restart", "lines/breeder").returncode, 0, "restart")
    gone(pids, "a restart")
    wait_for(lambda: instance.workers(), "another worker")
    pids = bred()
    instance.stop()
    gone(pids, "a stop")
    instance.start()
    pids = bred()
    instance.daemon.kill()
    instance.daemon.wait(60)
    wait_for(lambda: not alive(pids[2]), "the program to be gone after the supervisor's kill")
    # What that had started outlives the kill of a supervisor that is no unit of a service manager.
    for pid in pids:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
    finish()


main()
