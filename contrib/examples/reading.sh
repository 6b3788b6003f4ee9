#!/bin/sh
# SPDX-License-Identifier: MIT
# An exec stage in plain sh: notes address, type and value of a reading in the event's context, such as
#   {"address":"device-003","type":"temperature","value":21.4}
#
# The event is JSON; only members whose value is the same in JSON and in plain text are taken. (A stage that wants more
# uses jq, or a language that reads JSON.)
set -f

# member NAME: the rest of $line behind "NAME":, or nothing
member() {
    rest=${line#*\""$1"\":}
    [ "$rest" != "$line" ] || rest=
    rest=${rest# }
}

while IFS= read -r line; do
    context=
    for name in address type; do
        member "$name"
        text=${rest#\"}
        text=${text%%\"*}
        case $text in '' | *[!A-Za-z0-9/.:_@-]*) continue ;; esac
        context="$context${context:+,}\"$name\":\"$text\""
    done
    member value
    value=${rest%%[!0-9.eE+-]*}
    case $value in *[0-9]) context="$context${context:+,}\"value\":$value" ;; esac
    printf '{"processed":true,"context":{%s}}\n' "$context"
done
