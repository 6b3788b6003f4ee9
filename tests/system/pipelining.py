# SPDX-License-Identifier: MIT
"""A fast exec stage is sent several events at once. Each answer goes to its own event; a crash of the program is blamed
on the first event without an answer; a line too many, and the worker's crash, on the event that did it once they go
alone; a time-out on the event that ran too long; all others are only called again. At a stop, what was sent is answered
and committed. An event that is tried again goes alone. With prefetch: 1, or a limit of cpu, nothing of this happens."""
import json
import os
import signal

from harness import DIRECTORY, Gate, Instance, append, check, equal, file_source, finish, script, wait_for

# Reads what there is, and answers line by line.
STAGE = """#!/usr/bin/env python3
import json, os, signal, sys, time
def witness(*words):
    fd = os.open(%(witness)r, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, (json.dumps(words) + "\\n").encode())
    os.close(fd)
unread = b""
while True:
    more = os.read(0, 65536)
    if not more:
        break
    *lines, unread = (unread + more).split(b"\\n")
    witness("together", len(lines))
    for line in lines:
        call = json.loads(line)
        uid, kind = call["event"]["uid"], call["event"]["payload"].get("kind")
        witness("call", uid, call["attempt"], len(lines))
        answer = {"processed": True, "context": {"uid": uid}}
        if kind in ("gate", "held"):
            while not os.path.exists(%(gate)r + kind): time.sleep(0.01)
        if kind == "later" and call["attempt"] == 1:
            answer = {"processed": False, "retry_after": "3s"}
        if kind == "crashes":
            os._exit(3)
        if kind == "kills":
            os.kill(os.getppid(), signal.SIGSEGV)
        if kind in ("hangs", "kills"):
            while True: time.sleep(600)
        if kind == "rests":
            time.sleep(0.15)
        text = json.dumps(answer) + "\\n"
        if kind == "babbles":
            text += "a word about " + uid + "\\n"
        os.write(1, text.encode())
"""
# Leaves whose context came with which event.
SECOND = """#!/usr/bin/env python3
import json, os, sys
for line in sys.stdin:
    call = json.loads(line)
    fd = os.open(%(witness)r, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, (json.dumps(["call", call["event"]["uid"], call["attempt"], call["context"].get("uid")]) + "\\n").encode())
    os.close(fd)
    print('{"processed":true}', flush=True)
"""
WARM = 300  # events that each process gets one by one, and more
PLENTY = 24  # events that wait when the first of them is let go


class Trial:
    """One source of events of which one is held until PLENTY of those behind it wait."""

    def __init__(self, name, *events, **keys):
        self.name, self.events, self.path = name, some(WARM, "warm") + list(events), os.path.join(DIRECTORY, name + ".")
        self.gate, self.held = Gate(name + ".gate"), Gate(name + ".held")
        self.witness = os.path.join(DIRECTORY, name + ".witness")
        self.lines = os.path.join(DIRECTORY, name + ".lines")
        stage = script(name + ".py", STAGE % {"witness": self.witness, "gate": self.path})
        second = script(name + "-second.py", SECOND % {"witness": self.witness + "-second"})
        # With so long a commit_delay no machine is too slow for sending several at once.
        stages = [dict({"name": "first", "exec": [stage], "commit_delay": "1h"}, **keys),
                  {"name": "second", "exec": [second], "commit_delay": "1h"}]
        self.instance = Instance("-" + name)
        self.instance.configure(file_source("lines", self.lines, *stages), "drain_timeout: 110s")
        append(self.lines, *self.events[:WARM], {"id": "gate", "kind": "gate"}, *events)

    def begin(self):
        self.instance.start()
        wait_for(lambda: self.called("gate"), "the gate to be processed")
        self.instance.wait_source(lambda s: s["stages"][0]["queue"] >= PLENTY, "events behind the gate")

    def told(self, kind, second=False):
        try:
            with open(self.witness + ("-second" if second else "")) as file:
                words = [json.loads(line) for line in file.read().rpartition("\n")[0].splitlines()]  # whole lines only
        except FileNotFoundError:
            return []
        return [word[1:] for word in words if word[0] == kind]

    def called(self, uid):
        return uid in [call[0] for call in self.told("call")]

    def end(self, dead):
        """All are through but one; the others were never blamed, and had their own answers."""
        self.instance.wait_source(lambda s: s["dead"] == 1 and s["completed"] == len(self.events), "one dead, the others done")
        check(max(self.told("together"))[0] >= 8, "several were sent at once")
        equal({call[1] for call in self.told("call") if call[0] != dead}, {1}, "attempts of the others")
        calls = self.told("call", second=True)
        equal([call[0] for call in calls if call[0] != call[2]], [], "events with another's answer")
        equal(sorted(call[0] for call in calls),
              sorted(event["id"] for event in ({"id": "gate"}, *self.events) if event["id"] != dead), "events at the second stage")
        found = self.instance.lines("queue", "--state", "dead")
        equal([event["uid"] for event in found], [dead], "the dead one")
        return found[0]


def some(count, name, kind=None):
    return [{"id": "%s-%d" % (name, i), "kind": kind} for i in range(count)]


def crashes(kind, message, calls):
    trial = Trial(kind, *some(40, "before"), {"id": "bad", "kind": kind}, *some(40, "after"), max_crashes=2,
                  retry={"min": "50ms", "max": "50ms"})
    trial.begin()
    trial.gate.open()
    dead = trial.end("bad")
    equal((dead["reason"], dead["crashes"]), ("crashed", 2), "the one that kills")
    check(message in dead["error"], dead["error"])
    check(len([call for call in trial.told("call") if call[0] == "bad"]) in calls, "calls of the one that kills")
    trial.instance.stop()


def babbles():
    trial = Trial("babbles", *some(40, "before"), {"id": "bad", "kind": "babbles"}, *some(40, "after"), max_crashes=1)
    trial.begin()
    trial.gate.open()
    dead = trial.end("bad")
    equal((dead["reason"], dead["crashes"]), ("crashed", 1), "the one with two lines")
    check("more than one line for one event: `a word about bad`" in dead["error"], dead["error"])
    check("pipelining-off stage=lines/first" in trial.instance.log_text(), "the log says that they go alone")
    trial.instance.stop()


def hangs():
    """All together take longer than the time limit, each alone does not."""
    trial = Trial("hangs", *some(44, "rests", "rests"), {"id": "bad", "kind": "hangs"}, *some(20, "after"), max_attempts=1,
                  timeout="5s")
    trial.gate.open()
    trial.instance.start()
    dead = trial.end("bad")
    equal((dead["reason"], dead["attempts"], dead["crashes"]), ("exhausted", 1, 0), "the one that hangs")
    check("timed out after 5s" in dead["error"], dead["error"])
    trial.instance.stop()


def stops():
    """A stop comes while the stage processes an event in the middle of those sent together."""
    trial = Trial("stops", *some(10, "early"), {"id": "held", "kind": "held"}, *some(40, "late"))
    trial.begin()
    trial.gate.open()
    wait_for(lambda: trial.called("held"), "the one in the middle to be processed")
    trial.instance.daemon.send_signal(signal.SIGTERM)
    wait_for(lambda: "phase name=stopping" in trial.instance.log_text(), "the stop to begin")
    trial.held.open()
    equal(trial.instance.daemon.wait(120), 0, "exit status")
    trial.instance.daemon = None
    check(max(trial.told("together"))[0] >= 8, "several were sent at once")
    check("crash process=" not in trial.instance.log_text(), "no process was killed")
    check(trial.called("late-0"), "those behind it were answered too")
    trial.instance.start()
    trial.instance.wait_empty(len(trial.events) + 1)
    equal(sorted(call[0] for call in trial.told("call")), sorted(["gate"] + [event["id"] for event in trial.events]),
          "each was called once")
    trial.instance.stop()


def tried():
    """All that are tried again wait together, when the stage goes on."""
    trial = Trial("tried", *some(40, "later", "later"), *some(40, "after"))
    trial.begin()
    trial.gate.open()
    trial.instance.wait_source(lambda s: s["stages"][0]["retried"] == 40, "those to be tried again")
    equal(trial.instance.run("pause", "lines/first").returncode, 0, "exit status of pause")
    trial.instance.wait_source(lambda s: s["delayed"] == 0, "all of them before the stage, if the machine is not too slow")
    equal(trial.instance.run("resume", "lines/first").returncode, 0, "exit status of resume")
    trial.instance.wait_empty(len(trial.events) + 1)
    check(max(trial.told("together"))[0] >= 8, "several were sent at once")
    equal([uid for uid, attempt, company in trial.told("call") if attempt > 1 and company > 1], [], "tried again in company")
    equal(len([call for call in trial.told("call") if call[1] == 2]), 40, "events that were tried again")
    trial.instance.stop()


def crashes_idle():
    """The stage processes nothing any more: what happens then has nothing to do with sending several together."""
    trial = Trial("idle", *some(80, "after"))
    trial.begin()
    trial.gate.open()
    trial.instance.wait_empty(len(trial.events) + 1)
    os.kill(trial.instance.source()["stages"][0]["workers"][0]["pid"], signal.SIGKILL)
    wait_for(lambda: 'crash process="lines/first[0]"' in trial.instance.log_text(), "the crash of the idle worker")
    trial.instance.wait_source(lambda s: s["stages"][0]["workers"][0]["state"] == "idle", "its successor")
    check(max(trial.told("together"))[0] >= 8, "several were sent at once")
    check("pipelining-off" not in trial.instance.log_text(), "the stage goes on as before")
    trial.instance.stop()


def one_by_one(name, **keys):
    trial = Trial(name, *some(80, "after"), **keys)
    trial.begin()
    trial.gate.open()
    trial.instance.wait_empty(len(trial.events) + 1)
    equal({words[0] for words in trial.told("together")}, {1}, "events sent together")
    trial.instance.stop()


def main():
    crashes("crashes", "exited with code 3 before it answered", (2,))
    crashes("kills", "signal 11", (2, 3, 4, 5, 6))  # those that it had company in count for nothing
    babbles()
    hangs()
    stops()
    tried()
    crashes_idle()
    one_by_one("alone", prefetch=1)
    one_by_one("limited", limits={"cpu": "60s"})
    finish()


main()
