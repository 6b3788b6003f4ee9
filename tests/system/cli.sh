#!/bin/sh
# SPDX-License-Identifier: MIT
# The command line on a living daemon, then on a killed one: each command, its data, its messages and its exit status.
set -u
: "${top_builddir:?}" "${TEST_TMPDIR:?}" "${TEST_INSTANCE:?}"
cd "$TEST_TMPDIR" || exit 99
failed=0
daemon=

complain() {
    echo "cli: $*"
    failed=1
}
finish() {
    [ -z "$daemon" ] || kill -KILL "$daemon" 2>/dev/null
    [ -z "$daemon" ] || wait "$daemon" 2>/dev/null
    rm -f "/dev/shm/eventpipe-$TEST_INSTANCE"
}
trap finish EXIT

eventpipe() {
    "$top_builddir/eventpipe" -c config.yaml "$@"
}
# expect STATUS COMMAND...: runs it; stdout and stderr stay in the files out and messages
expect() {
    wanted=$1
    shift
    eventpipe "$@" >out 2>messages
    got=$?
    [ $got -eq "$wanted" ] || complain "eventpipe $*: exit status $got, not $wanted: $(cat messages)"
}
# says TEXT: it stands in what was said last
says() {
    grep -Fq -- "$1" messages || complain "expected the message \"$1\", found: $(cat messages)"
}
# lines N: of data
lines() {
    [ "$(wc -l <out)" -eq "$1" ] || complain "expected $1 lines of data, found: $(cat out)"
}
# until_status FILTER: waits until jq finds it true of the status
until_status() {
    tries=0
    until eventpipe status --json 2>/dev/null | jq -e "$1" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 1200 ] || { complain "never came true: $1"; eventpipe status; cat daemon.log; exit 1; }
        sleep 0.1
    done
}

cat >config.yaml <<EOF
instance: $TEST_INSTANCE
storage: sqlite:$TEST_TMPDIR/events.db
control: $TEST_TMPDIR/control.sock
sources:
  - id: lines
    type: file
    path: $TEST_TMPDIR/lines.jsonl
    uid: /uid
    address: /address
    stages:
      - name: classify
        exec: [sh, $TEST_TMPDIR/classify.sh]
        retry: {min: 1h, max: 2h}
      - name: keep
        exec: [sh, $TEST_TMPDIR/classify.sh]
EOF
cat >classify.sh <<'EOF'
while IFS= read -r line; do
    case $line in
    *refuse-me*) echo '{"reject":"not wanted here"}' ;;
    *later*) echo '{"error":"not yet"}' ;;
    *) echo '{"processed":true,"context":{"big":12345678901234567890}}' ;;
    esac
done
EOF
: >lines.jsonl

# --- nothing runs yet
expect 3 status
expect 3 queue
says "the daemon is down"
expect 3 remove ALL
says "the daemon is down"
expect 2 remove
expect 2 rubbish

"$top_builddir/eventpiped" -c config.yaml >daemon.log 2>&1 &
daemon=$!
until_status '.health == "ok"'
expect 0 status
grep -q "^$TEST_INSTANCE: ok   up " out || complain "status begins with: $(head -n 1 out)"
[ ! -s messages ] || complain "status said: $(cat messages)"
"$top_builddir/eventpipe" -i "$TEST_INSTANCE" status >out || complain "status by instance: $?"

# --- events that end in each way
for i in 1 2 3; do echo "{\"uid\":\"dead-$i\",\"address\":\"d$i\",\"what\":\"refuse-me\"}"; done >>lines.jsonl
for i in 1 2; do echo "{\"uid\":\"slow-$i\",\"address\":\"d1\",\"what\":\"later\"}"; done >>lines.jsonl
for i in 1 2 3 4; do echo "{\"uid\":\"good-$i\"}"; done >>lines.jsonl
until_status '.sources[0] | .fetched == 9 and .completed == 4 and .dead == 3 and .delayed == 2'
expect 1 status
grep -q DEGRADED out || complain "three dead events, and status says: $(head -n 1 out)"
eventpipe status --json >out
jq -e '.reasons | length == 1 and (.[0] | contains("3 dead events"))' out >/dev/null || complain "reasons: $(jq -c .reasons out)"
jq -e '.sources[0].stages[0] | .answers == 9 and .processed == 4 and .rejected == 3 and .failed == 2' out >/dev/null ||
    complain "the stage's figures: $(jq -c '.sources[0].stages[0] | del(.workers)' out)"

expect 0 queue
lines 6
expect 0 queue --json --state dead
lines 3
jq -e '.reason == "rejected" and .error == "not wanted here" and .stage == "classify"' out >/dev/null || complain "a dead event: $(cat out)"
expect 0 queue -o uid,address,reason --address d1
printf 'dead-1\td1\trejected\nslow-1\td1\t\nslow-2\td1\t\n' | cmp -s - out || complain "fields: $(cat out)"
expect 4 queue --source line
says 'did you mean "lines"'
expect 4 show nobody
expect 0 show slow-1
grep -q '"what": "later"' out || complain "show: $(cat out)"

# --- changes: what would be, what is
expect 0 hold --state delayed --dry-run
lines 3
says "2 events would be held"
expect 4 queue --state held
expect 0 hold --state delayed
says "2 events held"
expect 4 hold --state delayed
expect 0 release slow-2 --json
jq -e '.uid == "slow-2" and .state == "ready" and .was == "held"' out >/dev/null || complain "release: $(cat out)"
expect 0 remove dead-1 dead-2
until_status '.sources[0] | .dead == 1 and .removed_by_operator == 2'
expect 2 remove --limit 1

# --- pauses
expect 0 pause lines/keep
until_status '.sources[0].stages[1].state == "paused" and .health == "degraded"'
expect 4 pause lines/kep
expect 0 resume lines/keep
expect 0 restart lines
until_status '[.sources[0].stages[].workers[].state] | all(. == "idle")'

# --- injected events run like others; bad lines are named and skipped
printf '%s\n' '{"uid":"i-1"}' 'rubbish' '{"payload":1}' '{"payload":1}' >inject.jsonl
expect 1 inject lines inject.jsonl
says "line 2: not JSON"
grep -q '^2 injected, 1 duplicate, 1 invalid$' out || complain "inject: $(cat out)"
until_status '.sources[0] | .injected == 2 and .completed == 6'
expect 2 inject line inject.jsonl
says 'did you mean "lines"'

expect 0 cursor lines
lines 1
expect 0 check
says "the store is sound"

# --- many events: a client that does not read delays the keeper no more than one that does
expect 0 pause lines
i=0
while [ $i -lt 5000 ]; do echo "{\"uid\":\"much-$i\",\"what\":\"later\"}"; i=$((i + 1)); done | eventpipe inject lines >out || complain "inject of 5000"
grep -q '^5000 injected' out || complain "inject: $(cat out)"
mkfifo pipe
eventpipe queue --json >pipe 2>/dev/null &
reader=$!
exec 3<pipe # opened, and not read from yet
expect 0 queue --state held
[ "$(wc -l <&3)" -eq 5003 ] || complain "a slow reader did not get all events"
exec 3<&-
wait $reader || complain "a slow reader failed"
"$top_builddir/eventpipe" -c config.yaml queue | head -n 1 | grep -q UID || complain "a reader that leaves early"
eventpipe queue >/dev/full 2>messages && complain "a full disk went unnoticed"

# --- a configuration with problems keeps nobody from looking
sed 's/exec:/exce:/' config.yaml >broken.yaml
"$top_builddir/eventpipe" -c broken.yaml status --json 2>messages | jq -e '.pid > 0' >/dev/null || complain "status with a broken configuration"
says "problem"
"$top_builddir/eventpipe" -c broken.yaml check >out 2>messages
[ $? -eq 1 ] || complain "check of a broken configuration"
grep -q 'broken.yaml:[0-9]*: .*exce' out || complain "check: $(cat out)"

# --- killed: reading commands go on, the others say so
kill -KILL "$daemon"
wait "$daemon" 2>/dev/null
daemon=
until_status '.health == "down"' # its children, which share its mark of life, exit a moment after it
expect 3 status
grep -q "$TEST_INSTANCE: DOWN" out || complain "status of a killed daemon: $(head -n 1 out)"
expect 3 status --json
jq -e '.health == "down" and .pid == null and .sources[0].dead == 1' out >/dev/null || complain "status: $(cat out)"
expect 0 queue --state dead --json
says "the daemon is down"
lines 1
expect 0 cursor lines
expect 0 show dead-3
expect 3 retry ALL
expect 3 pause lines
expect 3 inject lines inject.jsonl
expect 3 stop

# --- and an orderly end
"$top_builddir/eventpiped" -c config.yaml >daemon.log 2>&1 &
daemon=$!
until_status '.phase == "running"'
expect 0 stop --dry-run
expect 0 stop --wait
wait "$daemon" || complain "the daemon ended with $?"
daemon=
expect 3 status
grep -q "not running" out || complain "status after a stop: $(head -n 2 out)"
exit $failed
