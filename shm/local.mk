# SPDX-License-Identifier: MIT
%C%_libshm_la_SOURCES = \
	%D%/commit_request.c \
	%D%/commit_request.h \
	%D%/counter.c \
	%D%/counter.h \
	%D%/crash_log.c \
	%D%/crash_log.h \
	%D%/layout.h \
	%D%/ring.c \
	%D%/ring.h \
	%D%/segment.c \
	%D%/segment.h \
	%D%/segment_create.c \
	%D%/slot.c \
	%D%/slot.h \
	%D%/ticket.c \
	%D%/ticket.h \
	%D%/wake.c \
	%D%/wake.h \
	%D%/write_lock.c \
	%D%/write_lock.h
