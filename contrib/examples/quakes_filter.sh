#!/bin/sh
# SPDX-License-Identifier: MIT
# An exec stage in shell with jq: removes earthquakes below magnitude 1.0; `remove` wins over `processed`.
#
#     exec: [/opt/quakes_filter.sh]
#
# One jq runs as long as the worker does: it reads a JSON line per event and writes one per answer. --unbuffered, since
# eventpipe waits for each answer before it sends the next event; exec, so that no shell stands in between. An event
# without a magnitude is kept: null is not "below".
exec jq --unbuffered -c '
    .context.magnitude as $magnitude
    | if ($magnitude | type) == "number" and $magnitude < 1.0 then {remove: true} else {processed: true} end'
