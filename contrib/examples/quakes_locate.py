#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""An exec stage in Python: puts magnitude and region of an earthquake into the event's context.

    exec: [python3, /opt/quakes_locate.py]

eventpipe starts it once per worker and writes one JSON line per event to its stdin:

    {"event": {...}, "context": {...}, "attempt": 1, "key": "SOURCE/UID/STAGE"}

It answers each with one JSON line on stdout. Two things to remember: flush after every answer, and print nothing else
to stdout; what goes to stderr shows up in eventpipe's log.
"""
import json
import sys


def locate(call):
    properties = call["event"]["payload"]["properties"]
    context = call["context"]
    context["magnitude"] = properties.get("mag")  # null where the network has not given one yet
    # "10km NE of Aguanga, CA" lies in CA; "South of Panama" is the region itself.
    context["region"] = (properties.get("place") or "").rpartition(",")[2].strip()
    return {"processed": True, "context": context}


for line in sys.stdin:
    try:
        answer = locate(json.loads(line))
    except (KeyError, TypeError, AttributeError) as problem:
        # Trying again would not help: this is no earthquake. It goes to the dead events, with this reason.
        answer = {"reject": f"not an earthquake: {type(problem).__name__} {problem}"}
    print(json.dumps(answer), flush=True)
