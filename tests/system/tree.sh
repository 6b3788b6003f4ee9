#!/bin/sh
# SPDX-License-Identifier: MIT
# The tree keeps its own rules: every file is named in Makefile.am, none is too long, each has its SPDX line, the
# folders are layers (no #include goes upwards), and no line names a folder of one person's machine.
set -u
cd "${top_srcdir:-.}" || exit 99
failed=0
complain() {
    echo "tree: $*"
    failed=1
}

# All source files, whether in a checkout or unpacked from an archive.
sources() {
    find shm src supervisor tests contrib .ci -type f \( -name '*.[ch]' -o -name '*.sh' -o -name '*.py' \
        -o -name '*.in' -o -name '*.yaml' -o -name '*.json' -o -name '*.jsonl' -o -name '*.sysusers' -o -name '*.md' \
        -o -name '*.[1-8]' -o -name bench -o -name quickstart -o -name run \) 2>/dev/null | LC_ALL=C sort
}

names=$(tr -s ' \t\\=' '\n\n\n\n' <Makefile.am)
sources | while IFS= read -r file; do
    # a test program is named by its stem: its source is the default one
    for name in "$file" "${file%.c}"; do
        printf '%s\n' "$names" | grep -Fxq -- "$name" && continue 2
    done
    echo "$file"
done >"${TEST_TMPDIR:-/tmp}/unnamed"
[ ! -s "${TEST_TMPDIR:-/tmp}/unnamed" ] || complain "not named in Makefile.am:" $(cat "${TEST_TMPDIR:-/tmp}/unnamed")
rm -f "${TEST_TMPDIR:-/tmp}/unnamed"

for file in $(sources | grep '\.[ch]$'); do
    lines=$(wc -l <"$file")
    [ "$lines" -le 600 ] || complain "$file has $lines lines, 600 is the most"
    head -n 1 "$file" | grep -Fq 'SPDX-License-Identifier: MIT' || complain "$file: its first line is no SPDX line"
done
for file in $(sources | grep -E '\.(sh|py|in)$|/(bench|quickstart|run)$') configure.ac Makefile.am; do
    case $file in src/library/libeventpipe.pc.in) continue ;; esac
    head -n 3 "$file" | grep -Fq 'SPDX-License-Identifier: MIT' || complain "$file: no SPDX line in its first three"
done

# includes FOLDER PATTERN: the lines in FOLDER that include what PATTERN does not allow
includes() {
    grep -nE '^[[:space:]]*#[[:space:]]*include' "$1"/*.[ch] 2>/dev/null | grep -vE "$2"
}
libc='assert|ctype|errno|fcntl|inttypes|limits|linux/futex|math|poll|pthread|sched|signal|stdarg|stdatomic|stdbool|stddef|stdint|stdio|stdlib|string|sys/(eventfd|file|mman|stat|statvfs|syscall|sysmacros|types|random|resource|time)|time|unistd'
found=$(includes shm "include[[:space:]]+(\"shm/|<($libc)\.h>)")
[ -z "$found" ] || complain "shm/ includes only shm/ and libc:
$found"
found=$(includes src 'include[[:space:]]+("(shm|src)/|<)')
[ -z "$found" ] || complain "src/ includes only shm/ and src/:
$found"
found=$(includes supervisor 'include[[:space:]]+("(shm|src|supervisor)/|<)')
[ -z "$found" ] || complain "supervisor/ includes only shm/, src/ and supervisor/:
$found"
found=$(grep -lE '^[[:space:]]*#[[:space:]]*include.*sqlite3\.h' shm/*.[ch] src/*.[ch] supervisor/*.[ch] contrib/examples/*.[ch] \
    2>/dev/null | grep -vE '^src/(store_sqlite[a-z0-9_]*\.[ch]|import_go\.c)$')
[ -z "$found" ] || complain "sqlite3.h is for src/store_sqlite* and src/import/go_database.c alone: $found"
found=$(grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]+"' src/eventpipe.h)
[ -z "$found" ] || complain "the public header stands alone: $found"

headers=$(sed -n 's/^include_HEADERS *= *//p' Makefile.am)
[ "$headers" = src/eventpipe.h ] || complain "installed headers are '$headers', not src/eventpipe.h alone"
grep -qE '^(nobase_|dist_|nodist_)*(pkginclude|include)_HEADERS' Makefile.am &&
    [ "$(grep -cE '_HEADERS *\+?=' Makefile.am)" -ne 1 ] && complain "more than one list of installed headers"

# [x] keeps this very line from matching itself
found=$(sources | xargs grep -nE '(^|[^A-Za-z0-9_.$}])/([w]ork|[h]ome/[a-z]+|[r]oot)/[A-Za-z.]' /dev/null *.md NEWS configure.ac Makefile.am 2>/dev/null)
[ -z "$found" ] || complain "names a folder of one machine:
$found"

exit $failed
