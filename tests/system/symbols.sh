#!/bin/sh
# SPDX-License-Identifier: MIT
# Each external symbol of src/ begins with its folder's path: src/store/sqlite/claim.c defines store_sqlite_*. Public
# ep_* functions stand only in the files behind eventpipe.h. Reads the objects of a build; if there are none, the
# sources with universal-ctags.
# Status 77 (skipped): there are neither objects nor universal-ctags.
set -u
LC_ALL=C
export LC_ALL
source=${top_srcdir:-.}
build=${top_builddir:-.}
list=${TEST_TMPDIR:?}/symbols

# Lines of 'FILE SYMBOL'. An object is build/src/FOLDER/.libs/FILE.o, FOLDER/FILE.o or FOLDER/PROGRAM-FILE.o.
find "$build/src" -name '*.o' 2>/dev/null | while read -r object; do
    folder=${object#"$build/"}
    folder=${folder%/*}
    folder=${folder%/.libs}
    name=${object##*/}
    name=${name%.o}
    name=${name##*-}
    [ -f "$source/$folder/$name.c" ] || continue # of a file that is gone
    nm -g --defined-only "$object" | awk -v file="$folder/$name.c" 'NF == 3 { print file, $3 }'
done | sort -u >"$list"
if ! [ -s "$list" ]; then
    ctags --version 2>/dev/null | grep -q Universal || { echo 'symbols: no objects, and no universal-ctags' >&2; exit 77; }
    # A line that begins with } ends a static struct's definition: ctags does not see its 'static'.
    (cd "$source" && find src -name '*.c' -exec ctags --languages=C --kinds-C=fv --sort=no -x \
        --_xformat='%F %N %f %P' {} +) | awk '$3 == "-" && $4 !~ /^\/\^}/ { print $1, $2 }' | sort -u >"$list"
fi
count=$(wc -l <"$list")
[ "$count" -ge 100 ] || { echo "symbols: only $count external symbols found" >&2; exit 1; }

awk '
    {
        path = $1
        sub(/^src\//, "", path)
        sub(/\/?[^\/]*$/, "", path)
        gsub(/\//, "_", path)
        # sanitizers and coverage add names of their own
        if ($2 ~ /^(__asan|__odr_asan|__ubsan|__tsan|__gcov|__sancov|_)/ || $2 == path || index($2, path "_") == 1)
            next
        if ($2 == "main" && $1 == "src/cli/main.c")
            next
        if ($2 ~ /^ep_/ && $1 ~ /^src\/(library\/[a-z_]+|stage\/call|source\/client)\.c$/)
            next
        print "symbols: " $1 ": " $2 " does not begin with " path "_"
        wrong = 1
    }
    END { exit wrong }' "$list" >&2
