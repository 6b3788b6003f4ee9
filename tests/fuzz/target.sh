# SPDX-License-Identifier: MIT
# Read by the tests beside it: fuzz TARGET CORPUS runs fuzz_TARGET over the corpus and FUZZ_EXECUTIONS mutations of it,
# always the same ones (FUZZ_SEED: others). Under a sanitizer this is the real test; without one it still finds broken
# promises. `make fuzz` runs the same targets with libFuzzer.
set -eu
corpus=$TEST_TMPDIR/corpus
fuzz() {
    exec "$top_builddir/tests/fuzz/fuzz_$1" -n "${FUZZ_EXECUTIONS:-30000}" -s "${FUZZ_SEED:-1}" "$corpus"/*
}
