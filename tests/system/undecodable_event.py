# SPDX-License-Identifier: MIT
"""One event that cannot be decoded: dead, reason corrupt, kept byte for byte; the rest of its page goes on."""
import base64
import os

from harness import DIRECTORY, Instance, check, equal, file_source, finish, python_stage

BAD = [b'{"id":"cut","mag":', b'{"id":"quote","a":"x}', b'\xff\xfe{"id":"bytes"}', b'{"id":{"nested":1}}',
       b'{"id":"' + b"u" * 2000 + b'"}']


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, calls = python_stage("see")
    instance.configure(file_source("lines", lines, {"name": "see", "exec": [stage]}, format="json", max_line=4096))
    with open(lines, "wb") as file:
        for i in range(60):
            file.write(b'{"id":"good-%d"}\n' % i)
            if i < len(BAD):
                file.write(BAD[i] + b"\n")
            if i == 20:
                file.write(b'{"id":"long","text":"' + b"x" * 5000 + b'"}\n')
    instance.start()
    instance.wait_source(lambda s: s["completed"] == 60 and s["dead"] == len(BAD) + 1, "sixty done, the bad ones dead")
    dead = instance.lines("queue", "--state", "dead")
    equal({event["reason"] for event in dead}, {"corrupt"}, "their reason")
    check(all(event["error"] for event in dead), "each says what is wrong: %s" % [event["error"] for event in dead])
    shown = instance.lines("show", *[event["uid"] for event in dead])
    raw = [base64.b64decode(event["raw:b64"]) if "raw:b64" in event else None for event in shown]
    for line in BAD[:3]:
        check(line in raw, "kept byte for byte: %r" % line)
    equal(sorted(call[1] for call in calls()), sorted("good-%d" % i for i in range(60)),
          "the stage saw the good ones alone")
    for word in ("uid",):
        check(any(word in event["error"] for event in dead), "one says that its uid is wrong")
    text = instance.run("queue", "--state", "dead").stdout
    check("corrupt" in text and "\udcff" not in text, "the queue shows them")
    instance.stop()
    finish()


main()
