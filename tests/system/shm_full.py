# SPDX-License-Identifier: MIT
"""/dev/shm is too small: a clear error at the start. It is full after the start: nothing happens to the instance,
whose space was taken at the start (else each first touch of a page would be SIGBUS)."""
import os
import subprocess

from harness import DIRECTORY, PATIENCE, Instance, append, check, equal, file_source, finish, python_stage, skip, wait_for

EVENTS = 3000


def within(size, command):
    """Runs a command in a mount namespace of its own, with a /dev/shm of so many KiB."""
    return ("unshare", "-m", "sh", "-c",
            "mount -t tmpfs -o size=%dk tmpfs /dev/shm && %s" % (size, command), "sh")


def main():
    try:
        tried = subprocess.run(within(64, "true"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE)
    except FileNotFoundError:
        skip("there is no unshare")
    if tried.returncode != 0:
        skip("no right to mount a tmpfs: %s" % tried.stdout.decode(errors="replace").strip())
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("work")
    # Rings of several pages, which only a full load touches.
    instance.configure(file_source("lines", lines, {"name": "work", "exec": [stage], "input_buffer": 2000}))

    instance.start(wait=False, prefix=within(64, 'exec "$@"'))
    equal(instance.daemon.wait(PATIENCE), 1, "exit status where /dev/shm is too small: " + instance.log_text())
    check("no space in /dev/shm" in instance.log_text(), "it says why: " + instance.log_text())
    check(not os.path.exists(instance.socket), "no socket is left")
    instance.daemon = None

    # As large as the segment, about; whatever is left is filled behind it.
    instance.start(wait=False, prefix=within(8192, 'exec "$@"'))
    pid = instance.daemon.pid
    enter = ("nsenter", "-t", str(pid), "-m")
    wait_for(lambda: "ready" in instance.log_text(), lambda: "the daemon to be ready: " + instance.log_text())
    filled = subprocess.run((*enter, "dd", "if=/dev/zero", "of=/dev/shm/filler", "bs=4k"), stderr=subprocess.PIPE,
                            text=True, timeout=PATIENCE)
    check("No space left" in filled.stderr, "/dev/shm is full: " + filled.stderr)
    append(lines, *({"id": "e-%d" % i} for i in range(EVENTS)))
    wait_for(lambda: instance.query("SELECT completed FROM source") == [(EVENTS,)],
             lambda: "all events to be done; the log: " + instance.log_text()[-2000:])
    equal(len({call[1] for call in calls()}), EVENTS, "events that the stage has seen")
    check("signal" not in instance.log_text(), "no process crashed over it: " + instance.log_text())
    instance.stop()
    finish()


main()
