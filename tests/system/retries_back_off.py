# SPDX-License-Identifier: MIT
"""An error, or 'not processed': the event is tried again after a pause that grows; retry_after is heeded;
max_attempts and max_age end it; a rejected event is dead at once. What waits for a retry delays no other event."""
import os

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, wait_for

BODY = '''
    kind = event["payload"]["kind"]
    witness("at", event["uid"], time.time())
    if kind == "error":
        answer = {"error": "the disk of " + event["uid"] + " is away"}
    elif kind in ("later", "old"):
        answer = {"processed": False}
    elif kind == "after":
        answer = {"processed": attempt == 2, "retry_after": "2s", "context": {"seen": attempt}}
    elif kind == "reject":
        answer = {"reject": "no such region"}
    elif kind == "remove":
        answer = {"remove": True}
'''


def times_of(calls, uid):
    return [call[2] for call in calls() if call[:2] == ["at", uid]]


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("moody", BODY)
    instance.configure("\n".join((
        file_source("lines", lines, {"name": "moody", "exec": [stage], "retry": {"min": "100ms", "max": "800ms"},
                                     "max_attempts": 6}),
        file_source("aging", lines + "-old",
                    {"name": "moody", "exec": [stage], "retry": {"min": "100ms", "max": "200ms"}, "max_age": "4s"}))))
    errors = ["error-%d" % i for i in range(6)]
    append(lines, *({"id": uid, "kind": "error"} for uid in errors), {"id": "later", "kind": "later"},
           {"id": "after", "kind": "after"}, {"id": "reject", "kind": "reject"}, {"id": "remove", "kind": "remove"},
           *({"id": "good-%d" % i, "kind": "good"} for i in range(200)))
    append(lines + "-old", {"id": "old", "kind": "old"})
    instance.start()
    source = instance.wait_source(lambda s: s["dead"] == 8 and s["completed"] == 201 and s["removed_by_stage"] == 1,
                                  "eight dead, one removed, the rest done", "lines")
    instance.wait_source(lambda s: s["dead"] == 1, "the old one to be dead", "aging")

    dead = {event["uid"]: event for event in instance.lines("queue", "--state", "dead")}
    for uid in errors + ["later"]:
        equal((dead[uid]["reason"], dead[uid]["attempts"], dead[uid]["crashes"]), ("exhausted", 6, 0), uid)
    equal(dead["error-3"]["error"], "the disk of error-3 is away", "the message of the error")
    equal((dead["reject"]["reason"], dead["reject"]["error"], dead["reject"]["attempts"]),
          ("rejected", "no such region", 1),
          "the rejected one")
    equal((dead["old"]["reason"], dead["old"]["source"]), ("expired", "aging"), "the one over max_age")

    # Pauses are min * 2^(n-1) up to max, times 0.75 to 1.25; a busy machine makes them longer, never shorter.
    # tests/unit/test_backoff shows how they vary: here a worker that comes late evens them out.
    for uid in errors + ["later"]:
        times = times_of(calls, uid)
        equal(len(times), 6, "attempts of " + uid)
        pauses = [later - earlier for earlier, later in zip(times, times[1:])]
        for pause, plain in zip(pauses, (0.1, 0.2, 0.4, 0.8, 0.8)):
            check(pause >= plain * 0.75 - 0.005, "%s came back too soon: %s" % (uid, pauses))
    after = times_of(calls, "after")
    equal(len(after), 2, "calls of the one with retry_after")
    check(after[1] - after[0] >= 1.99, "retry_after is heeded: %s" % (after[1] - after[0]))
    old = times_of(calls, "old")
    check(len(old) >= 3 and old[-1] - old[0] >= 0.5, "the old one was tried until its age: %s" % old)
    # The good ones did not wait for those that fail.
    good = [call[2] for call in calls() if call[0] == "at" and call[1].startswith("good")]
    check(max(good) < min(times_of(calls, uid)[-1] for uid in errors), "good events waited for failing ones")

    stage_status = source["stages"][0]
    equal((stage_status["failed"], stage_status["retried"], stage_status["rejected"], stage_status["removed"]),
          (36, 7, 1, 1), "failed, retried, rejected and removed of the stage")
    equal(stage_status["answers"], 36 + 7 + 1 + 1 + 201, "answers of all kinds")
    equal(stage_status["restarts"], 0, "no worker crashed")
    status = wait_for(instance.status, "a status")
    check(any("8 dead events" in reason for reason in status["reasons"]),
          "the status names the dead: %s" % status["reasons"])
    instance.stop()
    finish()


main()
