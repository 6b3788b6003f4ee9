#!/bin/sh
# SPDX-License-Identifier: MIT
# Configuration files, mutated.
. "$top_srcdir/tests/fuzz/target.sh"
python3 -B "$top_srcdir/tests/fuzz/corpus_text.py" config "$corpus"
fuzz config
