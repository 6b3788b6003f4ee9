#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A stage for exec that does nothing but read its event, as any would: bench_stage.c does the same in C."""
import json
import sys

for line in sys.stdin:
    event = json.loads(line)
    print('{"processed":true}', flush=True)
