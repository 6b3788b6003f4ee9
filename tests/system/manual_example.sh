#!/bin/sh
# SPDX-License-Identifier: MIT
# The examples of libeventpipe(3) and of eventpipe.h compile against the built library without a warning and do what is
# said there; and the manual names everything that the header declares.
set -u
: "${top_srcdir:?}" "${top_builddir:?}" "${TEST_TMPDIR:?}"
manual=$top_srcdir/src/man/libeventpipe.3
header=$top_srcdir/src/eventpipe.h
cd "$TEST_TMPDIR" || exit 99
failed=0

complain() {
    echo "manual_example: $*"
    failed=1
}

flags=
for sanitizer in ${sanitizers-}; do
    case $sanitizer in
    asan) flags="$flags -fsanitize=address" ;;
    ubsan) flags="$flags -fsanitize=undefined" ;;
    tsan) flags="$flags -fsanitize=thread" ;;
    esac
done
# compile NAME: from NAME.c
compile() {
    # shellcheck disable=SC2046,SC2086 # flags are words
    ${CC:-cc} -std=c17 -Wall -Wextra -Wpedantic -Werror -I"$top_srcdir/src" $(pkg-config --cflags libcjson) $flags \
        -o "$1" "$1.c" -L"$top_builddir/.libs" -Wl,-rpath,"$top_builddir/.libs" -leventpipe \
        $(pkg-config --libs libcjson) || { complain "$1.c does not compile"; exit 1; }
}

# --- the header's: ten greetings
sed -n '/^ \*   #include <eventpipe.h>$/,/^ \* Link with/s/^ \*\(   \)\{0,1\}//p' "$header" | sed '/^ Link with/d' >greet.c
compile greet
./greet >greetings 2>messages || complain "the header's example: exit status $?: $(cat messages)"
for i in 1 2 3 4 5 6 7 8 9 10; do echo "hello trial-$i"; done | sort >expected
sort greetings | diff expected - || complain "the header's example: not the ten greetings above"
[ ! -s messages ] || complain "the header's example said: $(cat messages)"

# --- the manual's: ten reports, every third at the second attempt; nothing more in a second run
sed -n '/^\.Sh EXAMPLES/,/^\.Ed/p' "$manual" | sed '1,/^\.Bd/d; /^\.Ed/d; s/\\e/\\/g' >report.c
compile report
./report >reports 2>table || complain "the manual's example: exit status $?: $(cat table)"
for i in 1 2 3 4 5 6 7 8 9 10; do
    attempt=1
    case $i in 3 | 6 | 9) attempt=2 ;; esac
    grep -Eqx "trial-$i at attempt $attempt: \{\"bytes\":2[0-9][0-9]\}" reports || complain "no report of trial-$i"
done
[ "$(wc -l <reports)" -eq 10 ] || complain "expected 10 reports, found: $(cat reports)"
grep -q 'fetched 10, completed 10, removed 0' table || complain "no such figures in: $(cat table)"
./report >reports 2>table || complain "the manual's example, again: exit status $?: $(cat table)"
[ ! -s reports ] || complain "the second run reported again: $(cat reports)"
grep -q 'fetched 0, completed 0, removed 0' table || complain "no such figures in: $(cat table)"

# --- what the header declares: functions, constants, structs and their members
sed 's|/\*.*\*/||; /\/\*/,/\*\//d' "$header" >declarations
{
    sed -n 's/^EP_API .*[ *]\(ep_[a-z_0-9]*\)(.*/\1/p' declarations
    sed -n '/^enum /,/^};/p; s/^#define \(EP_[A-Z_]*\) .*/\1/p' declarations | grep -o 'EP_[A-Z_]*' | grep -vx EP_API
    sed -n 's/^struct \(ep_[a-z_]*\) {/\1/p' declarations
    sed -n '/^struct .* {/,/^};/{/^    /p}' declarations | sed 's/(\*\([a-z_]*\)).*/ \1;/' |
        tr ',' ';' | grep -o '[a-z_]*;' | tr -d ';'
} | sort -u >names
[ "$(wc -l <names)" -gt 120 ] || complain "found only $(wc -l <names) names in the header"
while read -r name; do
    grep -Eq "(^|[^A-Za-z_])$name([^A-Za-z_]|\$)" "$manual" || complain "libeventpipe(3) does not name $name"
done <names

if command -v mandoc >/dev/null; then
    mandoc -Tlint -W warning "$manual" || complain "mandoc finds fault with the manual"
fi
exit $failed
