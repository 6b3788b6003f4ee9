/* SPDX-License-Identifier: MIT */
/* A file source with its file in a directory of its own, for the tests of the file source. */
#ifndef TESTS_LIB_FILE_RIG_H
#define TESTS_LIB_FILE_RIG_H

#include <time.h>

#include "src/source/source.h"
#include "tests/lib/unit.h"

struct file_rig {
    char directory[256], path[300];
    struct source_config config;
    void *state;
    struct page page;
    struct source_failure failure;
    atomic_bool abort;
    char *cursor;
    char seen[8192]; /* all payloads so far, each followed by | */
};

void file_rig_open_source(struct file_rig *rig);

/* Makes the directory and opens the source; the file is still missing. */
void file_rig_open(struct file_rig *rig);
void file_rig_close(struct file_rig *rig);

/* The daemon is started again: only the stored cursor is left. */
void file_rig_restart(struct file_rig *rig);

/* Fetches a page, and stores nothing. */
int file_rig_fetch(struct file_rig *rig, uint32_t limit, uint64_t wait_ms);

/* What the producer does once a page is stored. */
void file_rig_store(struct file_rig *rig);

/* Fetches and stores until a fetch brings neither events nor a new cursor. */
int file_rig_drain(struct file_rig *rig);

/* Everything that was seen since the last such look. */
void file_rig_expect_seen(struct file_rig *rig, const char *expected);

/* Writes to a file, which it makes if it is missing; `flags` are those of open(). */
void file_rig_put(const char *path, int flags, const char *text, size_t bytes);
void file_rig_add(const struct file_rig *rig, const char *text);

/* The path of the file with a suffix, until the next call. */
const char *file_rig_beside(const struct file_rig *rig, const char *suffix);

/* Gives a file a time of last writing, so that an order does not hang on how fast the test is. */
void file_rig_written_at(const char *path, time_t seconds);

#endif
