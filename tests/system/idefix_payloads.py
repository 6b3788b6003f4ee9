#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Payloads of every kind from an Idefix backend, as a stage sees them, in each encoding: integers of 64 bits exactly, text
with any character, bytes as base64 under a key that says so (MessagePack), or as bare base64 (JSON, where the backend cannot
say), times as RFC 3339. What the requests look like, and which events the filters let through.
"""
import base64
import json

from harness import Instance, check, equal, finish, wait_for
from idefix import ACCOUNT, DOMAIN, TOKEN, Broker, Simulator, check_logs, event_text, idefix_source, seeing_stage, seen

ENCODINGS = ["mg", "m", "jg", "j"]
RAW = bytes(range(256))
B64 = base64.b64encode(RAW).decode()
TEXT = "Gr\u00fc\u00dfe \U0001f30b\U0001f9d1\u200d\U0001f680 " \
    "\u0000\u0001\u001f\u007f \"quoted\" back\\slash\ttab\nline \u2028 \ufeff end"
INTEGERS = [0, 1, -1, 127, 128, 255, 256, -32, -33, -128, -129, 65535, 65536, 2**31 - 1, 2**31, -2**31, -2**31 - 1, 2**32,
            2**53 + 1, -2**53 - 1, 2**63 - 1, 2**63, -2**63, 2**64 - 1]
FLOATS = [1.5, -0.25, 0.1, 1e300, 5e-324, 3.141592653589793, 1e21]


def nested(value, depth):
    for _ in range(depth):
        value = {"a": [value]}
    return value


# What an event holds beside its usual members, as the backend keeps it. In MessagePack what ends in :b64 is bytes.
EVENTS = {
    "integers": {"payload": {"all": INTEGERS, "big": 2**64 - 1, "small": -2**63}, "meta": {"big": 2**63}},
    "floats": {"payload": FLOATS},
    "text": {"payload": TEXT, "type": "application/vnd.example; id=\"\u00fc\"", "meta": {TEXT: TEXT}},
    "bytes": {"payload": ..., "payload_b64": B64},
    "bytes-inside": {"payload": {"frame:b64": B64, "rest": {"empty:b64": "", "one:b64": "AA=="},
                                 "list": [{"x:b64": "/w=="}]}},
    "number": {"payload": 17},
    "true": {"payload": True},
    "null": {"payload": None, "meta": None, "sourceId": ...},
    "list": {"payload": [1, "two", None, [], {}, [[]], {"three": 3}]},
    "empty": {"payload": {}, "meta": {}},
    "string": {"payload": ""},
    "nested": {"payload": nested("deep", 60)},
    "long": {"payload": {"text": "x" * 100000, "list": list(range(5000))}},
    "other-suffixes": {"payload": {"time:time": 1767225600000,
                                   "took:dur": "1m0s", "code:hex": "00ff", "packed:gzip:b64": "AA=="}},
    "strange": {"payload": {"b64": "no suffix", ":b64 in front": 1, "a:b64c": 2, "": "empty key", "no:b64": "not base64!"}},
}
STAMPS = ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05.123456789+02:00", "1970-01-01T00:00:00Z",
          "2106-02-07T06:28:16-11:30", "2200-01-01T00:00:00.000000001Z"]
# The same instants as MessagePack's timestamps are written.
INSTANTS = ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678Z", "2026-01-02T01:04:05.123456789Z", "1970-01-01T00:00:00Z",
            "2106-02-07T17:58:16Z", "2200-01-01T00:00:00.000000001Z"]


def bare(value):
    """As the backend writes it into a JSON answer's list: no suffix says what is bytes."""
    if isinstance(value, dict):
        return {key[:-4] if key.endswith(":b64") else key: bare(member) for key, member in value.items()}
    return [bare(element) for element in value] if isinstance(value, list) else value


def exact(value):
    """Tells 1 from 1.0 and from true, which are equal in Python."""
    if isinstance(value, dict):
        return {key: exact(member) for key, member in value.items()}
    return [exact(element) for element in value] if isinstance(value, list) else (type(value).__name__, value)


def check_payloads(backend, instance, calls):
    for uid, members in EVENTS.items():
        backend.event(uid, **members)
    for encoding in ENCODINGS:
        instance.wait_empty(len(EVENTS), encoding)
        found = seen(calls[encoding])
        equal([event["uid"] for event in found], list(EVENTS), encoding + ": uids in order")
        for event in found:
            wanted = json.loads(event_text(event["uid"], **EVENTS[event["uid"]]))
            wanted = bare(wanted) if "j" in encoding else wanted
            equal(exact(event), exact(wanted), "%s, as %s" % (event["uid"], encoding))


def check_times(backend, instance, calls):
    """Times as text, then as MessagePack's own."""
    for kind, wanted in (("off", STAMPS), ("timestamps", INSTANTS)):
        backend.wait_held(len(ENCODINGS))
        backend.command("garbage %s 0" % kind)
        for number, stamp in enumerate(STAMPS):
            backend.event("time-%s-%d" % (kind, number), timestamp=stamp)
        for encoding in ENCODINGS:
            wait_for(lambda: len([event for event in seen(calls[encoding]) if event["uid"].startswith("time-" + kind)])
                     == len(STAMPS), "the times in " + encoding)
            found = [event["timestamp"] for event in seen(calls[encoding]) if event["uid"].startswith("time-" + kind)]
            equal(found, wanted if "m" in encoding else STAMPS, "%s: times, %s" % (encoding, kind))
    backend.command("garbage off")


def check_requests(backend):
    """The keys, types and defaults of what the sources send."""
    for encoding in ENCODINGS:
        login = next(request for request in backend.requests("login") if request["data"]["encoding"] == encoding)
        data = login["data"]
        equal(set(data), {"address", "encoding", "token", "time", "meta", "groups", "no-create"}, "what a login says")
        equal((data["address"], data["token"], data["no-create"]), (ACCOUNT, TOKEN, False), "login")
        equal((data["meta"], data["groups"]), ({"app": "trial"}, ["one", "two"]) if encoding == "mg" else (None, None),
              "meta and groups")
        check(abs(data["time"] / 1000 - 1.7e9) < 1e9 and isinstance(data["time"], int), "Unix time in ms: %r" % data["time"])
        check(len(login["session"]) == 16 and len(login["reply"]) == 16, "16 digits: %s" % login)
        polls = [request for request in backend.requests("events.get") if request["session"] == login["session"]]
        equal(polls[0]["data"], {"domain": DOMAIN, "since": "1970-01-01T00:00:00Z", "limit": 100, "timeout": "2s"},
              "first poll")
        equal(set(polls[-1]["data"]) - set(polls[0]["data"]), {"cid"}, "what a later poll says in addition")
        check({request["flags"] for request in polls} <= {encoding, encoding[0]}, "%s: %s" % (encoding, polls[0]))
    replies = [request["reply"] for request in backend.requests()]
    equal(len(set(replies)), len(replies), "reply addresses, all of them different")


def check_filters(broker, backend):
    """Domain, address, type and since; a continuation ID instead."""
    for number in range(12):
        backend.event("f-%d" % number, domain="other", address="device-%d" % (number % 3), type="ab"[number % 2],
                      timestamp="2026-03-%02dT00:00:00+01:00" % (number + 1))
    backend.event("gone-by", domain="aside")
    wanted = {"by-address": ({"address": "device-1", "domain": "other"}, [1, 4, 7, 10]),
              "by-type": ({"domain": "other", "event_type": "b"}, [1, 3, 5, 7, 9, 11]),
              "by-time": ({"domain": "other", "since": "2026-03-09T23:00:00Z"}, [9, 10, 11]),
              "by-all": ({"domain": "other", "address": "device-0", "event_type": "a",
                          "since": "2026-03-05T00:00:00Z"}, [6]),
              "in-pages": ({"domain": "other", "page_size": 5}, list(range(12)))}
    instance = Instance("-filters")
    calls, sources = {}, ""
    for id, (keys, _) in wanted.items():
        stage, calls[id] = seeing_stage(id)
        sources += idefix_source(id, broker, {"name": "stage", "exec": [stage]}, **keys)
    instance.configure(sources)
    instance.start()
    for id, (_, numbers) in wanted.items():
        instance.wait_empty(len(numbers), id)
        equal([event["uid"] for event in seen(calls[id])], ["f-%d" % number for number in numbers], id)
    middle = [request["data"]["cid"] for request in backend.requests("events.get") if request["data"]["limit"] == 5
              and "cid" in request["data"]][0]
    instance.stop()

    after = Instance("-after")
    stage, calls = seeing_stage("after")
    after.configure(idefix_source("after", broker, {"name": "stage", "exec": [stage]}, domain="other",
                                  continuation_id=middle))
    after.start()
    after.wait_empty(7)
    equal([event["uid"] for event in seen(calls)], ["f-%d" % number for number in range(5, 12)], "after continuation_id")
    after.stop()


def main():
    broker = Broker()
    backend = Simulator(broker, "--account", "%s:%s" % (ACCOUNT, TOKEN))
    instance = Instance()
    calls, sources = {}, ""
    for encoding in ENCODINGS:
        stage, calls[encoding] = seeing_stage("stage-" + encoding)
        more = {"meta": {"app": "trial"}, "groups": ["one", "two"]} if encoding == "mg" else {}
        sources += idefix_source(encoding, broker, {"name": "stage", "exec": [stage]}, encoding=encoding, **more)
    instance.configure(sources)
    instance.start()
    backend.wait_held(len(ENCODINGS))
    check_payloads(backend, instance, calls)
    check_times(backend, instance, calls)
    check_requests(backend)
    instance.stop()
    check_filters(broker, backend)
    check_logs(backend, instance)
    finish()


main()
