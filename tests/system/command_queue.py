# SPDX-License-Identifier: MIT
"""`eventpipe queue` and `show`: every selector, alone and together, -o, --json, text; show has everything, byte for
byte."""
import os

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage

BODY = '''
    what = event["payload"]["do"]
    if what == "reject":
        answer = {"reject": "the %s is\\ttoo small" % event["payload"]["id"]}
    elif what == "error":
        answer = {"error": "database away", "retry_after": "1h"}
    elif what == "done" and os.environ["EVENTPIPE_STAGE"] == "two":
        answer = {"processed": False, "retry_after": "1h", "context": {"seen": 9007199254740993}}
    elif what == "done":
        answer["context"] = {"first": [1, {"deep": None}]}
'''
# uid, address, type, what happens to it
EVENTS = (("a-1", "d1", "hot", "reject"), ("a-2", "d1", "cold", "error"), ("a-3", "d2", "hot", "error"),
          ("a-4", "d2", "cold", "done"), ("a-5", "d1", "hot", "done"), ("a-6", "d3", "cold", "reject"))


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, _ = python_stage("work", BODY)
    chain = ({"name": "one", "exec": [stage]}, {"name": "two", "exec": [stage]})
    instance.configure(file_source("lines", lines, *chain) + "\n" + file_source("other", lines + "-other", *chain))
    big = '{"id":"b-1","do":"error","address":"d1","n":12345678901234567890,"float":1.10,"esc":"\\u00e9\\/"}'
    append(lines, *({"id": uid, "address": address, "type": type, "do": what} for uid, address, type, what in EVENTS))
    append(lines + "-other", big)
    instance.start()
    instance.wait_source(lambda s: s["dead"] == 2 and s["delayed"] == 4, "all set aside", "lines")
    instance.wait_source(lambda s: s["delayed"] == 1, "the other one, too", "other")
    equal(instance.run("hold", "a-3").returncode, 0, "hold")

    def selected(*selectors, code=0):
        return [event["uid"] for event in instance.lines("queue", *selectors, code=code)]
    ours = ["a-%d" % i for i in range(1, 7)]
    for selectors, uids in (
            ((), ours + ["b-1"]), (("ALL",), ours + ["b-1"]),
            (("--source", "lines"), ours), (("--source", "other"), ["b-1"]),
            (("--state", "dead"), ["a-1", "a-6"]), (("--state", "delayed"), ["a-2", "a-4", "a-5", "b-1"]),
            (("--state", "held"), ["a-3"]),
            (("--address", "d1"), ["a-1", "a-2", "a-5", "b-1"]), (("--type", "cold"), ["a-2", "a-4", "a-6"]),
            (("--stage", "two"), ["a-4", "a-5"]), (("--stage", "lines/one"), ["a-1", "a-2", "a-3", "a-6"]),
            (("--error", "too small"), ["a-1", "a-6"]), (("--error", "away"), ["a-2", "a-3", "b-1"]),
            (("--older", "0"), ours + ["b-1"]), (("a-2", "a-6", "a-2"), ["a-2", "a-6"]),
            (("--limit", "2"), ours[:2]), (("--limit", "1", "--state", "dead"), ["a-1"]),
            (("--address", "d1", "--type", "hot", "--state", "delayed"), ["a-5"]),
            (("a-1", "--address", "d1"), ["a-1"])):
        equal(sorted(selected(*selectors)), sorted(uids), "queue " + " ".join(selectors))
    equal(selected("--source", "lines", "--limit", "4"), ours[:4], "oldest first")
    for selectors in (("--older", "1h"), ("--address", "d9"), ("nobody",), ("--state", "running"), ("--error", "%"),
                      ("--source", "nowhere"), ("--stage", "three"), ("a-1", "--address", "d2")):
        equal(selected(*selectors, code=4), [], "queue " + " ".join(selectors))
    for wrong, message in ((("--state", "sick"), "found \"sick\""), (("--older", "5"), "duration"),
                         (("--limit", "0"), "--limit"),
                         (("--limit", "-1"), "--limit"), (("a-1", "ALL"), "not both"),
                         (("--colour", "red"), "--colour"),
                         (("-o", "uid,stat"), "state"), (("--stage", "lines/one", "--source", "lines"), "omit"),
                         (("--source",), "--source"), (("-o", "uid", "--json"), "not both"), (("",), "UID")):
        done = instance.run("queue", *wrong)
        equal((done.returncode, done.stdout), (2, ""), "queue " + " ".join(wrong))
        check(message in done.stderr, "queue %s: expected %r in %r" % (" ".join(wrong), message, done.stderr))

    one = instance.lines("queue", "a-1")[0]
    for member, value in (("source", "lines"), ("stage", "one"), ("state", "dead"), ("address", "d1"), ("type", "hot"),
                          ("reason", "rejected"), ("attempts", 1), ("crashes", 0), ("due", None), ("due_in_s", None),
                          ("error", "the a-1 is\ttoo small")):
        equal(one[member], value, member)
    check(one["arrived"].endswith("Z") and one["age_s"] < 600 and one["number"] >= 1, "when it came: %s" % one)
    delayed = instance.lines("queue", "a-2")[0]
    check(3000 < delayed["due_in_s"] <= 3600 and delayed["due"].endswith("Z"), "when it is due: %s" % delayed)
    equal(instance.run("queue", "-o", "uid,state,error,due", "a-1", "a-3").stdout,
          "a-1\tdead\tthe a-1 is too small\t\na-3\theld\tdatabase away\t\n", "fields for scripts")
    text = instance.run("queue").stdout.split("\n")
    check(text[0].split()[:4] == ["UID", "SOURCE", "STAGE", "STATE"], "head of the table: " + text[0])
    equal(len({line.find("lines") for line in text[1:7]}), 1, "the table is aligned")
    check("rejected: the a-1 is" in text[1] and "\t" not in text[1], "why it is dead: " + text[1])

    # show
    shown = instance.lines("show", "a-5")[0]
    equal((shown["done"], shown["stage"], shown["state"]), (["one"], "two", "delayed"), "what it has done")
    raw = instance.run("show", "a-4", "--json").stdout
    check('"context":{"seen": 9007199254740993}' in raw, "its context, digit for digit: " + raw)
    raw = instance.run("show", "b-1", "--json").stdout
    check('"payload":%s' % big in raw, "its payload, byte for byte: " + raw)
    text = instance.run("show", "b-1", "a-4").stdout
    check("12345678901234567890" in text and "1.10" in text and "\\u00e9\\/" in text, "in text, too: " + text)
    check("9007199254740993" in text and text.count("uid ") == 2, "both of them: " + text)
    equal(instance.lines("show", "a-1", "--source", "other", code=4), [], "show of another source's")
    equal(instance.run("show").returncode, 2, "show of nothing")
    equal(instance.run("show", "ALL").returncode, 2, "show of all")
    equal(len(instance.lines("show", "a-1", "nobody")), 1, "show of one that is there and one that is not")
    instance.stop()
    finish()


main()
