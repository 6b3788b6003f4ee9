# SPDX-License-Identifier: MIT
"""`eventpipe check`: a sound store beside and without its daemon; a damaged one, found by both; a start on a store
that is damaged beyond use. (Configurations: config_refused.)"""
import os
import random

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, wait_for


def spoil_index(path):
    """Overwrites the leaf pages of the file but the first ones, as a bad disk would."""
    size = os.path.getsize(path)
    dice = random.Random(4711)
    with open(path, "r+b") as file:
        for page in range(12, size // 4096, 3):
            file.seek(page * 4096 + 8)
            file.write(bytes(dice.randrange(256) for _ in range(2000)))


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, _ = python_stage("later", '    answer = {"processed": False, "retry_after": "1h"}')
    instance.configure(file_source("lines", lines, {"name": "later", "exec": [stage]}))
    append(lines, *({"id": "e-%d" % i, "text": "x" * 3000} for i in range(200)))
    instance.start()
    instance.wait_source(lambda s: s["delayed"] == 200, "two hundred in the store")
    done = instance.run("check")
    check(done.returncode == 0 and "the store is sound" in done.stderr and "no problems" in done.stderr,
          "with the daemon: %r" % (done,))
    equal(instance.lines("check"), [], "as JSON")
    instance.stop()
    done = instance.run("check")
    check(done.returncode == 0 and "the store is sound" in done.stderr, "without the daemon: %r" % (done,))

    spoil_index(instance.database)
    done = instance.run("check")
    check(done.returncode == 1 and "store: " in done.stdout, "a damaged store without the daemon: %r" % (done,))
    problems = instance.lines("check", code=1)
    check(problems and all(problem["where"] == "store" and problem["problem"] for problem in problems),
          "as JSON: %s" % problems)
    # The daemon looks at nothing it does not need: it starts, or says at once that it cannot.
    instance.start(wait=False)
    wait_for(lambda: instance.daemon.poll() is not None or (instance.status() or {}).get("phase") == "running",
             "the daemon to decide")
    if instance.daemon.poll() is None:
        done = instance.run("check")
        equal(done.returncode, 1, "a damaged store with the daemon: %r" % (done,))
        instance.stop()
    else:
        instance.daemon = None

    # Damaged where everybody looks first.
    with open(instance.database, "r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)
    equal(instance.start(wait=False).wait(60), 1, "exit status on a broken store")
    instance.daemon = None
    check("malformed" in instance.log_text() or "SQLITE_CORRUPT" in instance.log_text(),
          "it says why: " + instance.log_text()[-800:])
    done = instance.run("check")
    check(done.returncode in (1, 3) and "store" in done.stdout + done.stderr, "check says it, too: %r" % (done,))
    finish()


main()
