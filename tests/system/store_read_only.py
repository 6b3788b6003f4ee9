# SPDX-License-Identifier: MIT
"""The store's file may not be written: at the start the daemon refuses it, and commands that read work without it; later it
waits and loses nothing, status says why, and work goes on by itself once it may. Root may write whatever there is, so root gives that power up
for the daemon."""
import os
import subprocess

from harness import BUILD, DIRECTORY, PATIENCE, Instance, append, check, equal, file_source, finish, python_stage, skip, wait_for

POWERLESS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


def main():
    prefix = POWERLESS if os.geteuid() == 0 else ()
    if prefix and subprocess.run([*prefix, "true"], stderr=subprocess.DEVNULL).returncode != 0:
        skip("root cannot give up CAP_DAC_OVERRIDE here")
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("work")
    instance = Instance()
    instance.configure(file_source("lines", lines, {"name": "work", "exec": [stage]}))
    append(lines, {"id": "first"})
    instance.start(prefix=prefix)
    instance.wait_empty(1)
    instance.stop()

    # At the start it is refused, plainly.
    os.chmod(instance.database, 0o400)
    append(lines, {"id": "second"})
    equal(instance.start(wait=False, prefix=prefix).wait(60), 1, "exit status of the start")
    check("%s: cannot be opened for writing: Permission denied" % instance.database in instance.log_text(),
          "the log says why: " + instance.log_text()[-1000:])
    for mode in (0o700, 0o500):  # of its directory
        os.chmod(instance.directory, mode)
        for command, told in (("queue", "the queue is empty"), ("check", "the store is sound")):
            done = subprocess.run([*prefix, os.path.join(BUILD, "eventpipe"), "-c", instance.config, command],
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
            equal(done.returncode, 0, "exit status of %s: %s" % (command, done.stderr))
            check(told in done.stderr, "messages of %s: %s" % (command, done.stderr))
    os.chmod(instance.directory, 0o700)
    os.chmod(instance.database, 0o600)
    instance.start(prefix=prefix)
    instance.wait_empty(2)

    # Later, a process that has to open it waits: here the workers and the producer, which are started again.
    files = [path for path in (instance.database + suffix for suffix in ("", "-wal", "-shm")) if os.path.exists(path)]
    for path in files:
        os.chmod(path, 0o400)
    append(lines, {"id": "third"})
    instance.wait_empty(3)  # who has it open may go on
    equal(instance.run("restart", "lines").returncode, 0, "restart")
    append(lines, {"id": "fourth"})
    status = wait_for(lambda: (lambda s: s if s and s["store"]["error"] else None)(instance.status()),
                      "status to say why")
    check("may not write" in status["store"]["error"] and instance.database in status["store"]["error"],
          "what the status says: %s" % status["store"])
    equal(status["health"], "degraded", "health")
    equal(status["sources"][0]["fetched"], 3, "nothing counts as fetched before it is stored")
    for path in files:
        os.chmod(path, 0o600)
    instance.wait_empty(4)
    wait_for(lambda: instance.status()["health"] == "ok", "health ok again")
    equal([call[1] for call in calls()], ["first", "second", "third", "fourth"], "calls of the stage")
    instance.stop()
    finish()


main()
