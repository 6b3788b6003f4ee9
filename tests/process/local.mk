# SPDX-License-Identifier: MIT
# Tests of real processes, and of what SIGKILL leaves behind.
process_shm_tests = \
	%D%/test_shm_kill \
	%D%/test_shm_threads

process_tests = \
	%D%/test_group_commit_doubt \
	%D%/test_idefix_client \
	%D%/test_idefix_connect \
	%D%/test_library \
	%D%/test_library_client \
	%D%/test_library_faults \
	%D%/test_library_stop \
	%D%/test_power \
	%D%/test_ring_full \
	%D%/test_source_idefix \
	%D%/test_step_group_commit \
	%D%/test_step_shm \
	%D%/test_step_store \
	%D%/test_step_write_lock \
	%D%/test_store_kill \
	%D%/test_supervisor \
	%D%/test_supervisor_control


# libmosquitto must find this program's getaddrinfo
%C%_test_idefix_connect_LDFLAGS = $(AM_LDFLAGS) -export-dynamic
