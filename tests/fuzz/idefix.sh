#!/bin/sh
# SPDX-License-Identifier: MIT
# Frames as an Idefix backend sends them, mutated.
. "$top_srcdir/tests/fuzz/target.sh"
python3 -B "$top_srcdir/tests/fuzz/corpus_idefix.py" "$corpus"
fuzz idefix
