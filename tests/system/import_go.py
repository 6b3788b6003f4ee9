#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`eventpipe import`: a database of the Go eventpipe, left by a crash, goes on where it was.

Each event enters at exactly the stage where the original left it, with its context; no stage that was done runs again.
A dry run changes nothing; again, there is nothing to import, also when all events have been processed since; while the
daemon runs it is refused. With a database made here, whose writer was killed, and with the one in ../shared where that is.
"""
import base64
import hashlib
import json
import os
import signal
import sqlite3
import struct
import subprocess

from harness import BUILD, DIRECTORY, PATIENCE, SHARED, Instance, check, equal, finish, python_stage, times_called, wait_for

ORIGINAL = os.path.join(SHARED, "idefix", "go-eventpipe.db")
STAGES = ("enrich", "route", "deliver")
NUMBERS = [n for n in range(40) if n % 4]  # every fourth was removed by route
BODY = '''
    witness("saw", event["uid"], context, event.get("payload"), event.get("payload:b64"))
    context.setdefault("passed", []).append(%r)
    answer["context"] = context
'''


def pack(value):
    """MessagePack, as far as it is needed here."""
    if value is None or value is True or value is False:
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, int):
        return b"\xcf" + struct.pack(">Q", value) if value >= 0 else b"\xd3" + struct.pack(">q", value)
    if isinstance(value, (str, bytes)):
        data = value if isinstance(value, bytes) else value.encode()
        return (b"\xc6" if isinstance(value, bytes) else b"\xdb") + struct.pack(">I", len(data)) + data
    if isinstance(value, list):
        return b"\xdd" + struct.pack(">I", len(value)) + b"".join(pack(element) for element in value)
    return b"\xdf" + struct.pack(">I", len(value)) + b"".join(pack(k) + pack(v) for k, v in value.items())


def uid(n):
    return "go-%03d" % n


def payload(n):
    return bytes([n, 0, 255]) if n % 10 == 9 else {"temp": 20.5 + n / 10, "seq": n}


def context(n, raw):
    """What the stage before left; raw: as in the file, otherwise as JSON shows it."""
    made = {"enriched": {"k": [1, 2.5, "x", None, True, b"\x01\x02" if raw else "AQI="], "uid": uid(n)}}
    return dict(made, tries=1) if n % 4 == 1 else made


def fill(path):
    """Writes rows as the original does, in no order, and is killed with a write-ahead log and a transaction open."""
    database = sqlite3.connect(path, isolation_level=None)
    database.executescript("""
        PRAGMA journal_mode = WAL;
        CREATE TABLE sources (id TEXT PRIMARY KEY, cursor TEXT NOT NULL);
        CREATE TABLE items (source_id TEXT NOT NULL, id TEXT NOT NULL, data BLOB NOT NULL, context BLOB,
            locked BOOLEAN NOT NULL DEFAULT 0, order_index INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (source_id, id),
            FOREIGN KEY (source_id) REFERENCES sources(id) ON DELETE CASCADE);
        CREATE INDEX idx_items_order ON items(source_id, order_index);
        PRAGMA user_version = 1;
        INSERT INTO sources VALUES('acme-events', 'cursor-40');""")
    done = {1: {"enrich": True, "route": False}, 2: {"enrich": True}, 3: {"deliver": False, "route": True, "enrich": True}}
    for n in sorted(NUMBERS, key=lambda n: n * 7 % 40):
        event = {"uid": uid(n), "domain": "acme", "address": "device-%03d" % (n % 4), "sourceId": "probe", "type": "t",
                 "meta": {"n": n, "big": 2 ** 63 + n}, "payload": payload(n), "timestamp": "2026-01-02T03:04:%02dZ" % n}
        database.execute("INSERT INTO items VALUES('acme-events', ?, ?, ?, 1, ?)",
                         (uid(n), pack(event), pack({"pipelineContext": context(n, True), "processedStages": done[n % 4]}), n + 1))
    database.execute("BEGIN")
    database.execute("DELETE FROM items")  # never committed
    os.kill(os.getpid(), signal.SIGKILL)


def make(path):
    pid = os.fork()
    if pid == 0:
        fill(path)
    equal(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), -signal.SIGKILL, "end of the writer")
    check(os.path.getsize(path + "-wal") > 0, "there is a log")


def fingerprint(path):
    """Every file of the directory: name, size, time, bytes."""
    directory = os.path.dirname(path)
    found = {}
    for name in sorted(os.listdir(directory)):
        file = os.path.join(directory, name)
        if os.path.isfile(file):
            with open(file, "rb") as opened:
                found[name] = os.stat(file).st_mtime_ns, hashlib.sha256(opened.read()).hexdigest()
    return found


def scenario(name, path, locked):
    stages = {stage: python_stage("%s-%s" % (name, stage), BODY % stage) for stage in STAGES}
    instance = Instance("-" + name)
    # A source of another type: that it cannot make sense of the cursor does not hold up what is in the store.
    instance.configure("- " + json.dumps({"id": "acme-events", "type": "generate", "count": 1, "stages": [
        {"name": stage, "exec": [stages[stage][0]], "concurrency": 2} for stage in STAGES]}))
    temporary = os.path.join(DIRECTORY, name + "-tmp")
    os.mkdir(temporary)
    os.environ["TMPDIR"] = temporary
    before = fingerprint(path)
    counts = [{"name": "enrich", "events": 0}, {"name": "route", "events": 20}, {"name": "deliver", "events": 10}]
    account = {"source": "acme-events", "from": "acme-events", "dry_run": True, "imported": 30, "known": 0, "corrupt": 0,
               "locked": locked, "cursor": "cursor-40", "cursor_set": True, "stages": counts, "unknown_stages": [],
               "complete": 0, "other_uids": 0}

    # A dry run: no store, no lock, nothing beside the file.
    own = sorted(os.listdir(instance.directory))
    equal(instance.lines("import", path, "--dry-run"), [account], "dry run, as JSON")
    done = instance.run("import", path, "--dry-run")
    equal((done.returncode, done.stderr), (0, ""), "dry run")
    equal(done.stdout, "acme-events: 30 events would be imported, 0 already known, 0 corrupt, %d were locked\n"
                       "  cursor: would be set to cursor-40\n"
                       "  route: 20 events would go on here\n"
                       "  deliver: 10 events would go on here\n" % locked, "dry run, as text")
    equal(sorted(os.listdir(instance.directory)), own, "files of the instance after a dry run")

    done = instance.run("import", path)
    equal((done.returncode, done.stderr), (0, ""), "import")
    equal(done.stdout, "acme-events: 30 events imported, 0 already known, 0 corrupt, %d were locked\n"
                       "  cursor: set to cursor-40\n"
                       "  route: 20 events go on here\n"
                       "  deliver: 10 events go on here\n" % locked, "import, as text")
    equal(instance.run("cursor", "acme-events").stdout, "cursor-40\n", "cursor")
    queue = instance.lines("queue")
    equal([event["uid"] for event in queue], [uid(n) for n in NUMBERS], "events in the original's order")
    equal({event["uid"]: (event["stage"], event["state"]) for event in queue},
          {uid(n): ("deliver" if n % 4 == 3 else "route", "ready") for n in NUMBERS}, "where they wait")
    check("sound" in instance.run("check").stderr, "the store is sound")

    again = dict(account, imported=0, known=30, locked=0, cursor_set=False,
                 stages=[{"name": stage, "events": 0} for stage in STAGES])
    equal(instance.lines("import", path, "--dry-run"), [again], "a second dry run")
    equal(instance.lines("import", path), [dict(again, dry_run=False)], "a second import")
    equal(len(instance.lines("queue")), 30, "events after it")
    refused(instance, path)
    if path != ORIGINAL:
        stopped(instance, temporary)

    # All goes through the stages that were not done, in each of them once.
    instance.start()
    done = instance.run("import", path)
    equal((done.returncode, done.stdout), (1, ""), "import while the daemon runs")
    for word in ("stop the daemon first", "pid %d" % instance.daemon.pid, instance.name, instance.database):
        check(word in done.stderr, "%r is not said: %s" % (word, done.stderr))
    equal(instance.run("import", path, "--dry-run").returncode, 1, "dry run while the daemon runs")
    wait_for(lambda: instance.query("SELECT completed, live FROM source") == [(30, 0)], "all events to be done")
    equal(instance.run("cursor", "acme-events").stdout, "cursor-40\n", "cursor afterwards")
    instance.stop()
    entered = {"enrich": [], "route": [n for n in NUMBERS if n % 4 != 3], "deliver": NUMBERS}
    for stage in STAGES:
        calls = stages[stage][1]
        equal(dict(times_called(calls)), {uid(n): 1 for n in entered[stage]}, "calls at " + stage)
        saw = {call[1]: call[2:] for call in calls() if call[0] == "saw"}
        for n in entered[stage]:
            passed = {"passed": ["route"]} if stage == "deliver" and n % 4 != 3 else {}
            data = payload(n)
            raw = base64.b64encode(data).decode() if isinstance(data, bytes) else None
            equal(saw[uid(n)], [dict(context(n, False), **passed), None if raw else data, raw],
                  "context and payload of %s at %s" % (uid(n), stage))

    # They are gone; still none comes again.
    equal(instance.query("SELECT fetched, injected, completed, live FROM source"), [(30, 30, 30, 0)], "totals")
    equal(instance.lines("import", path), [dict(again, dry_run=False)], "an import after all is done")
    equal(instance.query("SELECT fetched, live FROM source"), [(30, 0)], "totals after it")
    equal(fingerprint(path), before, "the original and its directory")
    equal(os.listdir(temporary), [], "what is left in TMPDIR")
    instance.forget_segment()


def stopped(instance, temporary):
    """Told to end while it makes its copy, it leaves none behind."""
    path = os.path.join(DIRECTORY, "large")
    with open(path, "wb") as file:
        file.truncate(200 << 20)
    for _ in range(50):  # a fast machine may be done before the signal comes
        running = subprocess.Popen([os.path.join(BUILD, "eventpipe"), "-c", instance.config, "import", path],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for(lambda: os.listdir(temporary) or running.poll() is not None, "the copy to be begun")
        running.terminate()
        running.communicate(timeout=PATIENCE)
        equal(os.listdir(temporary), [], "what is left in TMPDIR after SIGTERM")
        if running.returncode == -signal.SIGTERM:
            break
        equal(running.returncode, 1, "exit status of one that was done before")
    equal(running.returncode, -signal.SIGTERM, "end of an import that was told to end")
    os.unlink(path)


def refused(instance, path):
    """What cannot be imported is not, and said in a message with the exit status of the manual page."""
    rows = instance.query("SELECT * FROM event")

    def expect(code, message, *arguments):
        done = instance.run("import", *arguments)
        equal((done.returncode, done.stdout), (code, ""), "import %s: %s" % (arguments, done.stderr))
        check(message in done.stderr, "%r is not said: %s" % (message, done.stderr))
    expect(1, "No such file", path + ".no")
    expect(1, "not an SQLite database", instance.config)
    expect(1, "a database of another program", instance.database)
    expect(4, 'no source "nobody"; it has acme-events', path, "--source", "nobody")
    expect(1, 'no source "nobody"; it has acme-events', path, "--as", "nobody")
    expect(2, "expected FILE")
    equal(instance.query("SELECT * FROM event"), rows, "events after what was refused")
    memory = Instance("-memory", store='"memory:"')
    memory.configure('- {"id": "acme-events", "type": "generate", "count": 1, "stages": [{"name": "a", "exec": ["cat"]}]}')
    done = memory.run("import", path)
    check(done.returncode == 1 and "is lost when the daemon ends" in done.stderr, "import into memory: %r" % done)
    # Another name here than there; and a chain that lacks stages of the file.
    other = Instance("-as-" + os.path.basename(instance.directory))
    other.configure('- {"id": "mine", "type": "generate", "count": 1, "stages": [{"name": "route", "exec": ["cat"]}]}')
    done = other.run("import", path)
    check(done.returncode == 1 and 'no source "acme-events"; it has mine' in done.stderr, "import: %r" % done)
    check(not os.path.exists(other.database), "no store is made for it")
    done = other.run("import", path, "--as", "mine")
    equal(done.returncode, 0, "import --as: " + done.stderr)
    for message in ("mine (acme-events in the file): 30 events imported", "route: 20 events", "all stages done: 10 events",
                  'no stage "enrich", which 30 events have done and 0 have not',
                  'no stage "deliver", which 0 events have done and 10 have not'):
        check(message in done.stdout, "%r is not said: %s" % (message, done.stdout))


def main():
    directory = os.path.join(DIRECTORY, "go")
    os.mkdir(directory)
    path = os.path.join(directory, "eventpipe.db")
    make(path)
    scenario("made", path, len(NUMBERS))
    if os.path.exists(ORIGINAL):
        scenario("original", ORIGINAL, 26)
    else:
        print("not tried: %s is not there" % ORIGINAL)
    finish()


main()
