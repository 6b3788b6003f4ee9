#!/bin/sh
# SPDX-License-Identifier: MIT
# One thing has one name. Names that users saw before they were replaced must not come back: in the public header, the
# manuals, the documents, messages, keys, JSON members and log lines. Released steps of the store's schema keep the old
# names of columns, since they are what old stores have.
set -u
cd "${top_srcdir:-.}" || exit 99

# One extended regular expression a line, matched against whole names; then the files it does not hold for.
old='
ep_call_words
words_bytes
last_words
last words
last_death
eventpipe deaths
death log
ep_page_cursor
ep_call_retry_after
log_least
synchronous_normal
needs_scope
cursor_plus
cursor_at
cursor_last
answer_timeout
answer_timeout_ms
restart_max
EP_EGARBAGE
EP_EREFUSED
nonsense
discarded                       src/store/sqlite/schema.c
store-waits
store-works
fetch-works
lock-lost
control-deaf
one-by-one
found-dead
stop-asked
restart-asked
drain-asked
all-done
restart-later
stage-broken
WHAT CAME OF IT
TRIES
SELECTORS
co-process
what is to be done
print the version, and end
is all well, and if not
due now, counted anew
held events go on
start its processes afresh
in hand for
its workers keep dying
ends in order
from nought
Told are
words on stderr
'
failed=0
files=$(find README.md NEWS src supervisor shm contrib tests/README.md -type f ! -name '*.svg' ! -name '*.o' ! -name '*.lo' ! -name '*.la' ! -name '*.a' ! -path '*/.libs/*' ! -path '*/.deps/*')
lines=${TEST_TMPDIR:?}/old
echo "$old" | sed '/^$/d' >"$lines"
while IFS= read -r line; do
    name=${line%%  *}
    except=${line#"$name"}
    # shellcheck disable=SC2086 # lists of words
    for file in $(grep -lwE -- "$name" $files); do
        case " $except " in *" $file "*) continue ;; esac
        echo "vocabulary: $file: $(grep -nwE -m 1 -- "$name" "$file")"
        failed=1
    done
done <"$lines"
exit $failed
