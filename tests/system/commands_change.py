# SPDX-License-Identifier: MIT
"""retry, hold, release, requeue, remove: what they do to which states, what they print, --dry-run, and what they
refuse. Events that run are never touched."""
import os

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, wait_for

BODY = '''
    what = event["payload"]["do"]
    if what == "busy":
        while not os.path.exists(__file__ + ".finish"):
            signal.sigtimedwait([signal.SIGCHLD], 0.02)
    elif not os.path.exists(__file__ + ".relief"):
        if what == "reject":
            answer = {"reject": "no"}
        elif what == "later" or os.environ["EVENTPIPE_STAGE"] == "two":
            answer = {"processed": False, "retry_after": "1h"}
        else:
            answer["context"] = {"by": "one"}
'''


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("work", BODY)
    instance.configure(file_source("lines", lines,
                                   {"name": "one", "exec": [stage], "concurrency": 2, "input_buffer": 4},
                                   {"name": "two", "exec": [stage]}))
    append(lines, *({"id": "dead-%d" % i, "do": "reject", "address": "d"} for i in range(3)),
           *({"id": "late-%d" % i, "do": "later"} for i in range(3)),
           *({"id": "half-%d" % i, "do": "half"} for i in range(3)),
           {"id": "busy", "do": "busy"})
    instance.start()
    instance.wait_source(lambda s: s["dead"] == 3 and s["delayed"] == 6 and s["running"] == 1, "all in their states")

    def state_of(uid):
        return instance.lines("show", uid)[0]

    def change(command, *selectors, code=0):
        return {event["uid"]: (event["was"], event["state"]) for event in instance.lines(command, *selectors, code=code)}

    # What is not said is not meant; what would be done is told, and not done.
    for command in ("retry", "hold", "release", "requeue", "remove"):
        done = instance.run(command)
        check(done.returncode == 2 and "which events?" in done.stderr, "%s without a selector: %r" % (command, done))
        equal(instance.run(command, "--limit", "3").returncode, 2, command + " with a limit alone")
        equal(instance.run(command, "all").returncode, 4, command + " all is a UID")
    everything = [(event["uid"], event["state"]) for event in instance.lines("queue")]
    for command, count in (("retry", 9), ("hold", 9), ("requeue", 9), ("remove", 9)):
        done = instance.run(command, "ALL", "--dry-run")
        equal(done.returncode, 0, command + " --dry-run")
        equal(len(done.stdout.splitlines()) - 1, count, command + " --dry-run: events")
        check("9 events would be" in done.stderr, "%s --dry-run says: %s" % (command, done.stderr))
    equal(change("release", "ALL", "--dry-run", code=4), {}, "release --dry-run of nothing held")
    equal([(event["uid"], event["state"]) for event in instance.lines("queue")], everything, "nothing was changed")

    # hold and release
    equal(change("hold", "--address", "d", "--limit", "2"), {"dead-0": ("dead", "held"), "dead-1": ("dead", "held")},
          "hold")
    equal(change("hold", "late-0", "busy"), {"late-0": ("delayed", "held")}, "hold leaves alone what runs")
    equal(change("hold", "busy", code=4), {}, "hold of what runs")
    equal(change("release", "late-0"), {"late-0": ("held", "ready")}, "release")
    wait_for(lambda: len([call for call in calls() if call[1] == "late-0"]) == 2, "the released one to run again")
    equal(change("release", "late-0", code=4), {}, "release of what is not held")
    done = instance.run("release", "dead-0")
    check("1 event" in done.stderr and "released" in done.stderr, "what it says: " + done.stderr)
    wait_for(lambda: state_of("dead-0")["state"] == "dead", "it is rejected again")

    # retry: attempts from zero; what is held stays.
    equal(change("retry", "dead-1", code=4), {}, "retry of what is held")
    equal(change("retry", "late-1", "dead-2"), {"late-1": ("delayed", "ready"), "dead-2": ("dead", "ready")}, "retry")
    wait_for(lambda: state_of("late-1")["state"] == "delayed" and state_of("dead-2")["state"] == "dead",
             "both ran again")
    equal([call[2] for call in calls() if call[1] == "late-1"], [1, 1], "attempts of the retried one")

    # requeue: from the first stage on, with an empty context.
    wait_for(lambda: state_of("half-0")["stage"] == "two", "half-0 at the second stage")
    equal(state_of("half-0")["context"], {"by": "one"}, "its context")
    before = len([call for call in calls() if call[1] == "half-0"])
    equal(instance.run("pause", "lines/one").returncode, 0, "pause")
    equal(change("requeue", "--stage", "two", "half-0"), {"half-0": ("delayed", "ready")}, "requeue")
    shown = state_of("half-0")
    equal((shown["stage"], shown["done"], shown["context"], shown["attempts"]), ("one", [], {}, 0), "it begins again")
    equal(instance.run("resume", "lines/one").returncode, 0, "resume")
    wait_for(lambda: len([call for call in calls() if call[1] == "half-0"]) == before + 2, "both stages again")

    # remove
    equal(change("remove", "--state", "dead"), {"dead-0": ("dead", "removed"), "dead-2": ("dead", "removed")}, "remove")
    equal(instance.lines("show", "dead-0", code=4), [], "it is gone")
    equal(change("remove", "busy", code=4), {}, "remove leaves alone what runs")
    instance.wait_source(lambda s: s["removed_by_operator"] == 2 and s["dead"] == 0 and s["held"] == 1, "status has it")

    # All to its end.
    for name in (".relief", ".finish"):
        open(stage + name, "w").close()
    instance.run("release", "ALL")
    instance.run("retry", "ALL")
    source = instance.wait_empty(10)
    equal((source["completed"], source["removed_by_operator"], source["dead"], source["live"]), (8, 2, 0, 0), "in the end")
    equal(instance.lines("remove", "ALL", code=4), [], "nothing is left to remove")
    instance.stop()
    finish()


main()
