# SPDX-License-Identifier: MIT
%C%_libstore_la_SOURCES = \
	%D%/engine.h \
	%D%/sqlite/change.c \
	%D%/sqlite/check.c \
	%D%/sqlite/claim.c \
	%D%/sqlite/commit.c \
	%D%/sqlite/crashes.c \
	%D%/sqlite/group_commit.c \
	%D%/sqlite/import.c \
	%D%/sqlite/ingest.c \
	%D%/sqlite/lock.c \
	%D%/sqlite/low_water_mark.c \
	%D%/sqlite/memory.c \
	%D%/sqlite/open.c \
	%D%/sqlite/schema.c \
	%D%/sqlite/select.c \
	%D%/sqlite/select.h \
	%D%/sqlite/sqlite.c \
	%D%/sqlite/sqlite.h \
	%D%/sqlite/statements.c \
	%D%/sqlite/totals.c \
	%D%/sqlite/trace.c \
	%D%/sqlite/wal.c \
	%D%/store.c \
	%D%/store.h \
	%D%/trace_pack.c \
	%D%/trace_pack.h
