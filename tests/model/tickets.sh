#!/bin/sh
# SPDX-License-Identifier: MIT
# The models beside this file, searched exhaustively with Spin; and each step that guards the events left out in turn:
# Spin must find an error then. MODEL_LONG=1 searches larger scopes.
set -u
models=${top_srcdir:-.}/tests/model
command -v spin >/dev/null 2>&1 || { echo "skipped: spin is not installed"; exit 77; }
compiler=${CC:-cc}
command -v "${compiler%% *}" >/dev/null 2>&1 || { echo "skipped: there is no C compiler to build the checker"; exit 77; }
folder=$(mktemp -d "${TEST_TMPDIR:-/tmp}/model.XXXXXX") || exit 99
trap 'rm -rf "$folder"' EXIT
models=$(cd "$models" && pwd)
cd "$folder" || exit 99
failed=0 seen=0 mutants=0 searches=0 memory=2000 kind=-DSAFETY how=

# explore MODEL DEFINE...: the checker's words in the file `out`; built with $level of optimization, since for a mutant
# the building takes longer than the search. Memory is bounded (megabytes): what is larger counts as not searched.
explore() {
    model=$1
    shift
    rm -f pan pan.* ./*.trail out
    # shellcheck disable=SC2086 # a compiler may be two words
    { spin "-P$compiler -E -x c" "$@" -a "$models/$model.pml" &&
        $compiler "$level" -w $kind -DCOLLAPSE -DMEMLIM="$memory" -o pan pan.c; } >out 2>&1 || { cat out; return 1; }
    # shellcheck disable=SC2086 # words or none
    ./pan -m1000000 -w20 $how >out 2>&1
    grep -q '^State-vector' out || { cat out; return 1; }
}

# whole MODEL DEFINE...: no error, and nothing left unsearched
whole() {
    searches=$((searches + 1)) level=-O1
    explore "$@" || { echo "FAILED: $*: no search"; failed=1; return; }
    if grep -q 'errors: 0$' out && ! grep -qiE 'not completed|too small|out of memory|truncated' out; then
        echo "$*: no error in $(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' out) states"
    else
        echo "FAILED: $*"
        cat out
        failed=1
    fi
}

# mutant MODEL DEFINE...: an error, which the checker must find
mutant() {
    mutants=$((mutants + 1)) level=-O0
    explore "$@" || { echo "FAILED: $*: no search"; failed=1; return; }
    if grep -qE 'errors: [1-9]' out; then
        seen=$((seen + 1))
        echo "$*: seen: $(sed -n 's/^pan:1: //p' out)"
    else
        echo "FAILED: $*: not seen"
        failed=1
    fi
}

whole write_lock
mutant write_lock -DONE_LONG_SLEEP
mutant write_lock -DNOT_ROBUST

# A process that is dead stays where it is, so no state is an invalid end: `timeout` decides.
how=-E
whole rounds -DKILLS=1
mutant rounds -DKILLS=1 -DNO_CYCLE
mutant rounds -DKILLS=1 -DEMPTY_BY_HINT
whole waits -DEVENTS=2 -DKILLS=0
whole waits -DEVENTS=2 -DKILLS=1
mutant waits -DEVENTS=2 -DKILLS=0 -DNO_WOKEN
mutant waits -DEVENTS=2 -DKILLS=0 -DLOOK_FIRST
mutant waits -DEVENTS=2 -DKILLS=0 -DNO_SPACE_WANTED
mutant waits -DEVENTS=2 -DKILLS=0 -DNO_WAKE_ROOM
mutant waits -DEVENTS=2 -DKILLS=0 -DTICKETS=1 -DWAKE_FIRST
mutant waits -DEVENTS=2 -DKILLS=1 -DTICKETS=1 -DPASS_OVER_WOKEN
mutant waits -DEVENTS=2 -DKILLS=1 -DTICKETS=1 -DNO_WAKE_SOURCE
mutant waits -DEVENTS=2 -DKILLS=1 -DTICKETS=1 -DNO_TICKET_WAKE
whole commit_requests -DKILLS=0 -DROUNDS=2 -DFAULTS=1
whole commit_requests -DKILLS=0 -DWORKERS=3
whole commit_requests -DKILLS=1 -DFAULTS=1 -DNO_WRITE_LOCK
whole commit_requests -DKILLS=1 -DROUNDS=2
for step in BIT_FIRST SLEEP_UNTRIED NO_NOTIFY NOTIFY_FIRST NO_WAKE IGNORE_WITHDRAW COMPLETE_FIRST; do
    mutant commit_requests -DKILLS=0 -D$step
done
mutant commit_requests -DKILLS=0 -DROUNDS=2 -DTRY_EACH
mutant commit_requests -DKILLS=0 -DFAULTS=1 -DRETURN_AFTER_COMMIT
mutant commit_requests -DKILLS=0 -DFAULTS=2 -DFORGET_DOUBT
for step in NO_SLICES NO_SECOND_LOOK TAKE_TWICE NO_RECOVER NO_LOST NO_AGAIN_CHECK SYNC_WRITTEN; do
    mutant commit_requests -DKILLS=1 -D$step
done
# No process loops for ever: the searches find no cycle.
kind=-DNP how='-E -l'
whole rounds -DKILLS=0
mutant rounds -DKILLS=1 -DNO_HELP_TAIL
mutant rounds -DKILLS=1 -DNO_HELP_HEAD
kind=-DSAFETY how=

whole tickets -DKILLS=1
whole tickets -DKILLS=0 -DSTOPS=1
mutant tickets -DKILLS=1 -DNO_ORPHANS
mutant tickets -DKILLS=1 -DNO_REQUEUE
mutant tickets -DKILLS=1 -DTAKE_BLIND
mutant tickets -DKILLS=1 -DBIND_LATE
mutant tickets -DKILLS=1 -DORPHAN_ANYBODYS
mutant tickets -DKILLS=1 -DHAND_OVER_FIRST
mutant tickets -DKILLS=0 -DSTOPS=1 -DKEEP_LOCKS
mutant tickets -DPER_STAGE=1 -DKILLS=0 -DSTOPS=1 -DEARLY_START

# one worker a stage: two kills, a kill and the supervisor's crash, a retry, two events
whole tickets -DPER_STAGE=1 -DKILLS=2
whole tickets -DPER_STAGE=1 -DKILLS=1 -DSTOPS=1
whole tickets -DPER_STAGE=1 -DKILLS=2 -DRETRIES=1
whole tickets -DPER_STAGE=1 -DKILLS=1 -DRETRIES=1 -DSIZE=1
whole tickets -DPER_STAGE=1 -DKILLS=1 -DEVENTS=2
mutant tickets -DPER_STAGE=1 -DKILLS=2 -DNO_OPENING_LOOK
mutant tickets -DPER_STAGE=1 -DKILLS=2 -DANY_RING
mutant tickets -DPER_STAGE=1 -DKILLS=2 -DFREE_FIRST
mutant tickets -DPER_STAGE=1 -DKILLS=1 -DRETRIES=1 -DRELEASE_BY_EVENT
mutant tickets -DPER_STAGE=1 -DKILLS=1 -DRETRIES=1 -DSIZE=1 -DNO_FALLEN
if [ "${MODEL_LONG:-0}" != 0 ]; then
    how=-E
    whole rounds -DKILLS=2
    whole commit_requests -DKILLS=2 -DFAULTS=1 -DNO_WRITE_LOCK
    whole commit_requests -DKILLS=2 -DROUNDS=2
    how=
    whole tickets -DKILLS=1 -DRETRIES=1
    whole tickets -DKILLS=2 -DTICKETS=1 -DSIZE=2
fi
echo "$searches searches, $seen of $mutants mutants seen"
exit $failed
