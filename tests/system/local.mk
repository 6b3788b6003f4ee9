# SPDX-License-Identifier: MIT
# Tests of the whole program: one scenario a file.
system_tests = \
	%D%/backend_fails.py \
	%D%/backlog_pauses_fetching.py \
	%D%/benchmark.py \
	%D%/changed_stages.py \
	%D%/chaos_parts.py \
	%D%/cli.sh \
	%D%/clock_set.py \
	%D%/command_chaos.py \
	%D%/command_check.py \
	%D%/command_crashes.py \
	%D%/command_cursor.py \
	%D%/command_inject.py \
	%D%/command_queue.py \
	%D%/command_status.py \
	%D%/command_trace.py \
	%D%/commands_change.py \
	%D%/commands_offline.py \
	%D%/commands_order.py \
	%D%/config_refused.py \
	%D%/control_permissions.py \
	%D%/crash_blames_one.py \
	%D%/disk_full.py \
	%D%/errors_swallow_nothing.py \
	%D%/examples.py \
	%D%/exports.sh \
	%D%/failing_events_starve_none.py \
	%D%/fetch_errors_end_nothing.py \
	%D%/graceful_shutdown.py \
	%D%/grandchildren_end.py \
	%D%/idefix_hostile.py \
	%D%/idefix_outages.py \
	%D%/idefix_payloads.py \
	%D%/idefix_quakes_plain.py \
	%D%/idefix_quakes_tls.py \
	%D%/idefix_refusals.py \
	%D%/idefix_retry_beside_poll.py \
	%D%/idefix_status_after_failure.py \
	%D%/idle_program_dies.py \
	%D%/import_go.py \
	%D%/keeper_and_producer_killed.py \
	%D%/layers.sh \
	%D%/library_example.sh \
	%D%/limits.py \
	%D%/limits_reached.py \
	%D%/malformed_answers_are_shown.py \
	%D%/manual_example.sh \
	%D%/page_and_cursor_together.py \
	%D%/pages_without_pause.py \
	%D%/pid_reuse.py \
	%D%/pipelining.py \
	%D%/poison_device.py \
	%D%/process_titles.py \
	%D%/quakes_file.py \
	%D%/quakes_http.py \
	%D%/readme_first_pipeline.py \
	%D%/restarts_slow_down.py \
	%D%/retries_back_off.py \
	%D%/retry_beside_flood.py \
	%D%/retry_beside_long_poll.py \
	%D%/run_reports.sh \
	%D%/second_daemon_refused.py \
	%D%/segment_of_another_version.py \
	%D%/service_manager.py \
	%D%/shapes_http.py \
	%D%/shm_full.py \
	%D%/sources_stand_alone.py \
	%D%/stage_limits.py \
	%D%/stage_user.py \
	%D%/stages_hang.py \
	%D%/stages_misbehave.py \
	%D%/start_is_cheap.py \
	%D%/stop_keeps_answers.py \
	%D%/store_corrupted.py \
	%D%/store_locked.py \
	%D%/store_read_only.py \
	%D%/store_refused.py \
	%D%/storm.py \
	%D%/supervisor_killed.py \
	%D%/supervisor_stopped.py \
	%D%/symbols.sh \
	%D%/timeout_kills_all.py \
	%D%/tokens_stay_inside.py \
	%D%/tree.sh \
	%D%/two_supervisors.py \
	%D%/undecodable_event.py \
	%D%/undecodable_input.py \
	%D%/vocabulary.sh \
	%D%/wal_bounded.py

last_tests = %D%/nothing_left.sh

# what clock_set.py preloads, and the stages of storm.py
test_plugin_sources += \
	%D%/clock_shift.c \
	%D%/storm_stage.c

EXTRA_DIST += $(system_tests) $(last_tests) \
	%D%/collector.py \
	%D%/feed_server.py \
	%D%/harness.py \
	%D%/idefix.py \
	%D%/idefix_quakes.py \
	%D%/quakes.py \
	%D%/storm_calls.py

# it starts some forty pipelines
%D%/benchmark.log: export TEST_TIMEOUT = 1800
# With make -j, too, the last test waits for all others.
%D%/nothing_left.log: $(filter-out %D%/nothing_left.log,$(TEST_LOGS))
