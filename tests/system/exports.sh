#!/bin/sh
# SPDX-License-Identifier: MIT
# The shared library exports exactly what eventpipe.h declares, and the daemon offers the same calls to plugins.
set -u
: "${top_srcdir:?}" "${top_builddir:?}"
failed=0

declared=$(sed -n 's/^EP_API .*[ *]\(ep_[a-z_0-9]*\)(.*/\1/p' "$top_srcdir/src/eventpipe.h" | LC_ALL=C sort)
[ -n "$declared" ] || { echo "found no declaration in eventpipe.h"; exit 1; }
exported() { nm -D --defined-only "$1" | sed -n 's/^[0-9a-f]* [A-Z] //p' | sed 's/@.*//' | LC_ALL=C sort; }

library=$top_builddir/.libs/libeventpipe.so
if [ "$declared" != "$(exported "$library" | grep -v '^__')" ]; then
    echo "declared in eventpipe.h                      exported by libeventpipe.so"
    printf '%s\n' "$declared" >"$TEST_TMPDIR/declared"
    exported "$library" >"$TEST_TMPDIR/exported"
    diff -y -W 90 "$TEST_TMPDIR/declared" "$TEST_TMPDIR/exported"
    failed=1
fi

offered=$(exported "$top_builddir/eventpiped")
for symbol in $(printf '%s\n' "$declared" | grep '^ep_call_'); do
    printf '%s\n' "$offered" | grep -qx "$symbol" || { echo "eventpiped does not offer $symbol to plugins"; failed=1; }
done
exit $failed
