#!/bin/sh
# SPDX-License-Identifier: MIT
# The tree keeps its own rules: the local.mk of its folder lists every file, none is too long, each has its SPDX line, one
# header is installed, and no line names a folder of one person's machine. (layers.sh holds what may include what.)
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
        -o -name '*.[1-8]' -o -name bench -o -name quickstart -o -name run -o -name lint -o -name libfuzzer \) 2>/dev/null | LC_ALL=C sort
}

# A fragment names the files of its own folder as %D%/NAME.
names=$(tr -s ' \t\\=' '\n\n\n\n' <Makefile.am
find shm src supervisor tests contrib -name local.mk | while IFS= read -r fragment; do
    tr -s ' \t\\=' '\n\n\n\n' <"$fragment" | sed "s|%D%|${fragment%/local.mk}|"
done)
sources | while IFS= read -r file; do
    # a test program is named by its stem: its source is the default one
    for name in "$file" "${file%.c}"; do
        printf '%s\n' "$names" | grep -Fxq -- "$name" && continue 2
    done
    echo "$file"
done >"${TEST_TMPDIR:-/tmp}/unnamed"
[ ! -s "${TEST_TMPDIR:-/tmp}/unnamed" ] || complain "listed in no local.mk:" $(cat "${TEST_TMPDIR:-/tmp}/unnamed")
rm -f "${TEST_TMPDIR:-/tmp}/unnamed"

for file in $(sources | grep '\.[ch]$'); do
    lines=$(wc -l <"$file")
    [ "$lines" -le 600 ] || complain "$file has $lines lines, 600 is the most"
    head -n 1 "$file" | grep -Fq 'SPDX-License-Identifier: MIT' || complain "$file: its first line is no SPDX line"
done
for file in $( (sources; find shm src supervisor tests contrib -name local.mk) | grep -E '\.(sh|py|in)$|/(bench|quickstart|run|lint|libfuzzer)$|/local\.mk$') configure.ac Makefile.am; do
    case $file in src/library/libeventpipe.pc.in) continue ;; esac
    head -n 3 "$file" | grep -Fq 'SPDX-License-Identifier: MIT' || complain "$file: no SPDX line in its first three"
done

headers=$(cat Makefile.am $(find shm src supervisor contrib tests -name local.mk) | grep -E '^[a-z_]*include_HEADERS')
[ "$headers" = 'include_HEADERS = src/eventpipe.h' ] || complain "installed headers: '$headers', not src/eventpipe.h alone"

# [x] keeps this very line from matching itself
found=$(sources | xargs grep -nE '(^|[^A-Za-z0-9_.$}])/([w]ork|[h]ome/[a-z]+|[r]oot)/[A-Za-z.]' /dev/null *.md NEWS configure.ac Makefile.am 2>/dev/null)
[ -z "$found" ] || complain "names a folder of one machine:
$found"

exit $failed
