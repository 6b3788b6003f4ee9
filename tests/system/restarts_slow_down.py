# SPDX-License-Identifier: MIT
"""A worker that crashes before it is useful is restarted: at once the first time, then with growing pauses; status says
degraded and why; a stage that works again is well again at once."""
import json
import os

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, script, wait_for

STAGE = """#!/usr/bin/env python3
import json, os, sys, time
with open({starts!r}, "a") as file:
    file.write("%f\\n" % time.monotonic())
if not os.path.exists({cure!r}):
    sys.stderr.write("the cure is missing\\n")
    sys.exit(4)
for line in sys.stdin:
    print('{{"processed":true}}', flush=True)
"""


def main():
    instance = Instance()
    lines, starts, cure = (os.path.join(DIRECTORY, name) for name in ("lines", "starts", "cure"))
    stage = script("ill.py", STAGE.format(starts=starts, cure=cure))
    # There are more events than starts: none comes a second time, so none is the suspect instead of the process.
    instance.configure(file_source("lines", lines,
                                   {"name": "ill", "exec": [stage], "max_crashes": 0, "restart": {"max_backoff": "1s"},
                                                    "retry": {"min": "10ms", "max": "10ms"}}))
    append(lines, *({"id": "e-%d" % i} for i in range(40)))
    instance.start(wait=False)

    def started():
        try:
            with open(starts) as file:
                return [float(line) for line in file if line.endswith("\n")]
        except FileNotFoundError:
            return []
    wait_for(lambda: len(started()) >= 6, "six starts of the worker")
    times = started()[:6]
    pauses = [later - earlier for earlier, later in zip(times, times[1:])]
    # At once, 250 ms, 500 ms, 1 s, and 1 s for ever: each no shorter than that.
    check(pauses[0] < pauses[1], "the first restart is the quickest: %s" % pauses)
    for pause, least in zip(pauses, (0.0, 0.25, 0.5, 1.0, 1.0)):
        check(pause >= least - 0.01, "pauses grow up to restart.max_backoff: %s" % pauses)

    status = wait_for(lambda: (lambda s: s if s and s["sources"][0]["stages"][0]["state"] == "degraded" and s["reasons"]
                               and s["sources"][0]["stages"][0]["workers"][0]["state"] == "backoff"
                               else None)(instance.status()),
                      "status degraded, with the worker in backoff")
    equal(status["health"], "degraded", "health")
    reason = next((r for r in status["reasons"] if r.startswith("lines/ill")), "")
    check("exited with code 4" in reason and "the cure is missing" in reason and "next start in" in reason,
          "the status says why and when: %s" % status["reasons"])
    worker = status["sources"][0]["stages"][0]["workers"][0]
    check(worker["restarts"] >= 5 and worker["restart_in_ms"] <= 1000,
          "the worker's restarts are counted: " + json.dumps(worker))
    check("degraded stage=lines/ill" in instance.log_text(), "the log says degraded")

    open(cure, "w").close()
    instance.wait_empty(40)
    status = wait_for(lambda: (lambda s: s if s and s["health"] == "ok" else None)(instance.status()),
                      "health ok again")
    check(status["sources"][0]["stages"][0]["state"] != "degraded", "no longer degraded")
    check("recovered stage=lines/ill" in instance.log_text(), "the log says recovered")
    instance.stop()
    finish()


main()
