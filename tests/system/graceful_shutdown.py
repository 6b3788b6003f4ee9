# SPDX-License-Identifier: MIT
"""SIGTERM finishes and commits the events being processed, and unlocks the rest, within the deadline. A stage that ignores
everything is killed at drain_timeout; a second SIGTERM ends the daemon at once. Nothing is lost, no event is blamed, and
nothing is left behind. SIGUSR1 drains: what is ready goes through to its end first."""
import os
import signal
import time

from harness import DIRECTORY, Instance, alive, append, check, equal, file_source, finish, python_stage, wait_for

# slow-*: processed until the file is there; deaf-*: for ever, ignoring signals; the others are done at once.
BODY = '''
    if event["uid"].startswith("slow"):
        while not os.path.exists(__file__ + ".finish"):
            signal.sigtimedwait([signal.SIGCHLD], 0.02)
    if event["uid"].startswith("deaf") and not os.path.exists(__file__ + ".relief"):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        witness("deaf", os.getpid())
        while True:
            time.sleep(600)
'''


def ended(instance):
    """Waits for the daemon's end and sees that nothing is left; gives its log since it was asked to stop."""
    equal(instance.daemon.wait(100), 0, "exit status")
    instance.daemon = None
    check(not os.path.exists(instance.socket) and not os.path.exists("/dev/shm/eventpipe-" + instance.name),
          "nothing is left")
    return instance.log_text().rsplit("stop-requested", 1)[-1]


def in_hand(calls, uid):
    return any(call[:2] == ["call", uid] for call in calls())


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("work", BODY)
    source = file_source("lines", lines, {"name": "work", "exec": [stage]}, {"name": "then", "exec": [stage]})
    instance.configure(source)

    # A graceful stop: the event being processed is finished and committed at its stage; those behind it wait in the store.
    append(lines, {"id": "slow-1"}, *({"id": "e-%d" % i} for i in range(30)))
    instance.start()
    wait_for(lambda: in_hand(calls, "slow-1"), "the slow event to be processed")
    instance.daemon.send_signal(signal.SIGTERM)
    wait_for(lambda: "phase name=stopping" in instance.log_text(), "the stop to begin")
    status = instance.status()
    equal((status["phase"], status["health"]), ("stopping", "degraded"), "phase and health while it stops")
    check(any("stopping" in reason for reason in status["reasons"]), "the status says so: %s" % status["reasons"])
    open(stage + ".finish", "w").close()
    log = ended(instance)
    check("crash process=" not in log, "no process was killed: " + log)
    equal(instance.query("SELECT count(*) FROM event"), [(31,)], "events in the store")
    shown = instance.lines("show", "slow-1", code=0)[0]
    equal((shown["state"], shown["done"], shown["stage"]), ("ready", ["work"], "then"), "the answer was committed")
    equal(len(instance.lines("queue", "--state", "ready")), 31, "all others wait, none is locked")
    instance.start()
    instance.wait_empty(31)
    equal(len([call for call in calls() if call[0] == "call"]), 2 * 31, "each stage saw each event once")
    equal({call[2] for call in calls()}, {1}, "attempts")
    instance.stop()

    # A stage without ears: killed at the deadline, its event released without blame.
    instance.configure(source, "drain_timeout: 1s")
    instance.start()
    append(lines, {"id": "deaf-1"})
    deaf = wait_for(lambda: [call[1] for call in calls() if call[0] == "deaf"], "the deaf event to be processed")
    asked = time.monotonic()
    instance.daemon.send_signal(signal.SIGTERM)
    log = ended(instance)
    check(time.monotonic() - asked >= 0.99, "not before the deadline")
    check("it did not stop in time" in log, "the log says why it was killed: " + log)
    wait_for(lambda: not alive(deaf[0]), "the deaf program to be gone")
    shown = instance.lines("show", "deaf-1")[0]
    equal((shown["state"], shown["attempts"], shown["crashes"]), ("ready", 0, 0), "the deaf event is not blamed")

    # The second SIGTERM, long before the deadline.
    instance.configure(source, "drain_timeout: 10m")
    instance.start(wait=False)
    wait_for(lambda: len([call for call in calls() if call[0] == "deaf"]) == 2, "the deaf event to be processed again")
    instance.daemon.send_signal(signal.SIGTERM)
    wait_for(lambda: instance.log_text().count("phase name=stopping") == 4, "the stop to begin")
    # At least 200 ms later: the same order may come twice at once, to the process and to its group.
    begun = time.monotonic()
    wait_for(lambda: time.monotonic() - begun > 0.3, "the second signal to count as one")
    instance.daemon.send_signal(signal.SIGTERM)
    log = ended(instance)
    check("asked to stop at once" in log, "the log says why they were killed: " + log)
    deaf = [call[1] for call in calls() if call[0] == "deaf"]
    wait_for(lambda: not [pid for pid in deaf if alive(pid)], "the deaf program to be gone")
    shown = instance.lines("show", "deaf-1")[0]
    equal((shown["state"], shown["attempts"], shown["crashes"]), ("ready", 0, 0), "the deaf event is not blamed")

    # Draining: what is ready goes through to its end; what comes then is not fetched.
    open(stage + ".relief", "w").close()
    os.unlink(stage + ".finish")
    append(lines, {"id": "slow-2"}, *({"id": "d-%d" % i} for i in range(30)))
    instance.start()
    wait_for(lambda: in_hand(calls, "slow-2"), "the slow event to be processed")
    instance.wait_source(lambda s: s["fetched"] == 31 + 1 + 31, "all fetched")
    instance.daemon.send_signal(signal.SIGUSR1)
    wait_for(lambda: (lambda s: s and s["phase"] == "draining")(instance.status()), "the drain to begin")
    append(lines, {"id": "too-late"})
    open(stage + ".finish", "w").close()
    equal(instance.daemon.wait(100), 0, "exit status after a drain")
    instance.daemon = None
    equal(instance.query("SELECT count(*) FROM event"), [(0,)], "events in the store after a drain")
    check(not in_hand(calls, "too-late"), "what came too late was not fetched")
    instance.start()
    instance.wait_empty(31 + 1 + 31 + 1)
    instance.stop()
    finish()


main()
