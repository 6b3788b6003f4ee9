# SPDX-License-Identifier: MIT
"""With the daemon down, after a kill and after a stop: reading commands work from the store and say so, writing commands
end with 3 and change nothing; nothing they do disturbs the next start."""
import os

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, wait_for

TABLES = ("event", "progress", "suspended", "source")
BODY = '''
    if event["payload"]["do"] == "hang":
        if os.path.exists(__file__ + ".relief"):
            answer = {"remove": True}
        else:
            witness("hang", os.getpid())
            while True:
                time.sleep(600)
    if event["payload"]["do"] == "reject":
        answer = {"reject": "no"}
    if event["payload"]["do"] == "later":
        answer = {"processed": False, "retry_after": "1h"}
'''


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("work", BODY)
    instance.configure(file_source("lines", lines, {"name": "work", "exec": [stage]}))
    for command in ("queue", "cursor"):
        done = instance.run(command, *(("lines",) if command == "cursor" else ()))
        check(done.returncode == 3 and "there is no store" in done.stderr,
              "%s before the first start: %r" % (command, done))
    append(lines, {"id": "dead", "do": "reject"}, {"id": "late", "do": "later"}, {"id": "hang", "do": "hang"},
           {"id": "waits", "do": "later"})
    instance.start()
    wait_for(lambda: [call for call in calls() if call[0] == "hang"], "an event in hand")
    instance.wait_source(lambda s: s["dead"] == 1 and s["delayed"] == 1, "the others set aside")
    cursor = instance.run("cursor", "lines").stdout

    os.rename(instance.socket, instance.socket + ".gone")  # the daemon runs, and nothing reaches it
    done = instance.run("hold", "ALL")
    check(done.returncode == 3 and "the daemon runs (pid" in done.stderr and "nothing was changed" in done.stderr,
          "hold without a control socket: %r" % done)
    os.rename(instance.socket + ".gone", instance.socket)

    for how in ("killed", "stopped"):
        if how == "killed":
            instance.daemon.kill()
            instance.daemon.wait(60)
            wait_for(lambda: instance.status()["health"] == "down", "status to say down")
        else:
            instance.stop()
        done = instance.run("queue", "--json")
        equal(done.returncode, 0, "queue")
        check("the daemon is down" in done.stderr and "reading its store instead" in done.stderr,
              "it says so: " + done.stderr)
        states = {event["uid"]: event["state"] for event in instance.lines("queue")}
        waiting = {"dead": "dead", "late": "delayed", "waits": "ready"}
        if how == "killed":
            waiting["hang"] = "ready"  # its owner is dead, so its lock means nothing
        else:
            waiting["waits"] = "delayed"
        equal(states, waiting, "states in the store of the %s one" % how)
        equal([event["uid"] for event in instance.lines("queue", "--state", "dead", "--error", "no")], ["dead"],
              "selectors work")
        equal(instance.run("queue", "nobody").returncode, 4, "nothing matched")
        check('"do"' in instance.run("show", "late").stdout, "show")
        equal(instance.run("cursor", "lines").stdout, cursor, "cursor")
        done = instance.run("check")
        check(done.returncode == 0 and "sound" in done.stderr, "check: %r" % (done,))
        before = [instance.query("SELECT * FROM " + table) for table in TABLES]
        for words in (("retry", "ALL"), ("hold", "ALL"), ("release", "ALL"), ("requeue", "ALL"), ("remove", "ALL"),
                      ("inject", "lines"),
                      ("pause", "lines"), ("resume", "lines"), ("restart", "lines/work"), ("drain",), ("stop",),
                      ("cursor", "lines", "--set", "0"),
                      ("remove", "ALL", "--dry-run")):
            done = instance.run(*words, stdin='{"uid":"x"}\n' if words[0] == "inject" else None)
            equal((done.returncode, done.stdout), (3, ""), " ".join(words))
            check("the daemon is down" in done.stderr and "nothing was changed" in done.stderr,
                  "%s says: %s" % (words, done.stderr))
        equal([instance.query("SELECT * FROM " + table) for table in TABLES], before, "the store is as it was")
        open(stage + ".relief", "w").close()
        instance.start()
        instance.wait_source(lambda s: s["removed_by_stage"] == 1 and s["delayed"] == 2 and s["dead"] == 1, "all to go on")
    # Neither configuration nor socket is needed where the segment tells.
    instance.stop()
    done = instance.run("status")
    equal(done.returncode, 3, "exit status of status")
    finish()


main()
