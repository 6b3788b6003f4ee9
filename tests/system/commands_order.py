# SPDX-License-Identifier: MIT
"""pause, resume, restart of a source and of a stage; drain and stop, with --wait; each with --dry-run; what is no
source or stage; an order given twice."""
import os

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, wait_for

BODY = '''
    if event["uid"] == "hangs" and attempt == 1 and not os.path.exists(__file__ + ".once"):
        open(__file__ + ".once", "w").close()
        witness("hangs", os.getpid())
        while True:
            time.sleep(600)
    while event["uid"].startswith("slow") and not os.path.exists(__file__ + ".finish"):
        signal.sigtimedwait([signal.SIGCHLD], 0.02)
'''


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("work", BODY)
    other, _ = python_stage("other")
    instance.configure(file_source("a", lines, {"name": "one", "exec": [stage], "concurrency": 2},
                                   {"name": "two", "exec": [other]})
                       + "\n" + file_source("b", lines + "-b", {"name": "one", "exec": [other]}))
    append(lines, {"id": "first"})
    instance.start()
    instance.wait_empty(1, "a")

    def order(*words, code=0):
        done = instance.run(*words)
        equal(done.returncode, code, " ".join(words) + ": " + done.stderr)
        return done.stderr

    def pids():
        status = instance.status()
        return {(s["id"], stage["name"], w["worker"]): w["pid"] for s in status["sources"] for stage in s["stages"]
                for w in stage["workers"]}

    # A stage: the ones before it go on, to it and no further.
    check("would" in order("pause", "a/two", "--dry-run"), "a dry run says would")
    equal(instance.stage("two", "a")["paused"], False, "a dry run pauses nothing")
    order("pause", "a/two")
    order("pause", "a/two")
    append(lines, *({"id": "e-%d" % i} for i in range(10)))
    append(lines + "-b", {"id": "b-1"})
    wait_for(lambda: len([call for call in calls() if call[1].startswith("e-")]) == 10, "the stage before it to go on")
    instance.wait_source(lambda s: s["completed"] == 1, "the other source to go on", "b")
    status = instance.wait_source(lambda s: s["stages"][1]["queue"] == 10, "ten to wait before the paused stage", "a")
    equal((status["stages"][1]["state"], status["stages"][1]["paused"], status["paused"], status["ready"]),
          ("paused", True, False, 10), "it")
    done = instance.run("status")
    check(done.returncode == 1 and "a/two is paused" in done.stdout, "status says so: " + done.stdout)
    order("resume", "a/two", "--dry-run")
    equal(instance.stage("two", "a")["paused"], True, "a dry run resumes nothing")
    order("resume", "a/two")
    instance.wait_empty(11, "a")

    # A source: nothing is fetched, nothing runs; the other source goes on.
    order("pause", "a")
    wait_for(lambda: instance.source("a")["state"] == "paused", "the source to be paused")
    append(lines, {"id": "f-1"})
    append(lines + "-b", {"id": "b-2"})
    instance.lines("inject", "a", stdin='{"uid":"f-2"}\n')
    instance.wait_source(lambda s: s["completed"] == 2, "the other source to go on", "b")
    status = instance.wait_source(lambda s: s["injected"] == 1, "the injected one to be counted", "a")
    equal((status["fetched"], status["completed"], status["ready"]), (12, 11, 1), "what the paused source has done")
    equal([call for call in calls() if call[1].startswith("f-")], [], "calls while it is paused")
    # A pause outlives nobody: producer and workers that are started afresh know of it.
    order("restart", "a")
    wait_for(lambda: all(pids().values()) and instance.source("a")["state"] == "paused", "it is still paused")
    equal([call for call in calls() if call[1].startswith("f-")], [], "calls while it is paused")
    order("resume", "a")
    instance.wait_empty(13, "a")
    wait_for(lambda: instance.status()["health"] == "ok", "health ok again")

    # restart: a stage; then one whose worker hangs: its event runs again, unblamed.
    before = pids()
    order("restart", "a/one", "--dry-run")
    equal(pids(), before, "a dry run restarts nothing")
    check("2 processes of a/one" in order("restart", "a/one"), "it says how many")
    wait_for(lambda: all(pids().values()) and all(pids()[("a", "one", i)] != before[("a", "one", i)] for i in (0, 1)),
             "other workers")
    after = pids()
    equal([after[key] for key in (("a", "two", 0), ("b", "one", 0))],
          [before[key] for key in (("a", "two", 0), ("b", "one", 0))], "the others")
    append(lines, {"id": "hangs"})
    wait_for(lambda: [call for call in calls() if call[0] == "hangs"], "the event that hangs")
    order("restart", "a/one")
    instance.wait_empty(14, "a")
    equal([call[2] for call in calls() if call[:2] == ["call", "hangs"]], [1, 1], "attempts of what was in hand")
    equal(instance.stage("one", "a")["crashed"], 0, "crashes counted")

    # What is not there, or no order.
    for words, code in ((("pause", "x"), 4), (("pause", "a/x"), 4), (("restart", "x/y"), 4), (("pause",), 2),
                        (("resume", "a", "b"), 2),
                        (("pause", "ALL"), 4), (("paus", "a"), 2), (("stop", "a"), 2), (("drain", "--json"), 2)):
        done = instance.run(*words)
        equal(done.returncode, code, " ".join(words) + ": " + done.stderr)
        check(done.stderr and not done.stdout, " ".join(words) + " says why on stderr")
    check('did you mean' in instance.run("paus", "a").stderr,
          "a near command is suggested: " + instance.run("paus", "a").stderr)

    # drain, then stop.
    append(lines, {"id": "slow-1"}, *({"id": "g-%d" % i} for i in range(5)))
    wait_for(lambda: [call for call in calls() if call[1] == "slow-1"], "the slow one in hand")
    order("drain", "--dry-run")
    equal(instance.status()["phase"], "running", "a dry run drains nothing")
    order("drain")
    wait_for(lambda: instance.status()["phase"] == "draining", "the drain to begin")
    check("draining" in order("drain"), "a second drain says that it is on")
    open(stage + ".finish", "w").close()
    equal(instance.daemon.wait(60), 0, "exit status after a drain")
    equal(instance.query("SELECT count(*) FROM event"), [(0,)], "events in the store after the drain")
    for command in ("stop", "drain", "pause", "resume", "restart"):
        check("down" in order(command, *(() if command in ("stop", "drain") else ("a",)), code=3),
              command + " without a daemon says so")
    instance.start()
    order("stop", "--dry-run")
    equal(instance.status()["phase"], "running", "a dry run stops nothing")
    order("stop", "--wait")
    equal(instance.daemon.wait(60), 0, "exit status after a stop")
    check(not os.path.exists(instance.socket), "--wait returns when it has ended")
    instance.daemon = None
    finish()


main()
