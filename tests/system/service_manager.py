# SPDX-License-Identifier: MIT
"""What the service manager hears (sd_notify): READY=1 once all are at work, WATCHDOG=1 at half its time, STATUS=
with what is wrong, STOPPING=1 at the stop; from the supervisor alone, and stages do not get the socket."""
import os
import socket
import struct

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, wait_for

BODY = '    witness("environment", sorted(name for name in os.environ if name.startswith(("NOTIFY", "WATCHDOG"))))'


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("work", BODY)
    path = os.path.join(DIRECTORY, "notify")
    for name in (path, "@eventpipe-" + instance.name):
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        manager.bind(name.replace("@", "\0", 1))
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        manager.settimeout(60)
        told = []

        def receive(wanted):
            """Takes messages until the one wanted has come."""
            while wanted not in [line for _, line in told]:
                data, ancillary, _, _ = manager.recvmsg(4096, 256)
                pid = struct.unpack("3i", ancillary[0][2])[0]
                told.extend((pid, line) for line in data.decode().split("\n"))

        instance.configure(file_source("lines", lines, {"name": "work", "exec": [stage]}))
        append(lines, {"id": "for " + name})
        instance.start(wait=False, environment={"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "600000"})
        receive("READY=1")
        # Ready means that all have been at work.
        status = instance.up()
        check(status, "all processes are up when READY=1 comes")
        check("MAINPID=%d" % instance.daemon.pid in [line for _, line in told], "it says which process is the main one")
        receive("STATUS=running")
        for _ in range(4):
            del told[:]
            receive("WATCHDOG=1")
        del told[:]
        instance.daemon.terminate()
        receive("STOPPING=1")
        equal(instance.daemon.wait(60), 0, "exit status")
        manager.setblocking(False)
        try:
            while True:
                data, ancillary, _, _ = manager.recvmsg(4096, 256)
                told.append((struct.unpack("3i", ancillary[0][2])[0], data.decode()))
        except BlockingIOError:
            pass
        equal({pid for pid, _ in told}, {instance.daemon.pid}, "who has spoken")
        instance.daemon = None
        manager.close()
    wait_for(lambda: calls(), "the stage to be called")
    equal({tuple(call[1]) for call in calls() if call[0] == "environment"}, {()}, "what stages see of it")

    # WATCHDOG_PID of another process: no watchdog. A degraded stage: told as status.
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(path + "2")
    manager.settimeout(60)
    instance.configure(file_source("lines", lines, {"name": "work", "exec": [os.path.join(DIRECTORY, "missing")]}))
    instance.start(wait=False, environment={"NOTIFY_SOCKET": path + "2", "WATCHDOG_USEC": "100000",
                                            "WATCHDOG_PID": "1"})
    said = ""
    while "1 of 1 stages degraded" not in said:
        said += manager.recv(4096).decode() + "\n"
    check("READY=1" in said, "a stage that cannot open does not keep the daemon from being ready: " + said)
    check("WATCHDOG" not in said, "the watchdog of another process is not fed: " + said)
    instance.stop()
    finish()


main()
