#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The smallest useful exec stage in Python: adds to each event's context how often its address was seen by this worker.

    exec: [python3, /opt/enrich.py]
    concurrency: 1        # the count is this process's own

Answers are {"processed": true}, {"processed": false, "retry_after": "30s"}, {"remove": true}, {"reject": "why"} or
{"error": "why"}; each may carry "context" and "event", which replace what is stored.
"""
import json
import sys

seen = {}

for line in sys.stdin:
    call = json.loads(line)
    address = call["event"].get("address", "")
    seen[address] = seen.get(address, 0) + 1
    context = {**call["context"], "address": address, "seen": seen[address]}
    print(json.dumps({"processed": True, "context": context}), flush=True)  # without flush nothing arrives
