# SPDX-License-Identifier: MIT
%C%_libcli_la_CPPFLAGS = $(AM_CPPFLAGS) -DCHAOS_HELPER='"$(chaosdir)/main.py"'
%C%_libcli_la_SOURCES = \
	%D%/chaos.c \
	%D%/check.c \
	%D%/cli.h \
	%D%/client.c \
	%D%/crashes.c \
	%D%/import.c \
	%D%/inject.c \
	%D%/instance.c \
	%D%/options.c \
	%D%/order.c \
	%D%/queue.c \
	%D%/select.c \
	%D%/show.c \
	%D%/status.c \
	%D%/status.h \
	%D%/status_command.c \
	%D%/status_health.c \
	%D%/status_json.c \
	%D%/status_store.c \
	%D%/status_text.c \
	%D%/status_units.c \
	%D%/table.c \
	%D%/table.h \
	%D%/trace.c
