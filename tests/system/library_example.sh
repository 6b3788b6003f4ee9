#!/bin/sh
# SPDX-License-Identifier: MIT
# contrib/examples/library.c: a caller's own client and stages; runs on one store add up, also when one is stopped.
set -u
: "${top_builddir:?}" "${TEST_TMPDIR:?}"
cd "$TEST_TMPDIR" || exit 99
failed=0

complain() {
    echo "library_example: $*"
    failed=1
}
library=$top_builddir/contrib/examples/library
# numbers FROM TO: lines of one to seven words
numbers() {
    awk -v from="$1" -v to="$2" 'BEGIN {
        for (i = from; i <= to; i++) {
            for (j = 0; j < i % 7; j++) printf "word ";
            print "number" i
        }
    }'
}
# reported: every line of text.txt stands once in the report, with its number of words
reported() {
    LC_ALL=C awk '{ if ($0 != "") printf "lines/%d/report\t%d\n", at, NF; at += length($0) + 1 }' text.txt | sort >expected
    sort report | diff expected - >difference || complain "$1: $(head -5 difference)"
}

"$library" 2>messages && complain "without arguments it ends well"
grep -q '^usage: ' messages || complain "no word on how it is used: $(cat messages)"

# a line that is not ended yet is left for later; empty lines are removed
{ numbers 1 1000; echo; echo; } >text.txt
cp text.txt whole.txt
printf 'half a' >>text.txt
"$library" text.txt store report >table || complain "exit status $?"
cp whole.txt text.txt
reported "first run"
grep -q 'fetched 1002, completed 1000, removed 2' table || complain "no such figures in: $(cat table)"
grep -Eq '^weigh +3 ' table || complain "no fourth worker in: $(cat table)"

# only what was added
{ cat whole.txt; echo "half a line"; numbers 1001 1100; } >text.txt
"$library" text.txt store report >table || complain "exit status $?"
reported "second run"
grep -q 'fetched 101, completed 101, removed 0' table || complain "no such figures in: $(cat table)"

# stopped in between, gracefully: the next run does the rest, and nothing twice
numbers 1101 30000 >>text.txt
"$library" text.txt store report >table &
program=$!
tries=0
until [ "$(wc -l <report)" -gt 1500 ]; do
    tries=$((tries + 1))
    [ $tries -lt 6000 ] || { complain "nothing was reported"; break; }
    sleep 0.02
done
kill -TERM "$program"
wait "$program" || complain "stopped, exit status $?"
[ "$(wc -l <report)" -lt 29000 ] || echo "library_example: it was too fast to be stopped in between"
"$library" text.txt store report >table || complain "exit status $?"
reported "after a stop"

"$library" missing.txt store report >table 2>messages &
program=$!
tries=0
until grep -q 'missing.txt: No such file' messages; do
    tries=$((tries + 1))
    [ $tries -lt 6000 ] || { complain "no word on the missing file: $(cat messages)"; break; }
    sleep 0.02
done
kill -INT "$program"
kill -TERM "$program"
wait "$program" || complain "stopped while it waits for its file, exit status $?"

"$library" text.txt no/store report 2>messages && complain "ends well without a store"
grep -q 'library: .*no' messages || complain "no word on the store: $(cat messages)"
exit $failed
