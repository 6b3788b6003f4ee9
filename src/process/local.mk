# SPDX-License-Identifier: MIT
%C%_libprocess_la_SOURCES = \
	%D%/batch.c \
	%D%/batch.h \
	%D%/chain.c \
	%D%/chain.h \
	%D%/child_context.c \
	%D%/child_context.h \
	%D%/fetcher.c \
	%D%/fetcher.h \
	%D%/group_codec.c \
	%D%/group_codec.h \
	%D%/group_commit.c \
	%D%/group_commit.h \
	%D%/keeper.c \
	%D%/keeper.h \
	%D%/process.c \
	%D%/process.h \
	%D%/producer.c \
	%D%/producer.h \
	%D%/producer_claim.c \
	%D%/producer_fetch.c \
	%D%/worker.c \
	%D%/worker.h \
	%D%/worker_commit.c \
	%D%/worker_run.c
