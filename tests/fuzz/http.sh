#!/bin/sh
# SPDX-License-Identifier: MIT
# Answers of an HTTP backend, mutated.
. "$top_srcdir/tests/fuzz/target.sh"
python3 -B "$top_srcdir/tests/fuzz/corpus_text.py" http "$corpus"
fuzz http
