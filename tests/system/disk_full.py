# SPDX-License-Identifier: MIT
"""The store's disk is full: while fetching, while committing, while the log should be moved, at the stop and at the
start. Nothing is acknowledged that is not stored, work pauses, status says why, it goes on by itself once there is
room, and every event comes through, exactly as it should. The disk is a small tmpfs that only this test sees."""
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys

from harness import (DIRECTORY, PATIENCE, Gate, Instance, append, check, equal, file_source, finish, python_stage, skip,
                     times_called, wait_for)

MEGABYTE = 1 << 20
DISK = os.path.join(DIRECTORY, "disk")
BALLAST = os.path.join(DISK, "ballast")
MOUNT = ("mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", DISK)
HIDDEN = "DISK_FULL_HIDDEN"  # set once mounts are our own
CONTEXT_BYTES = 40000  # of each event behind the first stage, where a commit is to need room


def hide():
    """Goes on in a mount namespace of its own: whatever becomes of the test, its disk goes with it."""
    os.makedirs(DISK)
    unshare = ["unshare", "--mount", *(() if os.geteuid() == 0 else ("--user", "--map-root-user"))]
    try:
        tried = subprocess.run([*unshare, *MOUNT], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except FileNotFoundError as error:
        skip("no disk of its own: %s" % error)
    if tried.returncode != 0:
        skip("no tmpfs may be mounted here: " + tried.stdout.strip())
    os.environ[HIDDEN] = "1"
    os.execvp(unshare[0], [*unshare, sys.executable, "-B", os.path.abspath(__file__)])


def room():
    found = os.statvfs(DISK)
    return found.f_bavail * found.f_frsize


def fill():
    """Leaves no page of the disk free."""
    with open(BALLAST, "ab", buffering=0) as file:
        for size in (MEGABYTE, 4096):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    equal(room(), 0, "bytes left on the full disk")


def free():
    os.unlink(BALLAST)


def full(instance):
    """The status, once it says that the disk is full; what was freed meanwhile is taken at once."""
    if room() > 0:
        fill()
    status = instance.status()
    return status if status and "disk full" in (status["store"]["error"] or "") else None


def wait_full(instance, when):
    return wait_for(lambda: full(instance), lambda: "status to say that the disk is full %s; its log: %s" %
                    (when, instance.log_text()[-1500:]))


def wait_well(instance):
    wait_for(lambda: instance.status()["health"] == "ok", lambda: "health ok again; status: %s" % instance.status())


class Pipe:
    """An instance whose store is on the small disk, and nothing else; two stages, the first behind a gate."""

    def __init__(self, name, body=""):
        self.gate = Gate(name + "-gate")
        self.lines = os.path.join(DIRECTORY, name + "-lines")
        append(self.lines)
        self.path, self.count = os.path.join(DISK, name), 0
        os.mkdir(self.path)
        self.instance = Instance("-" + name, "sqlite:" + os.path.join(self.path, "store.db"))
        self.instance.database = os.path.join(self.path, "store.db")
        script, self.calls = python_stage(name + "-first", self.gate.body + body)
        # It is wrong about its event or the context unless both are as they were stored.
        again, self.calls_again = python_stage(name + "-second", """\
    ours = context.get("fill")
    answer = {"processed": True} if ours is None or ours == (event["uid"] + " ") * (len(ours) // (len(event["uid"]) + 1)) \\
        and len(event["payload"]["text"]) >= 1 else {"reject": "not as it was stored"}
""")
        self.instance.configure(file_source("lines", self.lines, {"name": "first", "exec": [script], "timeout": "0"},
                                            {"name": "second", "exec": [again], "timeout": "0"}), "drain_timeout: 3s")

    def add(self, count, bytes):
        append(self.lines, *({"id": "e-%05d" % (self.count + i), "text": "x" * bytes} for i in range(count)))
        self.count += count

    def started(self):
        self.instance.start()
        return self.instance

    def pids(self):
        return sorted(self.instance.workers() + self.instance.producers())

    def end(self, repeated=False):
        """Every event went through both stages; once, unless a stop or a kill came between."""
        self.instance.wait_empty(self.count)
        wait_well(self.instance)
        for calls, stage in ((self.calls, "first"), (self.calls_again, "second")):
            times = times_called(calls)
            equal(len(times), self.count, "events seen by the %s stage" % stage)
            if not repeated:
                equal(sum(times.values()), self.count, "calls of the %s stage" % stage)
        equal(self.instance.query("SELECT fetched, duplicates, completed, live, dead FROM source"),
              [(self.count, 0, self.count, 0, 0)], "fetched, duplicates, completed, live, dead")
        self.instance.stop()
        done = self.instance.run("check")
        equal((done.returncode, done.stdout), (0, ""), "check: " + done.stderr)
        shutil.rmtree(self.path)


GROW = """\
    answer["context"] = {"fill": (event["uid"] + " ") * (%d // (len(event["uid"]) + 1))}
""" % CONTEXT_BYTES


def while_fetching():
    pipe = Pipe("fetching")
    instance = pipe.started()
    pids = pipe.pids()
    fill()
    pipe.add(4000, 3000)
    status = wait_full(instance, "while fetching")
    equal(status["health"], "degraded", "health while the disk is full")
    check(any("disk full" in reason for reason in status["reasons"]), "among the reasons: %s" % status["reasons"])
    text = instance.run("status")
    equal(text.returncode, 1, "exit status of status")
    stored, = instance.query("SELECT fetched, (SELECT count(*) FROM event) FROM source")
    check(stored[0] < pipe.count, "not all of it found room: %d" % stored[0])
    equal(stored[0], stored[1], "what counts as fetched, and what is stored")
    check(instance.source()["fetched"] <= stored[0], "nothing counts as fetched before it is stored")
    free()
    instance.wait_source(lambda s: s["fetched"] == pipe.count, "fetching to go on by itself")
    pipe.gate.open()
    instance.wait_empty(pipe.count)
    equal(pipe.pids(), pids, "no process crashed over it")
    check("store-unavailable" in instance.log_text() and "store-recovered" in instance.log_text(), "the log tells both")
    pipe.end()


def while_committing():
    pipe = Pipe("committing", GROW)
    instance = pipe.started()
    pids = pipe.pids()
    pipe.add(300, 100)
    instance.wait_source(lambda s: s["fetched"] == pipe.count, "the events to be stored")
    fill()
    pipe.gate.open()
    wait_full(instance, "while committing")
    done = instance.query("SELECT processed FROM stage WHERE name = 'first'")[0][0]
    check(done < pipe.count, "not every answer found room: %d" % done)
    check(len(pipe.calls_again()) <= done, "no event goes on before its answer is stored")
    free()
    instance.wait_empty(pipe.count)
    equal(pipe.pids(), pids, "no process crashed over it")
    pipe.end()


def while_moving_the_wal():
    """What is committed stands in the log only; it cannot be moved. A kill of all does not change that."""
    pipe = Pipe("moving")
    instance = pipe.started()
    reader = sqlite3.connect("file:%s?mode=ro" % instance.database, uri=True, timeout=PATIENCE, isolation_level=None)
    with contextlib.closing(reader):
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM source").fetchone()  # holds the log as it is
        pipe.add(3000, 3000)
        instance.wait_source(lambda s: s["fetched"] == pipe.count, "the events to be stored")
        size = os.path.getsize(instance.database)
        fill()
    pipe.add(3000, 3000)  # so that somebody wants to write, and to move
    wait_full(instance, "while moving the WAL")
    instance.kill()
    check(os.path.getsize(instance.database) < size + 9 * MEGABYTE, "the WAL was not moved")
    equal(instance.query("SELECT fetched, (SELECT count(*) FROM event) FROM source"), [(3000, 3000)],
          "what was acknowledged is there")
    pipe.gate.open()
    instance.start(wait=False)
    wait_full(instance, "after the kill")
    free()
    pipe.end(repeated=True)


def at_the_stop():
    """Answers that find no room at the stop are not stored, and nothing else is lost by that."""
    pipe = Pipe("stop", GROW)
    instance = pipe.started()
    pipe.add(200, 100)
    instance.wait_source(lambda s: s["fetched"] == pipe.count, "the events to be stored")
    fill()
    pipe.gate.open()
    wait_full(instance, "before the stop")
    instance.daemon.send_signal(signal.SIGTERM)
    equal(instance.daemon.wait(PATIENCE), 0, "exit status of a stop on a full disk")
    instance.daemon = None
    equal(instance.query("SELECT fetched, live FROM source"), [(200, 200)], "fetched and live after the stop")

    # And the start finds it as full; not even the lock file finds more room than it has.
    fill()
    instance.start(wait=False)
    status = wait_full(instance, "at the start")
    equal(status["phase"], "starting", "phase")
    equal(status["health"] == "ok", False, "well on a full disk")
    equal(instance.daemon.poll(), None, "exit status of a daemon that waits")
    free()
    pipe.end(repeated=True)


def at_the_first_start():
    """There is no store yet, and no room for one."""
    pipe = Pipe("first")
    pipe.gate.open()
    pipe.add(10, 100)
    fill()
    pipe.instance.start(wait=False)
    status = wait_full(pipe.instance, "at the first start")
    equal(status["phase"], "starting", "phase")
    free()
    pipe.end()


def beside_room_in_the_store():
    """The disk is full, the store's own file has room: a WAL too short to be moved is moved all the same, and work
    goes on."""
    pipe = Pipe("inside")
    pipe.gate.open()
    pipe.add(4000, 3000)
    instance = pipe.started()
    instance.wait_empty(pipe.count)
    instance.stop()  # now all is in the main file, most of which is free, and there is no WAL
    instance.start()
    pipe.add(300, 100)
    instance.wait_empty(pipe.count)
    wal = os.path.getsize(instance.database + "-wal")
    fill()
    pipe.add(3000, 300)
    instance.wait_empty(pipe.count)
    check(os.path.getsize(instance.database + "-wal") < wal + 4096, "the WAL took no more of the disk")
    free()
    pipe.end()


def main():
    subprocess.run(MOUNT, check=True)
    for part in (while_fetching, while_committing, while_moving_the_wal, at_the_stop, at_the_first_start,
                 beside_room_in_the_store):
        part()
        print(part.__name__.replace("_", " "))
    finish()


if HIDDEN in os.environ:
    main()
else:
    hide()
