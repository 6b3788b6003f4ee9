/* SPDX-License-Identifier: MIT */
/*
 * What an engine of the store implements: one function for each of store.h, with the meaning written there.
 * The engine's own handle begins with a struct store. A new engine is one more row in the table of store.c.
 */
#ifndef STORE_ENGINE_H
#define STORE_ENGINE_H

#include "src/store/store.h"

/* In every engine an event's id has the source's store id in its upper bits, and its number in order of
 * arrival in these lower ones. */
#define STORE_NUMBER_BITS 44

struct store_ops {
    int (*hold)(const struct store_options *options, uint64_t wait_ms, int *lock_fd, struct error *error);
    void (*leave)(const struct store_options *options);
    int (*prepare)(const struct store_options *options, struct store_names *names, size_t count,
                   uint64_t *start_number, struct error *error);
    int (*open)(const struct store_options *options, struct store **out, struct error *error);
    void (*close)(struct store *store);

    int (*ingest_begin)(struct store *store, int64_t source, const struct store_page *page,
                        const struct store_claim *claim, struct store_ingested *out,
                        struct store_claimed *claimed);
    int (*claim_begin)(struct store *store, int64_t source, uint64_t now_ms, const struct store_claim *claim,
                       struct store_claimed *out);
    int (*claim_end)(struct store *store);
    void (*rescan)(struct store *store, int64_t source);
    int (*read)(struct store *store, const struct store_event_lock *locks, size_t count, store_on_row *on_row,
                void *user);
    int (*commit_begin)(struct store *store, struct store_group_commit *group_commit);
    int (*commit_add)(struct store *store, struct store_group_commit *group_commit);
    int (*commit_end)(struct store *store, struct store_group_commit *group_commit);
    int (*unlock)(struct store *store, int64_t source, struct store_unlock *unlocks, size_t count);

    int (*cursor)(struct store *store, int64_t source, char **cursor);
    int (*set_cursor)(struct store *store, int64_t source, const char *cursor);
    int (*source_totals)(struct store *store, int64_t source, struct store_totals *out);
    int (*stage_totals)(struct store *store, int64_t stage, struct store_stage_totals *out);
    int (*each_source)(struct store *store, store_on_source *on_source, void *user);
    int (*each_stage)(struct store *store, int64_t source, store_on_stage *on_stage, void *user);

    int (*add_crashes)(struct store *store, const struct crash_record *crashes, size_t count, uint64_t lost);
    int (*each_crash)(struct store *store, store_on_crash *on_crash, void *user, uint64_t *dropped);

    int (*trace)(struct store *store, int64_t source, const char *uid, store_on_trace_step *on_step,
                 void *user, size_t *live);
    int (*trim_trace)(struct store *store, uint64_t now_ms, uint64_t keep_ms, uint64_t bytes);

    int (*list)(struct store *store, const struct store_select *select, bool with_data,
                store_on_item *on_item, void *user);
    int (*change)(struct store *store, const struct store_select *select, enum store_command command,
                  bool dry_run, store_on_item *on_item, void *user, uint64_t *changed);
    int (*import)(struct store *store, struct store_import *import);
    int (*checkpoint)(struct store *store, bool final);
    int (*sizes)(struct store *store, uint64_t *bytes, uint64_t *wal_bytes);
    int (*check)(struct store *store, void (*report)(const char *message, void *user), void *user);
};

struct store {
    const struct store_ops *ops;
    struct error error; /* the last failure, for store_errmsg */
};

extern const struct store_ops store_sqlite_ops;
extern const struct store_ops store_sqlite_memory_ops;

#endif
