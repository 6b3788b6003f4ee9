#!/bin/sh
# SPDX-License-Identifier: MIT
# An exec stage in plain sh: appends the context of each event, one JSON object a line, to the file it is given.
# An event that is seen again (its answer was lost with its worker) is written again: readers tell by "key".
#
#     exec: [/opt/append.sh, /var/lib/eventpipe/results.jsonl]
results=${1:?usage: append.sh FILE}

# A line is {"event":{...},"context":{...},"attempt":N,"key":"..."}: the context is cut out from behind, since the event may
# hold anything. (A context with a member "context" of its own wants a stage with jq.)
while IFS= read -r line; do
    context=${line%\},\"attempt\":*}
    context=${context##*,\"context\":\{}
    key=${line##*\"key\":\"}
    key=${key%\"*}
    if printf '{"key":"%s"%s}\n' "$key" "${context:+,$context}" >>"$results"; then
        printf '{"processed":true}\n'
    else
        printf '{"error":"cannot write to the results"}\n'
    fi
done
