# SPDX-License-Identifier: MIT
%C%_libsupervisor_la_SOURCES = \
	%D%/child.c \
	%D%/child.h \
	%D%/control.c \
	%D%/control.h \
	%D%/crash_report.c \
	%D%/crash_report.h \
	%D%/exit_cause.c \
	%D%/exit_cause.h \
	%D%/library.c \
	%D%/notify.c \
	%D%/notify.h \
	%D%/orphan.c \
	%D%/orphan.h \
	%D%/phase.c \
	%D%/phase.h \
	%D%/plan.c \
	%D%/plan.h \
	%D%/recover.c \
	%D%/recover.h \
	%D%/relay.c \
	%D%/relay.h \
	%D%/restart.c \
	%D%/restart.h \
	%D%/run.c \
	%D%/signal.c \
	%D%/signal.h \
	%D%/state.h \
	%D%/supervisor.c \
	%D%/supervisor.h \
	%D%/watch.c \
	%D%/watch.h
