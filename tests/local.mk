# SPDX-License-Identifier: MIT
# make check runs all tests; check-unit, check-process, check-system and check-fuzz run one kind, check-shm those of shm/
# (for --enable-tsan), check-program all that run the program (for sanitizers). tests/run gives each test its own folder,
# process group and time limit.
test_plugin_sources =
nobase_dist_doc_DATA += %D%/README.md
include %D%/lib/local.mk
include %D%/unit/local.mk
include %D%/process/local.mk
include %D%/system/local.mk
include %D%/model/local.mk
include %D%/fuzz/local.mk

test_programs = $(unit_shm_tests) $(unit_tests) $(process_shm_tests) $(process_tests)
test_plugins = $(test_plugin_sources:.c=.so)
$(test_plugins): src/eventpipe.h
CLEANFILES += $(test_plugins) %D%/started
EXTRA_DIST += $(test_plugin_sources) \
	%D%/.clang-tidy \
	%D%/lint \
	%D%/run

LDADD = %D%/lib/libtest.la src/cli/libcli.la $(layers) $(CUNIT_LIBS) $(libraries)
if HAVE_CUNIT
check_LTLIBRARIES = %D%/lib/libtest.la
check_PROGRAMS = $(test_programs) $(fuzz_programs)
check_DATA = $(test_plugins)
TESTS = $(test_programs) $(fuzz_tests) $(model_tests) $(system_tests) $(last_tests)
else
check-local:
	@echo "make check needs CUnit: apt-get install libcunit1-dev, then run configure again" >&2; exit 1
endif

TEST_EXTENSIONS = .sh .py
LOG_COMPILER = $(SHELL) $(srcdir)/%D%/run
SH_LOG_COMPILER = $(SHELL) $(srcdir)/%D%/run $(SHELL)
PY_LOG_COMPILER = $(SHELL) $(srcdir)/%D%/run python3 -B
AM_TESTS_ENVIRONMENT = \
	mkdir -p %D%; test -e %D%/started || : >%D%/started; \
	top_srcdir=`cd $(top_srcdir) && pwd`; abs_top_srcdir=$$top_srcdir; \
	top_builddir=`pwd`; abs_top_builddir=$$top_builddir; \
	EP_TEST_PLUGIN_DIR=`pwd`/%D%/unit; export EP_TEST_PLUGIN_DIR; \
	sanitizers='$(sanitizers)'; CC='$(CC)'; PACKAGE_VERSION='$(PACKAGE_VERSION)'; \
	export top_srcdir abs_top_srcdir top_builddir abs_top_builddir sanitizers CC PACKAGE_VERSION;

check-unit: all
	$(AM_V_at)$(MAKE) $(AM_MAKEFLAGS) $(unit_shm_tests) $(unit_tests) $(test_plugins)
	$(AM_V_at)$(MAKE) $(AM_MAKEFLAGS) check-TESTS TESTS='$(unit_shm_tests) $(unit_tests)'
check-process: all
	$(AM_V_at)$(MAKE) $(AM_MAKEFLAGS) $(process_shm_tests) $(process_tests)
	$(AM_V_at)$(MAKE) $(AM_MAKEFLAGS) check-TESTS TESTS='$(process_shm_tests) $(process_tests)'
check-system: all
	$(AM_V_at)$(MAKE) $(AM_MAKEFLAGS) $(check_DATA)
	$(AM_V_at)$(MAKE) $(AM_MAKEFLAGS) check-TESTS TESTS='$(system_tests) $(last_tests)'
check-fuzz: all
	$(AM_V_at)$(MAKE) $(AM_MAKEFLAGS) $(fuzz_programs)
	$(AM_V_at)$(MAKE) $(AM_MAKEFLAGS) check-TESTS TESTS='$(fuzz_tests)'
check-shm:
	$(AM_V_at)$(MAKE) $(AM_MAKEFLAGS) $(unit_shm_tests) $(process_shm_tests)
	$(AM_V_at)$(MAKE) $(AM_MAKEFLAGS) check-TESTS TESTS='$(unit_shm_tests) $(process_shm_tests)'
check-program: all
	$(AM_V_at)$(MAKE) $(AM_MAKEFLAGS) $(check_PROGRAMS) $(check_DATA)
	$(AM_V_at)$(MAKE) $(AM_MAKEFLAGS) check-TESTS TESTS='$(filter-out $(model_tests),$(TESTS))'

# Under valgrind: the library, and every test of one process. Left out are tests that start programs valgrind cannot
# follow, and tests that take minutes in it.
valgrind_tests = $(filter-out %/test_cli_docs %/test_idefix_events %/test_msgpack_json %/test_source_http \
	%/test_source_http_failures %/test_stage_exec %/test_stage_exec_pipeline %/test_stage_exec_limits %/test_stage_http \
	%/test_store_property,$(unit_shm_tests) $(unit_tests)) $(filter %/test_library %/test_library_client \
	%/test_library_faults %/test_library_stop,$(process_tests))
VALGRIND = valgrind --quiet --leak-check=full --show-leak-kinds=definite,indirect \
	--errors-for-leak-kinds=definite,indirect --error-exitcode=99
check-valgrind: all
	@command -v valgrind >/dev/null || { echo 'check-valgrind: apt-get install valgrind' >&2; exit 1; }
	$(AM_V_at)$(MAKE) $(AM_MAKEFLAGS) $(valgrind_tests) $(test_plugins)
	$(AM_V_at)TEST_PREFIX='$(VALGRIND)' TEST_TIMEOUT=900 $(MAKE) $(AM_MAKEFLAGS) check-TESTS TESTS='$(valgrind_tests)'
.PHONY: check-unit check-process check-system check-fuzz check-shm check-program check-valgrind

# make lint needs clang-tidy, clang-format, cppcheck and a C++ compiler; it prints nothing if all is well.
lint:
	@cd $(srcdir) && CC='$(CC)' CXX='$(CXX)' CPPFLAGS='$(AM_CPPFLAGS)' CJSON_CFLAGS='$(CJSON_CFLAGS)' $(SHELL) %D%/lint
CXX = c++
.PHONY: lint
