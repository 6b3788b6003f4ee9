# SPDX-License-Identifier: MIT
# Programs beside: the benchmark, a simulated Idefix backend, examples. They are built with everything, so that they keep
# working; the tests run them.

# --- make bench measures beside what the machine can do at all, on the disk of the build folder or of
# BENCH_FLAGS=--directory=...; contrib/bench --help names the figures and options. make bench-check says which targets
# hold. make bench-document is bench, and writes the result into benchmark.md and its chart.
noinst_PROGRAMS += \
	%D%/bench-alone \
	%D%/bench-append \
	%D%/bench-fill \
	%D%/bench-pipeline \
	%D%/bench-stage
bench_tool = %D%/bench_tool.c %D%/bench_tool.h
bench_pipeline = $(bench_tool) %D%/bench_parts.c %D%/bench_parts.h %D%/bench_stamps.c %D%/bench_stamps.h
%C%_bench_alone_SOURCES = %D%/bench_alone.c $(bench_tool)
%C%_bench_alone_LDADD = $(SQLITE_LIBS)
%C%_bench_append_SOURCES = %D%/bench_append.c $(bench_tool)
%C%_bench_append_LDADD =
%C%_bench_fill_SOURCES = %D%/bench_fill.c $(bench_pipeline)
%C%_bench_fill_LDADD = $(layers) $(libraries)
%C%_bench_fill_LDFLAGS = $(%C%_bench_pipeline_LDFLAGS)
%C%_bench_pipeline_SOURCES = %D%/bench_pipeline.c $(bench_pipeline)
%C%_bench_pipeline_LDADD = $(layers) $(libraries)
# its processes note when store_claim_end and process_group_commit return
%C%_bench_pipeline_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=store_ingest_begin -Wl,--wrap=store_claim_end -Wl,--wrap=process_group_commit
%C%_bench_stage_SOURCES = %D%/bench_stage.c
%C%_bench_stage_LDADD =
BENCH = python3 -B $(srcdir)/%D%/bench --build .
BENCH_FLAGS =
bench: all
	$(BENCH) --json bench.json --chart bench.svg $(BENCH_FLAGS)
bench-check: all
	$(BENCH) --check --json bench-check.json $(BENCH_FLAGS)
bench-document: all
	$(BENCH) --json bench.json --chart $(srcdir)/%D%/bench.svg --document $(srcdir)/%D%/benchmark.md $(BENCH_FLAGS)
.PHONY: bench bench-check bench-document
CLEANFILES += bench.json bench.svg bench-check.json

# --- an Idefix backend to try things against
noinst_PROGRAMS += %D%/idefix-sim
%C%_idefix_sim_SOURCES = \
	%D%/idefix_sim.c \
	%D%/idefix_sim.h \
	%D%/idefix_sim_calls.c \
	%D%/idefix_sim_events.c \
	%D%/idefix_sim_garbage.c \
	%D%/idefix_sim_orders.c \
	%D%/idefix_sim_polls.c
%C%_idefix_sim_LDADD = $(layers) $(libraries)

# --- examples: a program on the shared library, plugins, and programs that are run as they are
noinst_PROGRAMS += %D%/examples/library
%C%_examples_library_LDADD = libeventpipe.la $(CJSON_LIBS)
plugin_sources = %D%/bench_plugin.c %D%/examples/plugin_classify.c %D%/examples/plugin_count.c
plugins = $(plugin_sources:.c=.so)
noinst_DATA += $(plugins)
$(plugins): src/eventpipe.h
CLEANFILES += $(plugins)

# --- the helper program of `eventpipe chaos`; tests/system/storm.py uses its modules, too
chaosdir = $(pkglibexecdir)/chaos
dist_chaos_DATA = \
	%D%/chaos/accounting.py \
	%D%/chaos/daemon.py \
	%D%/chaos/faults.py \
	%D%/chaos/feed.py \
	%D%/chaos/main.py \
	%D%/chaos/processes.py \
	%D%/chaos/recorder.py \
	%D%/chaos/report.py \
	%D%/chaos/run.py \
	%D%/chaos/run_config.py \
	%D%/chaos/store.py

# --- systemd
if SYSTEMD
systemdsystemunit_DATA = %D%/eventpiped@.service
install-data-hook:
	$(MKDIR_P) "$(DESTDIR)$(sysusersdir)"
	$(INSTALL_DATA) $(srcdir)/%D%/eventpipe.sysusers "$(DESTDIR)$(sysusersdir)/eventpipe.conf"
uninstall-hook:
	rm -f "$(DESTDIR)$(sysusersdir)/eventpipe.conf"
endif
%D%/eventpiped@.service: %D%/eventpiped@.service.in Makefile
	@$(MKDIR_P) $(@D)
	$(AM_V_GEN)$(SED) -e 's|@sbindir[@]|$(sbindir)|g' $(srcdir)/%D%/eventpiped@.service.in >$@
CLEANFILES += %D%/eventpiped@.service

EXTRA_DIST += $(plugin_sources) \
	%D%/bench \
	%D%/bench_figures.py \
	%D%/bench_instance.py \
	%D%/bench_machine.py \
	%D%/bench_measure.py \
	%D%/bench_report.py \
	%D%/bench_stage.py \
	%D%/eventpipe.sysusers \
	%D%/eventpiped@.service.in \
	%D%/quickstart
nobase_dist_doc_DATA += \
	%D%/bench.svg \
	%D%/benchmark.md \
	%D%/eventpipe.sample.yaml \
	%D%/examples/append.sh \
	%D%/examples/dpkg_parse.sh \
	%D%/examples/enrich.py \
	%D%/examples/filter.sh \
	%D%/examples/library.c \
	%D%/examples/plugin_classify.c \
	%D%/examples/plugin_count.c \
	%D%/examples/quakes_filter.sh \
	%D%/examples/quakes_locate.py \
	%D%/examples/reading.sh \
	%D%/examples/upper.c
