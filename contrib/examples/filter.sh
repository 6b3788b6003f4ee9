#!/bin/sh
# SPDX-License-Identifier: MIT
# An exec stage in shell with jq: lets events of one type pass and removes all others.
#
#     exec: [/opt/filter.sh, temperature]
#
# jq lives as long as the worker: one JSON line in, one out, --unbuffered since each answer is waited for.
exec jq --unbuffered -c --arg type "${1:?usage: filter.sh TYPE}" \
    'if .event.type == $type then {processed: true} else {remove: true} end'
