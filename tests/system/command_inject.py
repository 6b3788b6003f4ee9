# SPDX-License-Identifier: MIT
"""`eventpipe inject`: lines from stdin or a file become events; bad lines are told by number and skipped; duplicates
are skipped; --dry-run stores nothing; many lines and long ones; slow input."""
import json
import os
import subprocess

from harness import BUILD, DIRECTORY, Instance, check, equal, file_source, finish, python_stage, wait_for

BODY = '    witness("event", event if len(line) < 4096 else {"uid": event["uid"], "bytes": len(line)})'


def main():
    instance = Instance()
    stage, calls = python_stage("see", BODY)
    instance.configure(file_source("lines", os.path.join(DIRECTORY, "none"), {"name": "see", "exec": [stage]}))
    instance.start()

    def events():
        return [call[1] for call in calls() if call[0] == "event"]
    good = '{"uid":"one","address":"d1","type":"hot","payload":{"n":1}}\n'
    equal(instance.lines("inject", "lines", "--dry-run", stdin=good)[-1]["injected"], 1, "what would be injected")
    equal(instance.lines("queue"), [], "a dry run stores nothing")
    sums = instance.lines("inject", "lines", stdin=good)[-1]
    equal((sums["injected"], sums["duplicates"], sums["invalid"]), (1, 0, 0), "one good line")
    wait_for(lambda: events(), "the stage to see it")
    equal(events()[0], {"uid": "one", "address": "d1", "type": "hot", "payload": {"n": 1}}, "what the stage saw")

    bad = ['not json', '[1,2]', '"text"', '{"uid":""}', '{"uid":{"a":1}}', '{"uid":null}',
           '{"uid":"%s"}' % ("u" * 1025),
           '{"address":[1]}', '{"uid":"x","a":1}{"uid":"y"}', '{"uid":"cut"', '{"uid":"bad\udcff"}']
    lines = ['{"uid":"good-%d","payload":%d}' % (i, i) for i in range(len(bad))]
    mixed = "".join(pair[0] + "\n" + pair[1] + "\n" for pair in zip(lines, bad)) + "\n   \n" + '{"uid":"last"}'
    path = os.path.join(DIRECTORY, "mixed")
    with open(path, "w", errors="surrogateescape") as file:
        file.write(mixed)
    answers = instance.lines("inject", "lines", path, code=1)
    equal(answers[-1]["injected"], len(lines) + 1, "good lines, the last without line feed")
    equal((answers[-1]["invalid"], answers[-1]["duplicates"]), (len(bad), 0), "bad lines")
    equal([answer["line"] for answer in answers[:-1]], [2 * i + 2 for i in range(len(bad))], "their numbers")
    check(all(answer["error"] for answer in answers[:-1]), "why")
    done = instance.run("inject", "lines", path)
    equal(done.returncode, 1, "exit status with bad lines")
    check("line 2: not JSON" in done.stderr, "messages on stderr: " + done.stderr)
    # They have been done by now and gone, so their UIDs are free again; while an event is stored its UID is taken.
    equal(instance.run("pause", "lines/see").returncode, 0, "pause")
    done = instance.lines("inject", "lines", "-",
                          stdin='{"uid":"twice"}\n{"uid":"twice"}\n{"payload":7}\n{"payload":7}\n')[-1]
    equal((done["injected"], done["duplicates"]), (2, 2), "the same UID, and the same line without one, twice")
    equal(instance.run("resume", "lines/see").returncode, 0, "resume")
    instance.wait_source(lambda s: s["live"] == 0, "all done")
    check(any(event["payload"] == 7 and len(event["uid"]) == 32 for event in events() if "payload" in event),
          "a UID was made")

    # 64-bit integers and odd texts stay as they are.
    text = '{"uid":"exact","payload":{"big":18446744073709551615,"s":"\\ud83d\\ude00 \\u0000"}}'
    instance.lines("inject", "lines", stdin=text + "\n")
    wait_for(lambda: any(event["uid"] == "exact" for event in events()), "the exact one")
    exact = next(event for event in events() if event["uid"] == "exact")
    equal(exact["payload"], json.loads(text)["payload"], "exact values")

    # Many, and long ones; then one at a time with the pipe kept open: each is taken soon, not at the end.
    many = "".join('{"uid":"m-%d"}\n' % i for i in range(3000)) + '{"uid":"long","payload":"%s"}\n' % ("x" * 6000000)
    equal(instance.lines("inject", "lines", stdin=many)[-1]["injected"], 3001, "many lines and a long one")
    slow = subprocess.Popen([os.path.join(BUILD, "eventpipe"), "-c", instance.config, "inject", "lines"],
                            stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for i in range(2):
        slow.stdin.write('{"uid":"slow-%d"}\n' % i)
        slow.stdin.flush()
        wait_for(lambda: any(event["uid"] == "slow-%d" % i for event in events()), "slow-%d to be taken" % i)
    slow.stdin.close()
    equal(slow.wait(60), 0, "exit status of the slow one")
    slow.stdout.close()
    slow.stderr.close()
    instance.wait_source(lambda s: s["live"] == 0 and s["injected"] == s["completed"] == len(events()),
                         "all done and counted")

    for arguments, message, code in ((("nosource",), "nosource", 2), (("line",), 'did you mean "lines"', 2),
                                   ((), "usage", 2),
                                   (("lines", "/nowhere"), "/nowhere", 1)):
        done = instance.run("inject", *arguments, stdin=good)
        check(done.returncode == code and message in done.stderr, "inject %s: %r" % (arguments, done))
    instance.stop()
    finish()


main()
