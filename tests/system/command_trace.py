# SPDX-License-Identifier: MIT
"""`eventpipe trace`: the story of each event: passed, failed and tried again, rejected, removed, crashed with the pid of
the dead, lost beside one that crashed, timed out; over a restart, with the daemon stopped and down; and turned off."""
import os
import signal
import time

from harness import DIRECTORY, Gate, Instance, append, check, equal, file_source, finish, python_stage, wait_for

MEMBERS = ["at", "step", "source", "number", "uid", "stage", "pid", "attempt", "duration_us", "due", "end", "reason", "error"]
TOLD = os.path.join(DIRECTORY, "told-")
BODY = '''
    how, told = event["payload"].get("how"), %r + event["uid"]
    if how == "remove":
        answer = {"remove": True}
    elif how == "reject":
        answer = {"reject": "never heard of it"}
    elif how and not os.path.exists(told):
        open(told, "w").close()
        if how == "fail":
            answer = {"error": "no such pump"}
        if how == "signal":
            os.kill(os.getppid(), signal.SIGSEGV)
        if how in ("signal", "hang"):
            time.sleep(600)
''' % TOLD
RETRY = {"min": "20ms", "max": "50ms"}


def story(instance, uid, *arguments):
    steps = instance.lines("trace", uid, *arguments)
    for step in steps:
        equal(list(step), MEMBERS, "the members of a step")
        equal(step["uid"], uid, "whose story it is")
    equal([step["at"] for step in steps], sorted(step["at"] for step in steps), "in order of time")
    return steps


def told(steps):
    return [(step["step"], step["stage"], step["attempt"], step["end"]) for step in steps]


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    gate = Gate()
    first, _ = python_stage("first", BODY)
    second, _ = python_stage("second", gate.body)
    slow, _ = python_stage("slow", BODY)
    sources = "\n".join([
        file_source("lines", lines, {"name": "first", "exec": [first], "retry": RETRY}, {"name": "second", "exec": [second]}),
        file_source("slow", lines + ".slow", {"name": "slow", "exec": [slow], "retry": RETRY, "timeout": "4s"})])
    instance.configure(sources)
    equal(instance.run("trace", "a").returncode, 1, "no store yet")
    instance.start()
    done = instance.run("trace", "a")
    equal((done.returncode, done.stdout), (4, ""), "an event that never was")
    check("the trace has no steps" in done.stderr, "it says so: " + done.stderr)

    gate.open()
    append(lines, {"id": "a"}, {"id": "b", "how": "fail"}, {"id": "c", "how": "remove"}, {"id": "d", "how": "reject"})
    append(lines + ".slow", {"id": "f", "how": "hang"})
    instance.wait_source(lambda s: s["completed"] + s["removed_by_stage"] + s["dead"] == 4, "all to have ended", "lines")
    append(lines, {"id": "e", "how": "signal"})  # alone: a crash takes the answers along that are not committed yet
    instance.wait_source(lambda s: s["completed"] + s["removed_by_stage"] + s["dead"] == 5, "that one, too", "lines")
    instance.wait_empty(1, "slow")

    steps = story(instance, "a")
    equal(told(steps), [("fetched", None, None, None), ("processed", "first", 1, None), ("completed", "second", 1, "completed")],
          "what passed")
    equal({step["source"] for step in steps}, {"lines"}, "its source")
    check(all(step["duration_us"] > 0 for step in steps[1:]), "the stages' durations: %s" % steps)
    equal([step["pid"] for step in steps], [instance.source("lines")["producer"]["pid"], steps[1]["pid"],
                                            instance.stage("second", "lines")["workers"][0]["pid"]], "who did it")

    steps = story(instance, "b")
    equal(told(steps)[1:3], [("failed", "first", 1, None), ("processed", "first", 2, None)], "what failed once")
    check(steps[1]["due"] >= steps[1]["at"] and steps[1]["error"] == "no such pump", "due when, and why: %s" % steps[1])
    last = story(instance, "c")[-1]
    equal((last["step"], last["stage"], last["end"]), ("removed", "first", "removed"), "what was removed")
    last = story(instance, "d")[-1]
    equal((last["step"], last["stage"], last["end"], last["reason"]), ("rejected", "first", "dead", "rejected"), "rejected")
    check("never heard of it" in last["error"], "why: %s" % last)

    crash = next(step for step in story(instance, "e") if step["step"] == "crashed")
    dead = {line["uid"]: line["pid"] for line in instance.lines("crashes", "lines")}
    equal((crash["stage"], crash["pid"], crash["attempt"], crash["end"]), ("first", dead["e"], 1, None), "the crash")
    check(crash["due"] and "signal 11" in crash["error"], "due when, and how: %s" % crash)
    equal(told(story(instance, "e"))[-2:], [("processed", "first", 2, None), ("completed", "second", 1, "completed")], "and then")
    steps = story(instance, "f", "--source", "slow")
    equal(told(steps)[:2], [("fetched", None, None, None), ("timeout", "slow", 1, None)], "what ran too long")
    check("timed out after 4s" in steps[1]["error"], "how long: %s" % steps[1])
    equal(told(steps)[-1][0::3], ("completed", "completed"), "and then")
    equal(instance.run("trace", "f", "--source", "lines").returncode, 4, "of the other source")
    equal(instance.run("trace", "f", "--source", "nobody").returncode, 4, "of no source")
    text = instance.run("trace", "e").stdout
    check("e of lines, event" in text and "crashed" in text and str(dead["e"]) in text and "completed" in text,
          "for people: " + text)

    # A worker is killed with one event in hand and another that it has finished first's part of, or waits for.
    gate.close()
    append(lines, {"id": "g"})
    wait_for(lambda: instance.run("trace", "g").returncode == 0, "it to have come")
    wait_for(lambda: told(story(instance, "g"))[1:], "the first stage's answer")
    worker = instance.stage("second", "lines")["workers"][0]["pid"]
    wait_for(lambda: instance.stage("second", "lines")["workers"][0]["state"] == "busy", "the second stage to have it")
    os.kill(worker, signal.SIGKILL)
    killed = wait_for(lambda: story(instance, "g")[2:], "the crash to be told")[0]
    equal((killed["step"], killed["stage"], killed["pid"]), ("crashed", "second", worker), "the killed worker")
    kept = {uid: story(instance, uid) for uid in "abcdef"}

    # The daemon stands still, then is gone: the store is asked all the same. What was done before a restart is kept.
    os.kill(instance.daemon.pid, signal.SIGSTOP)
    equal(story(instance, "a"), kept["a"], "with the daemon stopped")
    os.kill(instance.daemon.pid, signal.SIGCONT)
    gate.open()
    instance.wait_source(lambda s: s["completed"] == 4, "the last one to have passed", "lines")
    instance.stop()
    equal({uid: story(instance, uid) for uid in "abcdef"}, kept, "with the daemon down")
    equal(told(story(instance, "g"))[-1], ("completed", "second", 2, "completed"), "and what came after")

    instance.start()
    done = instance.run("inject", "lines", stdin='{"uid": "h", "payload": {}}\n')
    equal(done.returncode, 0, "inject: " + done.stderr)
    wait_for(lambda: told(story(instance, "h"))[2:], "the injected one")
    equal(told(story(instance, "h"))[0], ("injected", None, None, None), "how it came")
    equal(instance.run("retry", "d").returncode, 0, "an operator's order")
    wait_for(lambda: [step["step"] for step in story(instance, "d")][-2:] == ["retry", "rejected"], "what came of it")
    equal(instance.run("remove", "d").returncode, 0, "the last order")
    equal(told(story(instance, "d"))[-1], ("remove", None, None, "removed"), "the end of it")
    instance.stop()

    instance.configure(sources, "trace: {keep: 0s}")
    instance.start()
    append(lines, {"id": "i"})
    instance.wait_source(lambda s: s["completed"] == 6, "one more", "lines")
    equal(instance.run("trace", "i").returncode, 4, "off: nothing is kept")
    wait_for(lambda: instance.query("SELECT count(*) FROM trace") in ([(0,)], [(1,)]), "what was kept to go")
    instance.stop()
    finish()


main()
