# SPDX-License-Identifier: MIT
"""The supervisor stands still (SIGSTOP): `eventpipe status` still answers, and says that it has not been heard of;
the events go on meanwhile, and afterwards all is well."""
import os
import signal

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, wait_for


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, _ = python_stage("work")
    instance.configure(file_source("lines", lines, {"name": "work", "exec": [stage]}))
    append(lines, {"id": "first"})
    instance.start()
    instance.wait_empty(1)
    os.kill(instance.daemon.pid, signal.SIGSTOP)
    try:
        append(lines, *({"id": "e-%d" % i} for i in range(100)))
        instance.wait_empty(101)
        status = wait_for(lambda: (lambda s: s if s["health"] == "degraded" else None)(instance.status()),
                          "status to notice")
        check(any("not been heard of" in reason for reason in status["reasons"]), "it says so: %s" % status["reasons"])
        check(any(str(instance.daemon.pid) in reason for reason in status["reasons"]),
              "it names the process: %s" % status["reasons"])
        done = instance.run("status")
        equal(done.returncode, 1, "exit status")
        check("not been heard of" in done.stdout.split("\n\n")[0], "at its top: " + done.stdout)
    finally:
        os.kill(instance.daemon.pid, signal.SIGCONT)
    wait_for(lambda: instance.status()["health"] == "ok", "health ok again")
    instance.stop()
    finish()


main()
