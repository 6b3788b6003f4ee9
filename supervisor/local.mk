# SPDX-License-Identifier: MIT
%C%_libsupervisor_la_SOURCES = \
	%D%/child.c \
	%D%/control.c \
	%D%/crash_report.c \
	%D%/family.h \
	%D%/library.c \
	%D%/notify.c \
	%D%/notify.h \
	%D%/orphan.c \
	%D%/phase.c \
	%D%/plan.c \
	%D%/plan.h \
	%D%/recover.c \
	%D%/relay.c \
	%D%/relay.h \
	%D%/restart.c \
	%D%/restart.h \
	%D%/run.c \
	%D%/signal.c \
	%D%/supervisor.c \
	%D%/supervisor.h \
	%D%/watch.c
