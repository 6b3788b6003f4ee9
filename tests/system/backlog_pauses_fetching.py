# SPDX-License-Identifier: MIT
"""backlog.max_events is reached: fetching pauses and status says so; nothing is dropped; it goes on when there is
room."""
import os

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, wait_for

BODY = '''
    while not os.path.exists(__file__ + ".open"):
        signal.sigtimedwait([signal.SIGCHLD], 0.05)
'''


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("gate", BODY)
    instance.configure(file_source("lines", lines, {"name": "gate", "exec": [stage]}, page_size=10,
                                   backlog={"max_events": 50}))
    append(lines, *({"id": "e-%d" % i} for i in range(250)))
    instance.start()
    source = instance.wait_source(lambda s: s["state"] == "full" and s["live"] >= 50, "the backlog to be full")
    check(50 <= source["live"] < 60, "it stops at the limit, within a page: %d" % source["live"])
    status = wait_for(instance.status, "a status")
    equal(status["health"], "degraded", "health")
    check(any("backlog is full" in reason for reason in status["reasons"]),
          "the status says why: %s" % status["reasons"])
    # What an operator gives is taken all the same, and retries and the stages go on.
    equal(instance.lines("inject", "lines", stdin='{"uid":"by-hand"}\n')[-1]["injected"], 1, "injected by hand")
    open(stage + ".open", "w").close()
    source = instance.wait_empty(251)
    equal((source["fetched"], source["completed"], source["dead"]), (251, 251, 0), "in the end")
    instance.wait_source(lambda s: s["state"] == "fetching", "it to fetch again")
    uids = [call[1] for call in calls()]
    equal(sorted(uids), sorted(["e-%d" % i for i in range(250)] + ["by-hand"]), "each event was seen once")
    wait_for(lambda: instance.status()["health"] == "ok", "health ok again")
    instance.stop()
    finish()


main()
