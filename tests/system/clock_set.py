# SPDX-License-Identifier: MIT
"""The wall clock is set back and forward by hours while events wait for retries: none storms, none stalls, none
expires, and ages are told as before; and an event that was put off for a day stays put off.

A test must not set the machine's clock: clock_shift.c, preloaded, shows the daemon another."""
import os

from harness import BUILD, DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, skip, wait_for

HOUR = 3600
BODY = '''
    if event["uid"] == "tomorrow":
        answer = {"processed": False, "retry_after": "24h"}
    else:
        answer = {"processed": attempt > 8}
'''


def main():
    shift = os.path.join(DIRECTORY, "shift")

    def set_clock(seconds):
        with open(shift + ".new", "w") as file:
            file.write(str(seconds))
        os.rename(shift + ".new", shift)

    if os.environ.get("sanitizers", "").strip():
        skip("a sanitizer's library must be loaded first")
    # The command line sees the same clock.
    os.environ.update(LD_PRELOAD=os.path.abspath(os.path.join(BUILD, "tests", "system", "clock_shift.so")), CLOCK_SHIFT=shift)
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("work", BODY)
    instance.configure(file_source("lines", lines, {"name": "work", "exec": [stage], "max_age": "12h",
                                                    "retry": {"min": "100ms", "max": "300ms"}}))
    set_clock(0)
    append(lines, {"id": "tomorrow"})
    instance.start()
    instance.wait_source(lambda s: s["delayed"] == 1, "the first to be put off")
    before = wait_for(lambda: instance.query("SELECT max(due_ms) FROM suspended"), "its due time")
    total = 0
    # Steps that are seen by events which wait for a retry just then, and by those that come after them.
    for hours in (-30, 30, 24 * 400, -24 * 400):
        uids = ["%d-%d" % (hours, i) for i in range(10)]
        append(lines, *({"id": uid} for uid in uids))
        wait_for(lambda: any(call[:2] == ["call", uids[0]] for call in calls()), "the events to be tried")
        set_clock(hours * HOUR)
        total += len(uids)
        instance.wait_source(lambda s: s["completed"] == total, "all to be done with the clock %+d h off" % hours)
        source = instance.source()
        equal((source["delayed"], source["dead"]), (1, 0), "put off and dead with the clock %+d h off" % hours)
        check(source["oldest_s"] < 4 * HOUR, "the age of the oldest: %d s" % source["oldest_s"])
        event, = instance.lines("queue")
        check(0 <= event["age_s"] < 4 * HOUR and 20 * HOUR < event["due_in_s"] <= 24 * HOUR,
              "age and due time in the queue with the clock %+d h off: %s" % (hours, event))
    equal(instance.query("SELECT max(due_ms) FROM suspended"), before, "when the one put off is due")
    tries = [call[1] for call in calls() if call[0] == "call"]
    equal(tries.count("tomorrow"), 1, "tries of the one put off")
    equal({uid: tries.count(uid) for uid in set(tries) - {"tomorrow"}},
          {uid: 9 for uid in set(tries) - {"tomorrow"}}, "tries of the others")

    # Over a restart, with the clock as it should be.
    set_clock(0)
    instance.stop()
    append(lines, {"id": "last"})
    instance.start()
    instance.wait_source(lambda s: s["completed"] == total + 1, "the last to be done")
    equal(instance.source()["delayed"], 1, "still put off after a restart")
    instance.stop()
    finish()


main()
