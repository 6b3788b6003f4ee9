# SPDX-License-Identifier: MIT
"""A segment of another layout: left by a crashed daemon, it is replaced; a living daemon's is refused, by name, and its
daemon goes on as if nothing had been; the command line says that the daemon is of another version."""
import os
import struct

from harness import PATIENCE, Instance, append, check, equal, file_source, finish, python_stage

LAYOUT_AT = 8  # behind the magic, in every layout


def set_layout(path, layout):
    with open(path, "r+b") as file:
        file.seek(LAYOUT_AT)
        before, = struct.unpack("=I", file.read(4))
        file.seek(LAYOUT_AT)
        file.write(struct.pack("=I", layout))
    return before


def main():
    stage, calls = python_stage("work")
    first, second = Instance(), Instance("-other")
    segment = "/dev/shm/eventpipe-" + first.name
    second.name = first.name  # the same name, with a store of its own
    feeds = []
    for instance in (first, second):
        feeds.append(os.path.join(instance.directory, "lines"))
        instance.configure(file_source("lines", feeds[-1], {"name": "work", "exec": [stage]}))
    append(feeds[0], {"id": "a"})
    first.start()
    first.wait_empty(1)

    layout = set_layout(segment, 9999)
    pid = first.daemon.pid
    second.start(wait=False)
    equal(second.daemon.wait(PATIENCE), 1, "exit status of the second; it said: " + second.log_text())
    second.daemon = None
    for word in ("named %s runs already" % first.name, "process %d" % pid, "another version"):
        check(word in second.log_text(), "%r is not said: %s" % (word, second.log_text()))
    check(os.path.exists(segment), "the first one's segment is still there")
    done = first.run("status")
    check("another version" in done.stderr + done.stdout and done.returncode != 0, "status says so: %r" % (done,))

    # The first has not noticed.
    set_layout(segment, layout)
    append(feeds[0], {"id": "b"})
    first.wait_empty(2)
    equal(first.daemon.pid, pid, "the first daemon")

    # What a crashed one left is replaced.
    first.daemon.kill()
    first.daemon.wait(PATIENCE)
    first.daemon = None
    set_layout(segment, 9999)
    append(feeds[0], {"id": "c"})
    first.start()
    first.wait_empty(3)
    equal(sorted(call[1] for call in calls() if call[0] == "call"), ["a", "b", "c"], "calls")
    first.stop()
    check(not os.path.exists(segment), "no segment is left")
    finish()


main()
