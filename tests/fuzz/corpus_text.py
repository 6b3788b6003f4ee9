#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes inputs for the fuzz targets that read text: good ones, so that mutations get far, and hostile ones.

Usage: corpus_text.py config|exec|http|control DIRECTORY
"""
import os
import sys

HOSTILE = [
    b"", b"{", b"[" * 2000, b'{"a":' * 1000, b"\x00", b"\xff\xfe\x00", b"\xef\xbb\xbf{}", b'{"a":1}{"b":2}', b"\x1b[2J\x07",
    b'"\xc2\x9b31m"', b'{"\xed\xa0\x80":1}', b'{"a":"\\ud800"}', b'{"n":' + b"9" * 400 + b"}", b"nul", b"- " * 500,
]

CONFIG = [
    """instance: quakes
storage: sqlite:/var/lib/eventpipe/quakes.db
control: /run/eventpipe/quakes.sock
synchronous: full
sources:
  - id: sensors
    type: file
    path: /var/log/sensors.jsonl
    uid: /id
    stages:
      - name: enrich
        exec: [python3, /opt/enrich.py]
        concurrency: 10
        input_buffer: 64
        timeout: 30s
        retry: {min: 1s, max: 5m}
        max_attempts: 20
      - {name: store, url: "https://collector.example/readings", headers: ["X-A: b"]}
""",
    """storage: "memory:"
sources:
- {id: couch, type: http, url: "http://db/_changes?since={cursor}", events: /results,
   cursor: {path: /last_seq, initial: "0"}, stages: [{name: s, exec: [cat]}]}
- &b {id: made, type: generate, count: 10k, size: 4KiB, rate: 10, stages: [{name: t, plugin: x.so, options: {a: [1, 2]}}]}
- *b
- <<: *b
""",
    """sources:
  - {id: acme, type: idefix, broker: "ssl://idefix.example:8883", account: user@acme, domain: acme, since: 24h,
     stages: [{name: a, exec: "x", timout: 5s, concurency: 0}]}
""",
    "sources: [\x1b[31m\n", "%YAML 9.9\n---\na: b\n---\nc: d\n", "sources: !!binary aGVsbG8=\n", "instance: \"\\e[2J\\x9b\"\nsources: 5\n",
    "a: &a [*a]\n", "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nsources: [*c,*c]\n", "? [a, b]\n: c\n",
]

EXEC = [
    '{"processed":true}', '{"processed":false,"retry_after":"30s"}', '{"processed":false,"retry_after":2.5}', '{"remove":true}',
    '{"reject":"no such station"}', '{"error":"the \\u001b[31mred\\u0007 one"}', '{"processed":true,"context":{"n":9223372036854775807}}',
    '{"processed":true,"event":{"uid":"u1","payload":[1,2.5,"x",null]},"context":{}}', '{"processed":null,"reject":null}',
    '{"processed":true,"retry_after":"36500d"}', '{"processed":false,"retry_after":1e300}', '{"processed":false,"retry_after":"-1s"}',
    'Traceback (most recent call last):\x1b[0m', '{"processed":true,"context":[]}', "\u00e4\u20ac\U0001f600" * 60,
]

HTTP_BODIES = [
    '{"results":[{"id":1,"station":"a"},{"id":2,"station":{"x":[]}}],"last_seq":"2-abc"}', '[{"id":7},{"id":8}]', "[]", "null",
    '{"results":null,"last_seq":null}', '{"results":[],"last_seq":[1,"a"]}', '[{"id":9223372036854775807}]', '[{"id":"x"}]',
    "<html>503 \x1b[31m s3cret-t0ken</html>", '{"error":"s3cret-t0ken is wrong"}', '[1,"s3cret-t0ken",null,[[]]]',
    '{"results":[{"id":"s3cret-t0ken"}],"last_seq":"s3cret-t0ken"}', "\u00e4\u20ac\U0001f600" * 80,
]

CONTROL = [
    '{"command":"queue","state":"dead","limit":5}', '{"command":"show","uids":["u1","u2"]}',
    '{"command":"retry","all":true,"dry_run":true}',
    '{"command":"hold","uids":["u1"],"source":"quakes","stage":"locate"}',
    '{"command":"release","address":"d","type":"t","older_ms":1000}',
    '{"command":"remove","error":"timed out"}', '{"command":"requeue","state":"held"}', '{"command":"cursor","source":"quakes"}',
    '{"command":"cursor","source":"quakes","set":"c-5"}', '{"command":"cursor","source":"qakes"}', '{"command":"ping"}',
    '{"command":5}',
    '{"command":"queue","limit":1e400}', '{"command":"queue","uids":[]}',
    '{"uid":"u1"}\n{"end":true,"code":0,"message":"1 event"}\n',
    '{"end":true,"code":4,"message":null}\n', '{"end":true,"code":-1}\n', '{"end":1}\nx\n', "garbage\x1b[31m\n",
    '{"command":"\\u001b[31m"}', '{"command":"queue","\\u001b[31m":1}',
]


def inputs(target):
    if target == "config":
        texts = CONFIG
    elif target == "exec":
        texts = EXEC
    elif target == "control":
        texts = CONTROL
    else:
        return [bytes([flags, status]) + body for body in [text.encode() for text in HTTP_BODIES] + HOSTILE
                for flags, status in ((1 | 2 | 8, 0), (0 | 8 | 16, 8), (4, 9), (1 | 4 | 8, 10), (8, 3), (8, 7))]
    return [text.encode() for text in texts] + HOSTILE


def main():
    target, directory = sys.argv[1:]
    os.makedirs(directory, exist_ok=True)
    for number, data in enumerate(inputs(target)):
        with open(os.path.join(directory, f"{target}-{number:03d}"), "wb") as file:
            file.write(data)


if __name__ == "__main__":
    main()
