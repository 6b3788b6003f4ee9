#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/run: what a sanitizer reports fails a test, and what it says of a process that was killed at its end does not.
set -u
: "${top_srcdir:?}"
failed=0

# expect STATUS REPORT: the exit status of a test one process of which left this report.
expect() {
    REPORT=$2 sh "$top_srcdir/tests/run" sh -c 'printf "%s\n" "$REPORT" >"$TEST_TMPDIR/sanitizer-report.1"' >said 2>&1
    status=$?
    [ $status -eq "$1" ] && return
    echo "exit status $status, expected $1, after the report: $2"
    cat said
    failed=1
}

cd "$TEST_TMPDIR" || exit 99
killed='==28208==Unable to get registers from thread 28201.'
leak='==4711==ERROR: LeakSanitizer: detected memory leaks'
expect 1 "$leak"
expect 0 "$killed"
expect 1 "$killed
$leak"
exit $failed
