# SPDX-License-Identifier: MIT
"""A store that another daemon holds, a newer or older version wrote, or that is no store of ours: the daemon refuses
to start, says why and who, and leaves the file as it is."""
import hashlib
import os
import shutil
import sqlite3

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage


def refused(instance, *message):
    """It ends with 1 and its log's last lines say so."""
    before = len(instance.log_text())
    daemon = instance.start(wait=False)
    equal(daemon.wait(60), 1, "exit status of a daemon that cannot start")
    log = instance.log_text()[before:]
    for word in message:
        check(word in log, "expected %r in the log: %s" % (word, log))
    check(not os.path.exists("/dev/shm/eventpipe-" + instance.name), "no segment is left")
    check(not os.path.exists(instance.socket), "no control socket is left")
    return log


def hash_of(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def main():
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("work")
    source = file_source("lines", lines, {"name": "work", "exec": [stage]})
    first, second = Instance("-a"), Instance("-b")
    first.configure(source)
    first.start()
    holder = first.daemon.pid

    # The same file by another name, too.
    alias = os.path.join(second.directory, "alias.db")
    os.symlink(first.database, alias)
    for path in (first.database, alias):
        second.storage = "sqlite:" + path
        second.configure(source)
        refused(second, "held by the process pid %d" % holder, "instance " + first.name,
                os.path.realpath(first.database))
    check(first.daemon.poll() is None, "the holder goes on")
    # Another store, but the same name or the same socket.
    namesake = Instance("-c")
    namesake.name = first.name
    namesake.configure(source)
    before = len(namesake.log_text())
    daemon = namesake.start(wait=False)
    equal(daemon.wait(60), 1, "exit status of a namesake")
    check("an instance named %s runs already (process %d" % (first.name, holder) in namesake.log_text()[before:],
          "it names the one that runs: " + namesake.log_text())
    namesake.daemon = None
    rival = Instance("-d")
    rival.socket = first.socket
    rival.configure(source)
    daemon = rival.start(wait=False)
    equal(daemon.wait(60), 1, "exit status of one with another's socket")
    check("another daemon listens there" in rival.log_text(), "it says so: " + rival.log_text())
    append(lines, {"id": "still"})
    first.wait_empty(1)
    check(os.path.exists(first.socket) and first.run("queue").returncode in (0, 4), "the first one is untouched")
    first.stop()

    # Versions: a newer one, and such as never were.
    second.storage = "sqlite:" + second.database
    second.configure(source)
    shutil.copy(first.database, second.database)
    for version, message in ((99, "written by a newer eventpipe (store version 99"),
                           (-3, "store version -3, which no eventpipe ever wrote"), (0, "store version 0,")):
        with sqlite3.connect(second.database) as database:
            database.execute("PRAGMA user_version = %d" % version)
        database.close()
        before = hash_of(second.database)
        refused(second, message, second.database)
        equal(hash_of(second.database), before, "the file of version %d is as it was" % version)
    with sqlite3.connect(second.database) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    done = second.run("status")
    check(done.returncode == 3 and "newer eventpipe" in done.stdout + done.stderr, "status says it, too: %r" % (done,))

    # Of another program; no database at all; a directory.
    os.unlink(second.database)
    with sqlite3.connect(second.database) as database:
        database.execute("CREATE TABLE recipes(name TEXT)")
        database.execute("INSERT INTO recipes VALUES('soup')")
    database.close()
    before = hash_of(second.database)
    refused(second, "a database of another program", second.database)
    equal(hash_of(second.database), before, "the foreign database is as it was")
    with open(second.database, "w") as file:
        file.write("Dear diary, this is no database.\n" * 100)
    before = hash_of(second.database)
    refused(second, second.database)
    equal(hash_of(second.database), before, "the diary is as it was")
    os.unlink(second.database)
    second.storage = "sqlite:" + os.path.join(second.directory, "nowhere", "store.db")
    second.configure(source)
    refused(second, "nowhere", "directory")

    # The store itself is well.
    append(lines, {"id": "more"})
    first.start()
    first.wait_empty(2)
    first.stop()
    equal(len(calls()), 2, "calls of the stage")
    finish()


main()
