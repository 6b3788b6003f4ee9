# SPDX-License-Identifier: MIT
"""A program writes half a line and hangs, and ignores SIGTERM: without a time limit the status says since when it has its
event; a stop ends it; a time limit ends it, and its event is blamed."""
import os

from harness import DIRECTORY, Instance, alive, append, check, equal, file_source, finish, python_stage, wait_for

BODY = '''
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "hang" in event["uid"]:
        os.write(1, b'{"proc')
        witness("hangs", event["uid"], os.getpid())
        while True:
            time.sleep(600)
'''


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("hangs", BODY)
    append(lines, {"id": "hang"}, {"id": "good"})

    def configure(timeout):
        instance.configure(file_source("lines", lines, {"name": "work", "exec": [stage], "timeout": timeout, "max_attempts": 2,
                                                        "retry": {"min": "10ms", "max": "10ms"}}), "drain_timeout: 1s")

    def hung():
        return [call[2] for call in calls() if call[0] == "hangs"]

    def held(least_ms):
        worker = instance.stage("work")["workers"][0]
        return worker["state"] == "busy" and worker["since_ms"] >= least_ms and worker

    configure("0")
    instance.start()
    wait_for(hung, "it to hang")
    since = wait_for(lambda: held(0), "its worker to be busy")["since_ms"]
    wait_for(lambda: held(since + 500), "the status to say for how long")
    equal(instance.source("lines")["completed"], 0, "completed")
    instance.stop()
    wait_for(lambda: not any(alive(pid) for pid in hung()), "all that hung to be gone after a stop")

    configure("3s")  # a slow machine starts Python, too, in that time
    instance.start()
    instance.wait_source(lambda s: s["dead"] == 1 and s["completed"] == 1, "the time limit to end it")
    found = instance.lines("queue", "--state", "dead")[0]
    equal((found["uid"], found["reason"], found["attempts"]), ("hang", "exhausted", 2), "the event that hung")
    check("timed out after 3s" in found["error"], "its reason: " + found["error"])
    wait_for(lambda: not any(alive(pid) for pid in hung()), "all that hung to be gone after the time limit")
    instance.stop()
    finish()


main()
