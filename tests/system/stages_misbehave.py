# SPDX-License-Identifier: MIT
"""Programs that misbehave, each in a stage of its own without a time limit, while a calm one beside them goes on: floods
stderr, writes a 100 MB answer, closes its stdin or its stdout, exits at once, asks for a retry beyond all bounds, writes
what a terminal would obey. Each is ended, its event is blamed, memory and log stay bounded, and no other stage notices."""
import os

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, wait_for

FLOOD = 200000  # lines
BODIES = {
    "flood": '''
    if "good" not in event["uid"]:
        for number in range(%d):
            sys.stderr.write("flood %%d\\n" %% number)
        sys.stderr.flush()
''' % FLOOD,
    "huge": '''
    if "good" not in event["uid"]:
        os.write(1, b'{"processed":true,"context":{"a":"')
        left = 100000000
        while left > 0:
            left -= os.write(1, b"x" * min(left, 1 << 20))
        os.write(1, b'"}}\\n')
        continue
''',
    "deaf": '''
    if "good" not in event["uid"]:
        os.close(0)
        while True:
            time.sleep(600)
''',
    "mute": '''
    if "good" not in event["uid"]:
        os.close(1)
        while True:
            time.sleep(600)
''',
    "exits": '''
    if "good" not in event["uid"]:
        os._exit(0)
''',
    "later": '''
    if "good" not in event["uid"]:
        answer = {"processed": False, "retry_after": 1e11}
''',
    "escapes": '''
    if "good" not in event["uid"]:
        sys.stderr.buffer.write(b"\\x1b[2J\\xff\\x00\\xc2\\x9b last stderr output\\n")
        sys.stderr.flush()
        os.write(1, b"\\x1b[31m\\xff\\xc2\\x9b\\x00\\n")
        continue
''',
}
# What is said of each event that goes dead.
MESSAGES = {
    "huge": "answered a line of more than 64 MiB: `{\"processed\":true,",
    "deaf": "program closed its input but went on running before it answered",
    "mute": "program closed its output but went on running before it answered",
    "exits": "program exited with code 0 before it answered",
    "later": "\"retry_after\" must be a duration",
    "escapes": "malformed answer: `?[31m",
}
MEMORY = 512 << 20  # of the supervisor, and of the worker that reads 64 MiB of an answer


def peak_bytes(pid):
    """The most memory it has had; 0 when it is gone. No figure of a sanitizer's, which keeps what was freed."""
    if "asan" in os.environ.get("sanitizers", ""):
        return 0
    try:
        with open("/proc/%d/status" % pid) as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM")), 0)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def flood_is_told(instance):
    """So many lines were written as the limit allows, and all others were counted."""
    def told():
        log = instance.log_text().splitlines()
        lost = sum(int(line.rsplit("=", 1)[1]) for line in log if "flood/work" in line and "suppressed lines=" in line)
        written = sum(": flood " in line for line in log)
        told.found = written, lost
        return written + lost == FLOOD and written
    written = wait_for(told, lambda: "every line written or counted: %d, %d" % told.found)
    check(written < FLOOD / 10, "most are not written: %d" % written)


def main():
    instance = Instance()
    lines = {name: os.path.join(DIRECTORY, name) for name in [*BODIES, "calm"]}
    sources = []
    for name in lines:
        stage, _ = python_stage(name, BODIES.get(name, "    pass"))
        append(lines[name], {"id": name + "-good"})
        sources.append(file_source(name, lines[name], {"name": "work", "exec": [stage], "timeout": "0", "max_crashes": 1}))
    instance.configure("\n".join(sources))
    instance.start()
    instance.wait_empty(1, "huge")
    reader = instance.workers("huge")[0]
    peaks = {}

    def done(source):
        peaks["worker"] = max(peaks.get("worker", 0), peak_bytes(reader))
        return source["dead"] + source["completed"] == 3

    for name in BODIES:
        append(lines[name], {"id": name}, {"id": name + "-good-2"})
        append(lines["calm"], *({"id": "calm-%s-%d" % (name, n)} for n in range(5)))
    for name in BODIES:
        instance.wait_source(done, name + ": all events done with", name)
    instance.wait_empty(1 + 5 * len(BODIES), "calm")
    equal(instance.stage("work", "calm")["restarts"], 0, "restarts of the calm one")
    flood_is_told(instance)
    peaks["supervisor"] = peak_bytes(instance.daemon.pid)
    for who, peak in peaks.items():
        check(peak < MEMORY, "memory of the %s: %d bytes" % (who, peak))

    dead = {event["uid"]: event for event in instance.lines("queue", "--state", "dead")}
    equal(set(dead), set(MESSAGES), "dead events")
    for uid, message in MESSAGES.items():
        equal((dead[uid]["reason"], dead[uid]["crashes"], dead[uid]["attempts"]), ("crashed", 1, 0), uid)
        check(message in dead[uid]["error"], "reason of %s: expected %r in %r" % (uid, message, dead[uid]["error"]))
    shown = [instance.run(*command).stdout for command in (("show", "escapes"), ("queue", "--state", "dead"), ("status",),
                                                         ("crashes",))]
    check("last stderr output" in instance.log_text(), "the last stderr output is in the log")
    for text in [*shown, instance.log_text(), dead["escapes"]["error"]]:
        for bad in "\x1b\x00\x9b\ufffd":
            check(bad not in text, "%r got through: %r" % (bad, text))
    instance.stop()
    finish()


main()
