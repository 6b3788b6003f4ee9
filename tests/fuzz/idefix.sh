#!/bin/sh
# SPDX-License-Identifier: MIT
# Idefix's frames, mutated: FUZZ_EXECUTIONS inputs made from a corpus, always the same ones (FUZZ_SEED: others). Under
# a sanitizer this is the real test; without one it still finds broken promises. Longer, and with coverage:
#   clang -fsanitize=fuzzer,address,undefined on fuzz_idefix.c and the library's sources.
set -eu
python3 -B "$top_srcdir/tests/fuzz/corpus.py" "$TEST_TMPDIR/corpus"
exec "$top_builddir/tests/fuzz/fuzz_idefix" -n "${FUZZ_EXECUTIONS:-50000}" -s "${FUZZ_SEED:-1}" "$TEST_TMPDIR"/corpus/*
