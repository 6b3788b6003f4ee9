# SPDX-License-Identifier: MIT
"""A page of the store is damaged, one of each kind in turn. `check` finds it; `queue` lists all events that do not stand
on it, one object a line, and says what could not be read; `show` finds a whole event, also where the index of UIDs is what
is damaged; the daemon, started on it, says what is wrong in log and status, and loses nothing that is whole."""
import collections
import contextlib
import json
import os
import shutil
import sqlite3

from harness import (DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, skip, times_called,
                     wait_for)

PAGE = 4096
RUBBISH = b"\xa5" * PAGE
COUNTS = {"new": 120, "passed": 120, "delayed": 150, "held": 120, "dead": 120}
PLACES = {kind: ("event", "progress" if kind in ("new", "passed") else "suspended") for kind in COUNTS}
STATES = {"new": "ready", "passed": "ready", "delayed": "delayed", "held": "held", "dead": "dead"}
# What the daemon is started on, too: the pages that its work comes across.
STARTED = {("event", "first leaf"), ("progress", "leaf"), ("suspended", "leaf"), ("event_uid", "leaf"),
           ("event", "root"), ("progress", "root"), ("source", "leaf")}

Case = collections.namedtuple("Case", "table kind page events")  # events: the numbers of those that stand on it


def varint(page, at):
    value = 0
    for i in range(9):
        byte = page[at + i]
        if i == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7f
        if byte < 0x80:
            return value, at + i + 1
    return value, at


def rows_of(page):
    """The row numbers of a leaf page of a table."""
    count = int.from_bytes(page[3:5], "big")
    found = []
    for i in range(count):
        at = int.from_bytes(page[8 + 2 * i:10 + 2 * i], "big")
        found.append(varint(page, varint(page, at)[1])[0])
    return found


def cases_of(path):
    """A leaf in the middle and the root of every tree of the store that has both; else its only page. Of the events
    also the first leaf, on which stand events that are ready."""
    with contextlib.closing(sqlite3.connect("file:%s?mode=ro" % path, uri=True)) as database:
        try:
            pages = database.execute("SELECT name, path, pageno, pagetype FROM dbstat ORDER BY name, path").fetchall()
        except sqlite3.OperationalError as error:
            skip("this SQLite does not tell which page is whose: %s" % error)
        tables = {name for name, in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    with open(path, "rb") as file:
        data = file.read()
    trees = collections.defaultdict(list)
    for name, place, number, kind in pages:
        trees[name].append((place, number, kind))
    for name, found in trees.items():
        leaves = [number for _, number, kind in found if kind == "leaf"]
        for kind, page in (("first leaf", leaves[0]), ("leaf", leaves[len(leaves) // 2])):
            content = data[(page - 1) * PAGE:page * PAGE]
            if kind == "leaf" or name == "event":
                yield Case(name, kind, page, set(rows_of(content)) if name in ("event", "progress", "suspended") else set())
        root = next(number for place, number, _ in found if place == "/")
        if root not in leaves:
            yield Case(name, "root", root, set())


def make_store(instance, lines):
    """A store with events in every state, two stages, contexts, and more than one page in every large tree."""
    instance.start()
    for kind in ("passed", "delayed", "held", "dead"):
        equal(instance.run("pause", "lines/second").returncode, 0, "pause")
        append(lines, *({"id": "%s-%03d-%s" % (kind, i, "u" * 60), "type": kind, "text": "x" * 300}
                        for i in range(COUNTS[kind])))
    asked = sum(COUNTS.values()) - COUNTS["new"]
    instance.wait_source(lambda s: s["fetched"] == asked and s["stages"][0]["answers"] == asked and
                         s["delayed"] == COUNTS["delayed"] + COUNTS["held"] and s["dead"] == COUNTS["dead"],
                         "the first stage to have answered all")
    equal(instance.run("hold", "--type", "held").returncode, 0, "hold")
    equal(instance.run("pause", "lines/first").returncode, 0, "pause")
    append(lines, *({"id": "new-%03d-%s" % (i, "u" * 60), "type": "new", "text": "x" * 300} for i in range(COUNTS["new"])))
    instance.wait_source(lambda s: s["fetched"] == asked + COUNTS["new"], "the new ones to be stored")
    instance.stop()
    found = instance.lines("queue")
    equal(collections.Counter((line["type"], line["state"]) for line in found),
          {(kind, STATES[kind]): count for kind, count in COUNTS.items()}, "what there is")
    seqs = dict(instance.query("SELECT uid, seq FROM event"))
    return {line["uid"]: dict(line, seq=seqs[line["uid"]]) for line in found}


def names_in(done):
    """The uids of a listing, each of whose lines must be an object of its own."""
    return [json.loads(line)["uid"] for line in done.stdout.splitlines()]


def look(instance, case, events):
    """Without the daemon: check, queue, show."""
    what = "%s of %s (page %d)" % (case.kind, case.table, case.page)
    done = instance.run("check")
    equal(done.returncode, 1, "check, with a damaged %s: %s" % (what, done.stderr))
    if case.table == "sqlite_schema":  # nothing is left to go by
        for command in ("check", "queue", "show"):
            done = instance.run(command, *(["e"] if command == "show" else []))
            equal(done.returncode, 1, "%s, with a damaged %s" % (command, what))
            check("store cannot be read: %s: not a database" % instance.database in done.stderr, "message: " + done.stderr)
        return set(events)
    check(all(line.startswith("store: ") for line in done.stdout.splitlines()) and
          any("age %d" % case.page in line for line in done.stdout.splitlines()), "what check says: " + done.stdout)
    lost = {uid for uid, event in events.items() if case.table in PLACES[event["type"]] and
            (case.kind == "root" or event["seq"] in case.events)}
    if case.kind != "root" and case.table in ("event", "progress", "suspended"):
        check(0 < len(lost) < 40, "what stands on the %s: %d" % (what, len(lost)))
    for selectors, wanted in (((), set(events)), (("--state", "dead"), {u for u in events if u.startswith("dead")})):
        done = instance.run("queue", "--json", *selectors)
        found = names_in(done)
        equal(len(found), len(set(found)), "events listed twice")
        equal(set(found) ^ (wanted - lost), set(), "what queue %s does not tell, with a damaged %s" % (selectors, what))
        if wanted & lost or not lost:  # else: whether what it could not read was wanted, it may not know
            equal(done.returncode, 1 if lost else 0, "exit status of queue %s: %s" % (selectors, done.stderr))
        if wanted & lost:
            check("the file is damaged" in done.stderr and "cannot be read" in done.stderr, "message: " + done.stderr)
    for kind in COUNTS:
        uid = next((u for u in events if u.startswith(kind) and u not in lost), None)
        if uid:
            shown = instance.run("show", "--json", uid)
            equal(shown.returncode, 0, "show %s with a damaged %s: %s" % (uid, what, shown.stderr))
            equal((json.loads(shown.stdout)["uid"], json.loads(shown.stdout)["event"]["payload"]["text"]), (uid, "x" * 300),
                  "what show tells")
    if lost:
        equal(instance.run("show", min(lost)).returncode, 1, "show of what is damaged")
    return lost


def start(instance, case, events, lost, seen):
    """With the daemon: it says what is wrong where it comes across it, and nothing else is lost."""
    before = len(instance.log_text())
    called = times_called(seen)

    def decided():
        if instance.daemon.poll() is not None:
            return "ended"
        status = instance.status() or {}
        if any("damaged" in reason for reason in status.get("reasons", [])):
            return "told"
        source = (status.get("sources") or [None])[0]
        return source and status["phase"] == "running" and source["fetched"] and source["ready"] + source["running"] == 0
    instance.start(wait=False)
    came_to = wait_for(decided, lambda: "the daemon to say what is wrong; status: %s" % instance.status())
    message = instance.log_text()[before:]
    if came_to == "ended":
        equal(instance.daemon.returncode, 1, "exit status on a damaged %s" % case.table)
        instance.daemon = None
    if came_to is not True:
        check("the file is damaged" in message, "the log says so: " + message[-1000:])
        check(message.count("the file is damaged") < 60,
              "it does not try again and again: %d lines" % len(message.splitlines()))
    if came_to == "told":
        # Between two pauses the process is there again for a moment.
        text = wait_for(lambda: (lambda done: "the file is damaged" in done.stdout and done)(instance.run("status")),
                        "the text of status to say so")
        equal(text.returncode, 1, "exit status of status")
    if instance.daemon:
        instance.stop()
    if case.table == "source":
        return came_to
    done = instance.run("queue", "--json")
    gone = set(events) - lost - set(names_in(done)) - set((times_called(seen) - called))
    equal(gone, set(), "whole events that are neither there nor through, with a damaged %s" % case.table)
    return came_to


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    append(lines)
    first, _ = python_stage("first", """\
    answer["context"] = {"fill": "y" * 200}
    kind = event["uid"].split("-")[0]
    if kind in ("delayed", "held"):
        answer = {"processed": False, "retry_after": "10h", "context": answer["context"]}
    if kind == "dead":
        answer = {"reject": "told to"}
""")
    second, second_calls = python_stage("second")
    instance.configure(file_source("lines", lines, {"name": "first", "exec": [first]}, {"name": "second", "exec": [second]}))
    events = make_store(instance, lines)
    sound = os.path.join(DIRECTORY, "sound.db")
    shutil.copy(instance.database, sound)
    came_to = {}
    for case in cases_of(sound):
        for suffix in ("-wal", "-shm"):  # of the copy before
            with contextlib.suppress(FileNotFoundError):
                os.unlink(instance.database + suffix)
        shutil.copy(sound, instance.database)
        with open(instance.database, "r+b") as file:
            file.seek((case.page - 1) * PAGE)
            file.write(RUBBISH)
        lost = look(instance, case, events)
        if (case.table, case.kind) in STARTED:
            came_to[case.table, case.kind] = start(instance, case, events, lost, second_calls)
    equal(set(came_to), STARTED, "pages that the daemon was started on")
    for place in (("progress", "leaf"), ("progress", "root"), ("event", "root"), ("event", "first leaf")):
        equal(came_to[place], "told", "what comes of a damaged %s of %s" % place[::-1])
    equal(came_to["source", "leaf"], "ended", "what comes of a damaged table of sources")
    finish()


main()
