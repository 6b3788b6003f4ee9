# SPDX-License-Identifier: MIT
# Fuzzing: each script runs a program of this folder over a corpus and its mutations.
fuzz_tests = \
	%D%/config.sh \
	%D%/control.sh \
	%D%/exec.sh \
	%D%/http.sh \
	%D%/idefix.sh
fuzz_programs = \
	%D%/fuzz_config \
	%D%/fuzz_control \
	%D%/fuzz_exec \
	%D%/fuzz_http \
	%D%/fuzz_idefix
%C%_fuzz_config_SOURCES = %D%/fuzz_config.c %D%/standalone.c
%C%_fuzz_control_SOURCES = %D%/fuzz_control.c %D%/standalone.c
%C%_fuzz_exec_SOURCES = %D%/fuzz_exec.c %D%/standalone.c
%C%_fuzz_http_SOURCES = %D%/fuzz_http.c %D%/standalone.c
%C%_fuzz_idefix_SOURCES = %D%/fuzz_idefix.c %D%/standalone.c

EXTRA_DIST += $(fuzz_tests) \
	%D%/corpus_idefix.py \
	%D%/corpus_text.py \
	%D%/libfuzzer \
	%D%/target.sh

# make fuzz: libFuzzer on the same targets, each for FUZZ_SECONDS; needs clang.
FUZZ_SECONDS = 300
FUZZ_TARGETS = config control exec http idefix
CLANG = clang
fuzz:
	@CLANG='$(CLANG)' CPPFLAGS='$(AM_CPPFLAGS)' LIBS='$(libraries)' FUZZ_SECONDS='$(FUZZ_SECONDS)' \
		$(SHELL) $(srcdir)/%D%/libfuzzer $(srcdir) $(FUZZ_TARGETS)
.PHONY: fuzz
