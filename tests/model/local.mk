# SPDX-License-Identifier: MIT
# Models in Promela, searched with Spin.
model_tests = %D%/tickets.sh
EXTRA_DIST += $(model_tests) \
	%D%/commit_requests.pml \
	%D%/rounds.pml \
	%D%/tickets.pml \
	%D%/tickets_state.pml \
	%D%/waits.pml \
	%D%/write_lock.pml

# it computes for a minute, and much longer on a busy machine
%D%/tickets.log: export TEST_TIMEOUT = 1800
