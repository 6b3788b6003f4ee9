#!/bin/sh
# SPDX-License-Identifier: MIT
# Answers of a stage's program, mutated.
. "$top_srcdir/tests/fuzz/target.sh"
python3 -B "$top_srcdir/tests/fuzz/corpus_text.py" exec "$corpus"
fuzz exec
