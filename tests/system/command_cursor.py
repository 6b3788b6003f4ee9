# SPDX-License-Identifier: MIT
"""`eventpipe cursor` and --set: the source fetches from there on, at once, even in the middle of a long poll;
--dry-run changes nothing; the cursor set is stored."""
import json
import os

from harness import DIRECTORY, Helper, Instance, check, equal, finish, python_stage, wait_for


def main():
    path = os.path.join(DIRECTORY, "feed.jsonl")
    with open(path, "w") as file:
        file.write("".join('{"n":%d}\n' % i for i in range(1, 11)))
    feed = Helper("feed_server.py", path)
    instance = Instance()
    stage, calls = python_stage("work", '    witness("n", event["payload"]["event"]["n"])')
    instance.configure("- " + json.dumps({
        "id": "feed", "type": "http", "url": feed.url("/array?since={cursor}&limit={limit}&timeout={timeout}"),
        "cursor": {"last_event_path": "/id", "initial": "0"}, "uid": "/id", "long_poll": "10m",
        "stages": [{"name": "work", "exec": [stage]}]}))
    instance.start()

    def numbers():
        return [call[1] for call in calls() if call[0] == "n"]
    wait_for(lambda: len(numbers()) == 10, "ten events")
    instance.wait_source(lambda s: s["live"] == 0 and s["cursor"] == "10", "status to show the cursor")
    done = instance.run("cursor", "feed")
    equal((done.returncode, done.stdout, done.stderr), (0, "10\n", ""), "cursor")
    equal(instance.lines("cursor", "feed"), [{"source": "feed", "cursor": "10"}], "as JSON")
    done = instance.run("cursor", "feed", "--set", "7", "--dry-run")
    equal((done.returncode, instance.run("cursor", "feed").stdout), (0, "10\n"), "a dry run sets nothing")
    # The poll that waits for ten minutes is given up: 8 to 10 come again.
    equal(instance.lines("cursor", "feed", "--set", "7"), [{"source": "feed", "cursor": "7", "was": "10"}], "set")
    wait_for(lambda: numbers() == list(range(1, 11)) + [8, 9, 10], lambda: "three of them again, found %s" % numbers())
    equal(instance.run("cursor", "feed").stdout, "10\n", "the cursor has moved on")
    # Set while it is paused, and kept over a stop.
    equal(instance.run("pause", "feed").returncode, 0, "pause")
    equal(instance.run("cursor", "feed", "--set", "9").returncode, 0, "set while it is paused")
    instance.stop()
    equal(instance.run("cursor", "feed").stdout, "9\n", "it is stored")
    instance.start()
    wait_for(lambda: numbers()[13:] == [10], "one of them again")
    for words, code in ((("cursor",), 2), (("cursor", "nosource"), 2), (("cursor", "feed", "--dry-run"), 2),
                        (("cursor", "feed", "x"), 2)):
        done = instance.run(*words)
        check(done.returncode == code and done.stderr and not done.stdout, "%s: %r" % (words, done))
    instance.stop()
    finish()


main()
