# SPDX-License-Identifier: MIT
"""What the system tests share: an instance in a directory of its own, run and looked at from outside.

A test imports this, writes a configuration, starts the programs as a user would, waits for conditions (never for a time),
and ends with `finish()`. Every process it starts is in the test's process group and is gone when the test is.
"""
import atexit
import collections
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request

SOURCE = os.environ.get("top_srcdir", os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..")))
BUILD = os.environ.get("top_builddir", SOURCE)
DIRECTORY = os.environ.get("TEST_TMPDIR") or os.getcwd()
NAME = os.environ.get("TEST_INSTANCE", "test-%d" % os.getpid())
SHARED = os.path.join(SOURCE, "..", "shared")
EXAMPLES = os.path.join(SOURCE, "contrib", "examples")
CHAOS = os.path.join(SOURCE, "contrib", "chaos")  # the helper program of `eventpipe chaos`, and its modules
PLUGINS = os.path.join(BUILD, "contrib", "examples")
SKIP = 77  # automake's word for a test that could not run here
# Seconds for a condition that must come; only a broken program waits so long.
PATIENCE = float(os.environ.get("TEST_PATIENCE", "120"))
for proxy in ("http_proxy", "all_proxy", "ALL_PROXY"):  # feeds and collectors are on this machine
    os.environ.pop(proxy, None)

checks = 0


def told_to_stop(*_):
    """The time limit of tests/run: cleans up like any failure, and the traceback says what was waited for."""
    raise TimeoutError("told to stop")


signal.signal(signal.SIGTERM, told_to_stop)


def check(condition, message):
    """One thing that must be so."""
    global checks
    checks += 1
    if not condition:
        raise AssertionError(message)


def equal(found, expected, what):
    check(found == expected, "%s: expected %r, found %r" % (what, expected, found))


def skip(message):
    print("skipped: " + message)
    sys.exit(SKIP)


def wait_for(condition, what, seconds=PATIENCE):
    """Asks until the condition gives something true, and gives that back."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError("waited %.0f s in vain for: %s" % (seconds, what() if callable(what) else what))
        time.sleep(0.02)  # between two looks at a condition


def unreadable(value):
    return json.dumps(value, indent=1)[:4000]


class Instance:
    """One daemon with its configuration, store and socket in a directory of its own."""

    def __init__(self, suffix="", store=None):
        self.name = NAME + suffix
        self.directory = os.path.join(DIRECTORY, "instance" + suffix)
        os.makedirs(self.directory, exist_ok=True)
        self.config = os.path.join(self.directory, "config.yaml")
        self.database = os.path.join(self.directory, "store.db")
        self.storage = store or "sqlite:" + self.database
        self.socket = os.path.join(self.directory, "control.sock")
        self.log = os.path.join(self.directory, "log")
        self.daemon = None
        atexit.register(self.kill)

    def configure(self, sources, extra=""):
        """sources: YAML text of the list under `sources:`, from column 0."""
        with open(self.config, "w") as file:
            file.write("instance: %s\nstorage: %s\ncontrol: %s\n%s\nsources:\n" % (self.name, self.storage, self.socket, extra))
            for line in sources.strip("\n").split("\n"):
                file.write("  " + line + "\n")

    def start(self, wait=True, environment=None, prefix=()):
        """prefix: a command that becomes the daemon, such as setpriv."""
        log = open(self.log, "ab")
        self.daemon = subprocess.Popen([*prefix, os.path.join(BUILD, "eventpiped"), "-c", self.config], stdin=subprocess.DEVNULL,
                                       stdout=log, stderr=log, env=dict(os.environ, **(environment or {})))
        log.close()
        if wait:
            wait_for(self.up, lambda: "the daemon to be up; its log: " + self.log_text()[-2000:])
        return self.daemon

    def up(self):
        """Whether every process of it has been at work once."""
        if self.daemon.poll() is not None:
            raise AssertionError("the daemon ended with %d: %s" % (self.daemon.returncode, self.log_text()[-2000:]))
        status = self.status()
        if not status or status["health"] == "down":
            return None
        for source in status["sources"]:
            workers = [worker for stage in source["stages"] for worker in stage["workers"]]
            if not source["producer"]["pid"] or any(not w["pid"] or w["state"] == "starting" for w in workers):
                return None
        return status

    def log_text(self):
        try:
            with open(self.log, errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def run(self, *arguments, stdin=None):
        """eventpipe -c CONFIG ARGUMENTS: the completed process, with texts."""
        return subprocess.run([os.path.join(BUILD, "eventpipe"), "-c", self.config, *arguments], input=stdin,
                              stdin=subprocess.DEVNULL if stdin is None else None, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=PATIENCE)

    def lines(self, *arguments, code=0, stdin=None):
        """The JSON lines a command prints."""
        done = self.run(*arguments, "--json", stdin=stdin)
        check(done.returncode == code, "%s: exit %d, expected %d: %s" % (arguments, done.returncode, code, done.stderr))
        return [json.loads(line) for line in done.stdout.splitlines()]

    def status(self):
        done = self.run("status", "--json")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def source(self, id=None):
        status = self.status()
        if not status:
            return None
        return next((s for s in status["sources"] if id is None or s["id"] == id), None)

    def stage(self, name, source=None):
        found = self.source(source)
        return next((stage for stage in found["stages"] if stage["name"] == name), None) if found else None

    def workers(self, source=None):
        """Pids of the living workers of all its sources."""
        status = self.status()
        return [worker["pid"] for s in (status["sources"] if status else []) if source is None or s["id"] == source
                for stage in s["stages"] for worker in stage["workers"] if worker["pid"]]

    def producers(self):
        status = self.status()
        return [s["producer"]["pid"] for s in (status["sources"] if status else []) if s["producer"]["pid"]]

    def wait_source(self, condition, what, id=None, seconds=PATIENCE):
        """Waits until the source's part of the status satisfies the condition."""
        last = {}

        def look():
            found = self.source(id)
            last["status"] = found
            return found if found and condition(found) else None
        return wait_for(look, lambda: what + "; status: " + unreadable(last.get("status")), seconds)

    def wait_empty(self, fetched, id=None, seconds=PATIENCE):
        """Waits until so many events were fetched and none is left that is not dead or held."""
        return self.wait_source(lambda s: s["fetched"] >= fetched and s["ready"] + s["running"] + s["delayed"] == 0,
                                "%d events fetched and none left" % fetched, id, seconds)

    def stop(self, code=0):
        """Ends the daemon gracefully."""
        self.daemon.send_signal(signal.SIGTERM)
        self.daemon.wait(PATIENCE)
        equal(self.daemon.returncode, code, "exit status of the daemon")
        self.daemon = None

    def kill(self):
        """Kills the daemon; its instance goes with it."""
        if self.daemon and self.daemon.poll() is None:
            self.daemon.kill()
            self.daemon.wait(PATIENCE)
        self.daemon = None
        self.forget_segment()

    def forget_segment(self):
        try:
            os.unlink("/dev/shm/eventpipe-" + self.name)
        except FileNotFoundError:
            pass

    def query(self, sql, *arguments):
        """Rows of the store, read beside the daemon."""
        connection = sqlite3.connect("file:%s?mode=ro" % self.database, uri=True, timeout=10)
        with contextlib.closing(connection) as database:  # at once: an open one keeps the daemon from tidying up
            return database.execute(sql, arguments).fetchall()


class Helper:
    """A helper program (feed_server.py, collector.py): prints its port, ends when its stdin closes."""

    def __init__(self, script, *arguments):
        self.process = subprocess.Popen([sys.executable, "-B", os.path.join(SOURCE, "tests", "system", script), *arguments],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().split()[-1])
        atexit.register(self.close)

    def url(self, path=""):
        return "http://127.0.0.1:%d%s" % (self.port, path)

    def ask(self, path, body=None):
        """What it answers, read as JSON; None for nothing. With a body: POST."""
        with urllib.request.urlopen(self.url(path), None if body is None else body.encode(), PATIENCE) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait(PATIENCE)


def script(name, text):
    """An executable file in the test's directory."""
    path = os.path.join(DIRECTORY, name)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, 0o755)
    return path


# A stage in Python for tests: BODY sets `answer` from `event`, `context`, `attempt`, `key`; every call is written to a
# witness file before BODY runs and after it has answered.
STAGE = """#!/usr/bin/env python3
import json, os, sys, time, signal
def witness(*words):
    fd = os.open({witness!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, (json.dumps(words) + "\\n").encode())
    os.close(fd)
for line in sys.stdin:
    call = json.loads(line)
    event, context, attempt, key = call["event"], call["context"], call["attempt"], call["key"]
    witness("call", event["uid"], attempt, os.getpid())
    answer = {{"processed": True}}
{body}
    print(json.dumps(answer), flush=True)
"""


# ---- configurations made of Python values: JSON is YAML, too ----

def file_source(id, path, *stages, **keys):
    """A file source as YAML; its lines are JSON with the event's `id`, and maybe `address` and `type`."""
    return "- " + json.dumps(dict({"id": id, "type": "file", "path": path, "uid": "/id", "address": "/address",
                                   "event_type": "/type", "stages": list(stages)}, **keys))


def feed_source(id, feed, *stages, **keys):
    """An http source as YAML that reads feed_server.py: uid and cursor are the numbers of its events, from 1."""
    return "- " + json.dumps(dict({"id": id, "type": "http", "cursor": {"last_event_path": "/id", "initial": "0"}, "uid": "/id",
                                   "url": feed.url("/array?since={cursor}&limit={limit}&timeout={timeout}"),
                                   "stages": list(stages)}, **keys))


def append(path, *events):
    """Adds events, one line each, to what a file source follows."""
    with open(path, "a") as file:
        file.write("".join((event if isinstance(event, str) else json.dumps(event)) + "\n" for event in events))


def alive(pid):
    """Whether the process runs (a zombie does not)."""
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


OTHER_USER, OTHER_GROUP = "54321", "54322"  # IDs that nothing else on a machine has
AS_OTHER = {"user": int(OTHER_USER), "group": int(OTHER_GROUP), "extra_groups": [], "cwd": "/"}  # for subprocess


def can_as_other(*command):
    """Whether OTHER_USER can run it, and we may run anything as others: not every root may, in a container."""
    try:
        return os.geteuid() == 0 and subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                                    **AS_OTHER).returncode == 0
    except OSError:
        return False


def python_as_other():
    """A Python that OTHER_USER can run, or None."""
    return next((path for path in (sys.executable, "/usr/bin/python3") if can_as_other(path, "-c", "import json, subprocess")), None)


class Gate:
    """Holds stages up until it is opened: its `body` goes into the BODY of a stage."""

    def __init__(self, name="gate"):
        self.path = os.path.join(DIRECTORY, name)
        self.body = "    while not os.path.exists(%r): time.sleep(0.01)\n" % self.path

    def open(self):
        with open(self.path, "w"):
            pass

    def close(self):
        os.unlink(self.path)


def times_called(calls):
    """How often a stage was called for each uid."""
    return collections.Counter(call[1] for call in calls() if call[0] == "call")


def python_stage(name, body="    pass"):
    """Path of a stage script, and a function that reads what its calls left in the witness file."""
    witness = os.path.join(DIRECTORY, name + ".witness")
    path = script(name + ".py", STAGE.format(witness=witness, body=body))

    def calls():
        try:
            with open(witness) as file:
                return [json.loads(line) for line in file.read().rpartition("\n")[0].splitlines()]
        except FileNotFoundError:
            return []
    return path, calls


def finish():
    print("%d checks passed" % checks)
