#!/bin/sh
# SPDX-License-Identifier: MIT
# Requests and answers of the control socket, mutated.
. "$top_srcdir/tests/fuzz/target.sh"
python3 -B "$top_srcdir/tests/fuzz/corpus_text.py" control "$corpus"
fuzz control
