# SPDX-License-Identifier: MIT
"""A worker crashes while it processes an event: that one is blamed, the others of its batch are released without blame.

A worker answers a whole batch of events quickly and commits nothing yet; then one event kills it, each time it
comes. After max_crashes that event is dead, with the signal and the last stderr output; all others have been done, at
attempt 1. In a second stage the program crashes instead of its worker.
"""
import os

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, wait_for

KILLS_WORKER = '''
    if event["payload"].get("kills") == "worker":
        sys.stderr.write("about to fail over " + event["uid"] + "\\n")
        sys.stderr.flush()
        os.kill(os.getppid(), signal.SIGSEGV)
        time.sleep(600)
'''
KILLS_ITSELF = '''
    if event["payload"].get("kills") == "itself":
        sys.stderr.write("no way on with " + event["uid"] + "\\n")
        sys.stderr.flush()
        if event["payload"]["how"] == "exit":
            os._exit(7)
        os.kill(os.getpid(), signal.SIGABRT)
'''
RETRY = {"min": "20ms", "max": "50ms"}


def attempts_of(calls, uid):
    return [call[2] for call in calls() if call[1] == uid]


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    first, first_calls = python_stage("first", KILLS_WORKER)
    second, second_calls = python_stage("second", KILLS_ITSELF)
    # A commit_delay this long: what the worker has answered before it crashes is not yet committed.
    instance.configure(file_source(
        "lines", lines,
        {"name": "first", "exec": [first], "commit_delay": "1h", "retry": RETRY},
        {"name": "second", "exec": [second], "retry": RETRY, "max_crashes": 2}))
    good = ["good-%d" % i for i in range(30)]
    events = [{"id": uid} for uid in good]
    events.insert(20, {"id": "fatal", "kills": "worker"})
    events.append({"id": "aborts", "kills": "itself", "how": "signal"})
    events.append({"id": "exits", "kills": "itself", "how": "exit"})
    append(lines, *events)
    instance.start()
    instance.wait_source(lambda s: s["dead"] == 3 and s["completed"] == 30, "three dead, thirty done")

    dead = {event["uid"]: event for event in instance.lines("queue", "--state", "dead")}
    equal(sorted(dead), ["aborts", "exits", "fatal"], "the dead")
    fatal = dead["fatal"]
    equal((fatal["reason"], fatal["crashes"], fatal["stage"]), ("crashed", 3, "first"), "the event that kills workers")
    check("signal 11" in fatal["error"] and "about to fail over fatal" in fatal["error"],
          "its reason has the signal and the last stderr output: " + fatal["error"])
    equal(attempts_of(first_calls, "fatal"), [1, 2, 3], "its attempts")
    aborts = dead["aborts"]
    equal((aborts["reason"], aborts["crashes"], aborts["stage"]), ("crashed", 2, "second"),
          "the event that kills programs")
    check("signal 6" in aborts["error"] and "no way on with aborts" in aborts["error"],
          "its reason: " + aborts["error"])
    check("code 7" in dead["exits"]["error"] and "no way on with exits" in dead["exits"]["error"],
          "the exit code is told: " + dead["exits"]["error"])

    for uid in good:
        check(set(attempts_of(first_calls, uid)) == {1}, "%s was blamed: %s" % (uid, attempts_of(first_calls, uid)))
        check(set(attempts_of(second_calls, uid)) == {1}, "%s was blamed in the second stage" % uid)
    repeated = [uid for uid in good if len(attempts_of(first_calls, uid)) > 1]
    check(repeated, "the fatal event had company in its batch, or this test shows nothing")
    stages = {stage["name"]: stage for stage in instance.source()["stages"]}
    equal(stages["first"]["crashed"], 3, "crashes counted in the first stage")
    equal(stages["second"]["crashed"], 4, "crashes counted in the second stage")
    check(stages["first"]["restarts"] >= 3, "its worker was restarted")
    wait_for(lambda: all(w["pid"] for stage in instance.source()["stages"] for w in stage["workers"]),
             "all workers back")
    status = instance.status()
    equal(status["health"], "degraded", "health with dead events")
    check(any("3 dead events" in reason for reason in status["reasons"]), "the status says so: %s" % status["reasons"])
    log = instance.log_text()
    check('how="signal 11' in log, "the log tells the crash")
    check("about to fail over fatal" in log, "the log has the stage's stderr")
    instance.stop()
    finish()


main()
