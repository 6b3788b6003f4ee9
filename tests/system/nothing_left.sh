#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs after all other tests: none of them may have left a process running or a segment in /dev/shm.
set -u
: "${top_builddir:?}"
stamp=$top_builddir/tests/started
failed=0

# Of this build: its programs, or a process that inherited a test's environment (the process titles hide that of the
# daemon's instance, and its program tells).
survivors() {
    for process in /proc/[0-9]*; do
        pid=${process#/proc/}
        [ "$pid" != $$ ] || continue
        program=$(readlink "$process/exe" 2>/dev/null) || continue
        case $program in
        "$top_builddir"/*) echo "$pid" ;;
        *)
            tr '\0' '\n' <"$process/environ" 2>/dev/null | grep -q '^EVENTPIPE_TEST=' &&
                tr '\0' '\n' <"$process/environ" 2>/dev/null | grep -Fxq "abs_top_builddir=$top_builddir" &&
                ! tr '\0' '\n' <"$process/environ" 2>/dev/null | grep -Fxq "EVENTPIPE_TEST=$EVENTPIPE_TEST" && echo "$pid"
            ;;
        esac
    done
}
# Segments made since the tests began that no process maps.
segments() {
    [ -e "$stamp" ] || return 0
    find /dev/shm -maxdepth 1 -name 'eventpipe-*' -user "$(id -u)" -newer "$stamp" 2>/dev/null | while IFS= read -r segment; do
        grep -Fqs -- "$segment" /proc/[0-9]*/maps || echo "$segment"
    done
}

# A last process may be on its way out.
tries=0
while [ -n "$(survivors)$(segments)" ] && [ $tries -lt 300 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
for pid in $(survivors); do
    echo "still running: $pid $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)"
    failed=1
done
left=$(segments)
[ -z "$left" ] || { echo "left in /dev/shm: $left"; failed=1; }
exit $failed
