/* SPDX-License-Identifier: MIT */
/*
 * The front of the store: finds the engine that a URL names and passes every call on to it. Runs in every
 * process that uses a store. Owns nothing; a handle remembers its engine.
 */
#include "src/store/store.h"

#include <string.h>
#include <unistd.h>

#include "src/store/engine.h"

static const struct {
    const char *prefix;
    const struct store_ops *ops;
} engines[] = {
    {"sqlite:", &store_sqlite_ops},
    {"memory:", &store_sqlite_memory_ops},
    {":memory", &store_sqlite_memory_ops}, /* the spelling of the Go eventpipe */
};

/* Returns the functions of the engine that implements the store's URL (sqlite: or memory:), or NULL with an
 * error for any other URL. store_hold, store_leave, store_prepare and store_open call it, in every process
 * that uses a store. */
static const struct store_ops *find_engine(const struct store_options *options, struct error *error)
{
    const char *url = options->url != NULL ? options->url : "";
    for (size_t i = 0; i < sizeof engines / sizeof engines[0]; i++)
        if (strncmp(url, engines[i].prefix, strlen(engines[i].prefix)) == 0)
            return engines[i].ops;
    base_error_set(error, EP_EINVAL, "storage \"%s\": expected sqlite:PATH or memory:", url);
    return NULL;
}

/* Returns the name of the state of an event in the store as users see it in lists, JSON and filters;
 * "unknown" for any other number. The command line calls it, and the keeper when it answers a command. */
const char *store_state_name(enum store_state state)
{
    static const char *const names[] = {
#define X(name, text) [STORE_##name] = text,
        STORE_STATES(X)
#undef X
    };
    return (size_t)state < sizeof names / sizeof names[0] ? names[state] : "unknown";
}

/* Returns the name of the reason why an event in the store is dead, as users see it; "" for an event that
 * is not. The keeper puts it into its answers to `eventpipe queue` and `show`, and `eventpipe trace` prints
 * it. */
const char *store_reason_name(enum store_reason reason)
{
    static const char *const names[] = {
#define X(name, text) [STORE_REASON_##name] = text,
        STORE_REASONS(X)
#undef X
    };
    return (size_t)reason < sizeof names / sizeof names[0] ? names[reason] : "unknown";
}

/* Returns the name of one step in the store's trace of an event (fetched, processed, failed, ...) as
 * `eventpipe trace` prints it; "unknown" for any other number. */
const char *store_trace_step_name(enum store_trace_step_kind kind)
{
    static const char *const names[] = {
#define X(name, text) [STORE_TRACE_STEP_##name] = text,
        STORE_TRACE_STEPS(X)
#undef X
    };
    return (size_t)kind < sizeof names / sizeof names[0] ? names[kind] : "unknown";
}

#define STATE(name) (1u << STORE_##name)

/* Returns the rule of an operator's command in the store: the states that it takes events from, the state
 * that it gives them (-1 = deleted), and the step that the trace records. The engine follows it when it
 * changes events; the command line and the keeper describe commands with it. */
const struct store_command_rule *store_command_rule(enum store_command command)
{
    static const struct store_command_rule rules[] = {
        [STORE_RETRY] = {STATE(DELAYED) | STATE(DEAD), STORE_READY, STORE_TRACE_STEP_RETRY},
        [STORE_HOLD] = {STATE(READY) | STATE(DELAYED) | STATE(DEAD), STORE_HELD, STORE_TRACE_STEP_HELD},
        [STORE_RELEASE] = {STATE(HELD), STORE_READY, STORE_TRACE_STEP_RELEASED},
        [STORE_REMOVE] = {STATE(READY) | STATE(DELAYED) | STATE(HELD) | STATE(DEAD), -1,
                          STORE_TRACE_STEP_REMOVED_BY_OPERATOR},
        [STORE_REQUEUE] = {STATE(READY) | STATE(DELAYED) | STATE(HELD) | STATE(DEAD), STORE_READY,
                           STORE_TRACE_STEP_REQUEUED},
    };
    return &rules[command];
}

int store_hold(const struct store_options *options, uint64_t wait_ms, int *lock_fd, struct error *error)
{
    const struct store_ops *ops = find_engine(options, error);
    return ops == NULL ? EP_EINVAL : ops->hold(options, wait_ms, lock_fd, error);
}

void store_leave(const struct store_options *options)
{
    const struct store_ops *ops = find_engine(options, NULL);
    if (ops != NULL)
        ops->leave(options);
}

int store_prepare(const struct store_options *options, struct store_names *names, size_t count,
                  uint64_t *start_number, struct error *error)
{
    const struct store_ops *ops = find_engine(options, error);
    return ops == NULL ? EP_EINVAL : ops->prepare(options, names, count, start_number, error);
}

int store_open(const struct store_options *options, struct store **out, struct error *error)
{
    const struct store_ops *ops = find_engine(options, error);
    return ops == NULL ? EP_EINVAL : ops->open(options, out, error);
}

void store_close(struct store **store)
{
    if (*store != NULL)
        (*store)->ops->close(*store);
    *store = NULL;
}

uint64_t store_event_number(int64_t event)
{
    return (uint64_t)event & ((UINT64_C(1) << STORE_NUMBER_BITS) - 1);
}

int64_t store_event_source(int64_t event)
{
    return event >> STORE_NUMBER_BITS;
}

const char *store_errmsg(const struct store *store)
{
    return store->error.message;
}

/* Stores a page of events and its cursor without claiming (locking for a worker) any of them. Returns 0 or
 * a negative code. The keeper calls it for `eventpipe inject`; producers call store_ingest_begin, which
 * also claims. */
int store_ingest(struct store *store, int64_t source, const struct store_page *page,
                 struct store_ingested *out)
{
    const struct store_claim no_claim = {0};
    struct store_claimed claimed;
    int code = store_ingest_begin(store, source, page, &no_claim, out, &claimed);
    return code == 0 ? store_claim_end(store) : code;
}

int store_claim_begin(struct store *store, int64_t source, uint64_t now_ms, const struct store_claim *claim,
                      struct store_claimed *out)
{
    return store->ops->claim_begin(store, source, now_ms, claim, out);
}

int store_ingest_begin(struct store *store, int64_t source, const struct store_page *page,
                       const struct store_claim *claim, struct store_ingested *out,
                       struct store_claimed *claimed)
{
    return store->ops->ingest_begin(store, source, page, claim, out, claimed);
}

int store_claim_end(struct store *store)
{
    return store->ops->claim_end(store);
}

void store_rescan(struct store *store, int64_t source)
{
    store->ops->rescan(store, source);
}

int store_read(struct store *store, const struct store_event_lock *locks, size_t count, store_on_row *on_row,
               void *user)
{
    return store->ops->read(store, locks, count, on_row, user);
}

/* Commits answers for events to the store, as a group commit (one transaction for several processes) with a
 * single member. Returns 0 or a negative code. The producer calls it to complete events that have no stage
 * left; workers use store_group_commit_begin, so that several of them can share one commit. */
int store_commit(struct store *store, int64_t source, int64_t stage, struct store_answer *answers,
                 size_t count)
{
    struct store_group_commit group_commit = {.member[0] = {source, stage, (int32_t)getpid(), false, answers,
                                                            count},
                                              .count = 1};
    return store_group_commit(store, &group_commit);
}

int store_group_commit_begin(struct store *store, struct store_group_commit *group_commit)
{
    return store->ops->commit_begin(store, group_commit);
}

int store_group_commit_add(struct store *store, struct store_group_commit *group_commit)
{
    return store->ops->commit_add(store, group_commit);
}

int store_group_commit_end(struct store *store, struct store_group_commit *group_commit)
{
    return store->ops->commit_end(store, group_commit);
}

/* Runs all three steps of a group commit to the store: begin, one add, end. Returns 0 or a negative code.
 * The producer runs it through store_commit. It calls the end also after a failed add, because only the end
 * releases the write lock and returns the failure. */
int store_group_commit(struct store *store, struct store_group_commit *group_commit)
{
    int code = store_group_commit_begin(store, group_commit);
    if (code != 0)
        return code;
    store_group_commit_add(store, group_commit); /* the end returns its failure */
    return store_group_commit_end(store, group_commit);
}

int store_unlock(struct store *store, int64_t source, struct store_unlock *unlocks, size_t count)
{
    return store->ops->unlock(store, source, unlocks, count);
}

int store_cursor(struct store *store, int64_t source, char **cursor)
{
    return store->ops->cursor(store, source, cursor);
}

int store_set_cursor(struct store *store, int64_t source, const char *cursor)
{
    return store->ops->set_cursor(store, source, cursor);
}

int store_source_totals(struct store *store, int64_t source, struct store_totals *out)
{
    return store->ops->source_totals(store, source, out);
}

int store_stage_totals(struct store *store, int64_t stage, struct store_stage_totals *out)
{
    return store->ops->stage_totals(store, stage, out);
}

int store_each_source(struct store *store, store_on_source *on_source, void *user)
{
    return store->ops->each_source(store, on_source, user);
}

int store_each_stage(struct store *store, int64_t source, store_on_stage *on_stage, void *user)
{
    return store->ops->each_stage(store, source, on_stage, user);
}

int store_add_crashes(struct store *store, const struct crash_record *crashes, size_t count, uint64_t lost)
{
    return store->ops->add_crashes(store, crashes, count, lost);
}

int store_each_crash(struct store *store, store_on_crash *on_crash, void *user, uint64_t *dropped)
{
    return store->ops->each_crash(store, on_crash, user, dropped);
}

int store_trace(struct store *store, int64_t source, const char *uid, store_on_trace_step *on_step,
                void *user, size_t *live)
{
    return store->ops->trace(store, source, uid, on_step, user, live);
}

int store_trim_trace(struct store *store, uint64_t now_ms, uint64_t keep_ms, uint64_t bytes)
{
    return store->ops->trim_trace(store, now_ms, keep_ms, bytes);
}

int store_list(struct store *store, const struct store_select *select, bool with_data, store_on_item *on_item,
               void *user)
{
    return store->ops->list(store, select, with_data, on_item, user);
}

int store_change(struct store *store, const struct store_select *select, enum store_command command,
                 bool dry_run, store_on_item *on_item, void *user, uint64_t *changed)
{
    return store->ops->change(store, select, command, dry_run, on_item, user, changed);
}

int store_import(struct store *store, struct store_import *import)
{
    return store->ops->import(store, import);
}

int store_checkpoint(struct store *store, bool final)
{
    return store->ops->checkpoint(store, final);
}

int store_sizes(struct store *store, uint64_t *bytes, uint64_t *wal_bytes)
{
    return store->ops->sizes(store, bytes, wal_bytes);
}

int store_check(struct store *store, void (*report)(const char *message, void *user), void *user)
{
    return store->ops->check(store, report, user);
}
