# SPDX-License-Identifier: MIT
# Tests of functions, in one process.
unit_shm_tests = \
	%D%/test_commit_request \
	%D%/test_commit_request_wait \
	%D%/test_counter \
	%D%/test_crash_log \
	%D%/test_ring \
	%D%/test_segment \
	%D%/test_slot \
	%D%/test_ticket \
	%D%/test_wake \
	%D%/test_write_lock

unit_tests = \
	%D%/test_admin \
	%D%/test_backoff \
	%D%/test_batch \
	%D%/test_call \
	%D%/test_chain \
	%D%/test_cli_args \
	%D%/test_cli_docs \
	%D%/test_config \
	%D%/test_config_keys \
	%D%/test_config_problems \
	%D%/test_exec_answer \
	%D%/test_group_codec \
	%D%/test_group_commit \
	%D%/test_group_commit_processes \
	%D%/test_idefix_captured \
	%D%/test_idefix_events \
	%D%/test_idefix_frame \
	%D%/test_idefix_query \
	%D%/test_import \
	%D%/test_import_copy \
	%D%/test_import_go \
	%D%/test_json \
	%D%/test_json_split \
	%D%/test_log \
	%D%/test_manager \
	%D%/test_msgpack \
	%D%/test_msgpack_json \
	%D%/test_msgpack_write \
	%D%/test_notify \
	%D%/test_page \
	%D%/test_relay \
	%D%/test_restart \
	%D%/test_source_client \
	%D%/test_source_file \
	%D%/test_source_file_rotation \
	%D%/test_source_generate \
	%D%/test_source_http \
	%D%/test_source_http_failures \
	%D%/test_stage_exec \
	%D%/test_stage_exec_limits \
	%D%/test_stage_exec_pipeline \
	%D%/test_stage_http \
	%D%/test_stage_plugin \
	%D%/test_status \
	%D%/test_store_crashes \
	%D%/test_store_engine \
	%D%/test_store_files \
	%D%/test_store_flow \
	%D%/test_store_group_commit \
	%D%/test_store_group_commit_again \
	%D%/test_store_import \
	%D%/test_store_operators \
	%D%/test_store_pages \
	%D%/test_store_property \
	%D%/test_store_runs \
	%D%/test_store_trace \
	%D%/test_store_wal \
	%D%/test_trace_pack \
	%D%/test_units

# what test_stage_plugin loads; one of these needs a symbol that does not exist
test_plugin_sources += \
	%D%/plugin_idle.c \
	%D%/plugin_old.c \
	%D%/plugin_other.c \
	%D%/plugin_trial.c \
	%D%/plugin_unbound.c


%C%_test_stage_plugin_LDFLAGS = $(AM_LDFLAGS) -export-dynamic
