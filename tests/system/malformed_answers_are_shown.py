# SPDX-License-Identifier: MIT
"""An exec stage writes a malformed line, two lines, half a line and ends, closes its pipe, speaks unasked, or is no program:
a crash of the program, its line shown in the log and in the event's reason; a new one is started for the
others."""
import os

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage

BODY = '''
    kind = event["payload"].get("kind")
    if kind == "rubbish":
        print("Hello, I am no JSON (%s)" % event["uid"], flush=True)
        continue
    if kind == "wrong":
        answer = {"processed": "perhaps-" + event["uid"]}
    if kind == "two":
        print('{"processed":true}\\n{"second":"of two"}', flush=True)
        continue
    if kind == "half":
        sys.stdout.write('{"processed":tr')
        sys.stdout.flush()
        os._exit(3)
    if kind == "closes":
        os.close(1)
        while True:
            time.sleep(600)
    if kind == "silent":
        os._exit(0)
    if kind == "binary":
        os.write(1, b"\\xff\\x00\\x1b[31m\\n")
        continue
'''
EXPECTED = {
    "rubbish": "malformed answer: `Hello, I am no JSON (rubbish)`",
    "wrong": '"processed" must be true or false',
    "two": 'wrote more than one line for one event: `{"second":"of two"}`',
    "half": 'program exited with code 3 before it answered, after half a line: `{"processed":tr`',
    "closes": "program closed its output but went on running",
    "silent": "program exited with code 0 before it answered",
    "binary": "malformed answer: ",
}


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("babbler", BODY)
    instance.configure(file_source("lines", lines,
                                   {"name": "babbler", "exec": [stage], "max_crashes": 1, "max_attempts": 0}))
    events = [{"id": kind, "kind": kind} for kind in EXPECTED]
    events = [event for bad in events for event in (bad, {"id": "good-after-" + bad["id"]})]
    append(lines, *events)
    instance.start()
    instance.wait_source(lambda s: s["dead"] == len(EXPECTED) and s["completed"] == len(EXPECTED),
                         "all bad ones dead, all good ones done")

    log = instance.log_text()
    dead = {event["uid"]: event for event in instance.lines("queue", "--state", "dead")}
    for uid, message in EXPECTED.items():
        equal((dead[uid]["reason"], dead[uid]["crashes"], dead[uid]["attempts"]), ("crashed", 1, 0), uid)
        check(message in dead[uid]["error"], "reason of %s: expected %r in %r" % (uid, message, dead[uid]["error"]))
        check(message.split("`")[0].replace('"', "") in log.replace("\\\"", "").replace('"', ""),
              "the log shows %r" % message)
    check("Hello, I am no JSON (rubbish)" in log, "the log shows the line")
    check("\x1b" not in dead["binary"]["error"] and "\x1b" not in log, "no control character gets through")
    for call in calls():
        check(call[2] == 1, "%s was called again" % call[1])
    # A program that is not there: the stage is degraded, its events wait unharmed.
    instance.stop()

    os.rename(stage, stage + ".away")
    append(lines, {"id": "patient"})
    instance.start(wait=False)
    status = instance.wait_source(lambda s: s["stages"][0]["state"] == "degraded", "the stage to be degraded")
    check(any(os.path.basename(stage) in (w["last_exit"] or "") for w in status["stages"][0]["workers"]),
          "the program is named: %s" % status)
    os.rename(stage + ".away", stage)
    equal(instance.run("restart", "lines/babbler").returncode, 0, "restart of the stage")
    instance.wait_source(lambda s: s["completed"] == len(EXPECTED) + 1, "the patient event done")
    equal([call[2] for call in calls() if call[1] == "patient"], [1], "attempt of the patient event")
    instance.stop()
    finish()


main()
