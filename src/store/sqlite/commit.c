/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: reads events for stages, writes their answers (inside the transaction of
 * group_commit.c), and unlocks events. Workers read and commit, producers unlock.
 *
 * Events that arrived one after another and were claimed together are usually read, advanced and completed
 * together, too. One statement handles such a range; it reads the rows one after another instead of
 * searching for each. The statement counts the rows it changed. If some are missing, the transaction is
 * rolled back and done again event by event, which shows whose lock was lost.
 *
 * Invariants
 *  1. An event's row changes only while it carries the token of the lock, and that token is of this start.
 *     All else about the event (its data, its deletion, the totals) changes only after that row.
 *  2. `applied` is true only for what is committed.
 */
#include "src/store/sqlite/sqlite.h"

#include <string.h>

#define PAD_FROM_EVENTS 100 /* fewer are in so few leaves that padding costs as much as it saves */
#define PAD_EVENTS 2        /* a single one would share its leaf with the rows before it */
#define PAD_OVER_BYTES 50   /* more than half a leaf, or two would just fit into one leaf */

/* ---- shared with the operators' changes ---- */

/* Deletes the data rows of the events first..last from the store. store_sqlite_delete_events calls it, for
 * the whole range or for two parts of it. */
static int delete_range(struct store_sqlite *store, int64_t first, int64_t last)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_DELETE_EVENT);
    store_sqlite_bind(store, statement, 1, first);
    store_sqlite_bind(store, statement, 2, last);
    return store_sqlite_run_statement(store, statement);
}

/* Deletes the data rows of the events first..last from the store. In a long range it pads the first two
 * rows and deletes them last, so that each has a leaf page of its own, nearly half empty: SQLite then
 * merges emptied leaves into the leaf before them and frees them unwritten, which saves nine tenths of the
 * pages for the WAL. Workers call it for completed events, the keeper for `eventpipe remove`. */
int store_sqlite_delete_events(struct store_sqlite *store, int64_t first, int64_t last)
{
    if (last - first + 1 < PAD_FROM_EVENTS)
        return delete_range(store, first, last);
    int64_t first_unpadded = first + PAD_EVENTS;
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_PAD_ROWS);
    store_sqlite_bind(store, statement, 1, first);
    store_sqlite_bind(store, statement, 2, first_unpadded - 1);
    store_sqlite_bind(store, statement, 3, (int64_t)store->page_bytes / 2 + PAD_OVER_BYTES);
    int code = store_sqlite_run_statement(store, statement);
    if (code == 0)
        code = delete_range(store, first_unpadded, last);
    return code == 0 ? delete_range(store, first, first_unpadded - 1) : code;
}

/* Moves an event of the store from the ready or running ones to the suspended ones (delayed, held, dead),
 * where no claim finds it. *is_moved is false if it no longer carries the token, the number of the claim
 * that locked it. Returns 0 or a negative code. Workers call it for delays and dead letters, the producer
 * after crashes, the keeper for `eventpipe hold`. */
int store_sqlite_suspend_event(struct store_sqlite *store, const struct store_sqlite_suspend *suspend,
                               bool *is_moved)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_SUSPEND);
    const char *error = suspend->error != NULL ? suspend->error : "";
    store_sqlite_bind(store, statement, 1, suspend->event);
    store_sqlite_bind(store, statement, 2, suspend->token);
    store_sqlite_bind(store, statement, 3, suspend->source);
    store_sqlite_bind(store, statement, 4, suspend->state);
    store_sqlite_bind(store, statement, 5, suspend->reason);
    store_sqlite_bind(store, statement, 6, store_sqlite_signed(suspend->due_ms));
    store_sqlite_bind(store, statement, 7, suspend->more_attempts);
    store_sqlite_bind(store, statement, 8, suspend->more_crashes);
    store_sqlite_bind_text(store, statement, 9, suspend->context, suspend->context_bytes);
    store_sqlite_bind_string(store, statement, 10, suspend->keep_error ? NULL : error);
    int code = store_sqlite_run_statement(store, statement);
    *is_moved = code == 0 && sqlite3_changes(store->db) == 1;
    if (!*is_moved)
        return code;
    statement = store_sqlite_use_statement(store, SQL_DELETE_PROGRESS);
    store_sqlite_bind(store, statement, 1, suspend->event);
    return store_sqlite_run_statement(store, statement);
}

/* Makes a suspended event of the store ready again. clears_counts clears its attempts, crashes and error;
 * from_first_stage its done stages and context. Returns 0 or a negative code. The producer calls it for
 * retries that are due, the keeper for `eventpipe retry`, `release` and `requeue`. */
int store_sqlite_resume_event(struct store_sqlite *store, int64_t event, bool clears_counts,
                              bool from_first_stage)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_RESUME);
    store_sqlite_bind(store, statement, 1, event);
    store_sqlite_bind(store, statement, 2, clears_counts);
    store_sqlite_bind(store, statement, 3, from_first_stage);
    int code = store_sqlite_run_statement(store, statement);
    if (code != 0)
        return code;
    statement = store_sqlite_use_statement(store, SQL_DELETE_SUSPENDED);
    store_sqlite_bind(store, statement, 1, event);
    return store_sqlite_run_statement(store, statement);
}

/* Whether a lock on an event of the store cannot hold, whatever the rows say: it is of another source, or
 * its token (the number of its claim) is of an earlier start of the daemon. Each read, commit and unlock
 * asks it first. */
static bool is_lock_void(const struct store_sqlite *store, int64_t source,
                         const struct store_event_lock *lock)
{
    return lock->event >> EVENT_SOURCE_SHIFT != source || (int64_t)lock->token < store->lowest_valid_token ||
           (int64_t)lock->token <= 0;
}

/* ---- read ---- */

/* Whether a lock is on the event that follows the previous one, with the token of the same claim: then one
 * statement of the store can handle both. */
static bool is_next_lock(const struct store_event_lock *lock, const struct store_event_lock *previous)
{
    return lock->event == previous->event + 1 && lock->token == previous->token;
}

/* Returns how many locks, from first_index on, form one range: consecutive events of the same claim. One
 * statement of the store reads a whole range, which is much faster than one per event. A worker runs it
 * when it reads its batch. */
static size_t count_range_locks(const struct store_event_lock *locks, size_t count, size_t first_index)
{
    size_t range_count = 1;
    while (first_index + range_count < count &&
           is_next_lock(&locks[first_index + range_count], &locks[first_index + range_count - 1]))
        range_count++;
    return range_count;
}

/* Returns a statement of the store with the range's first event, last event and token bound to its
 * parameters 1 to 3; NULL after a failure, which the next step or run returns. Workers run it to read a
 * batch and to commit answers. */
static sqlite3_stmt *bind_range_statement(struct store_sqlite *store,
                                          enum store_sqlite_statement statement_id,
                                          const struct store_event_lock *first_lock, size_t count)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, statement_id);
    store_sqlite_bind(store, statement, 1, first_lock->event);
    store_sqlite_bind(store, statement, 2, first_lock->event + (int64_t)count - 1);
    store_sqlite_bind(store, statement, 3, (int64_t)first_lock->token);
    return statement;
}

/* Passes the event in the statement's present row to on_row, with its UID, data, context and counts.
 * Returns the answer of on_row, or EP_ENOMEM. A worker runs it when it reads its batch from the store, and
 * the producer when it reads the attempts of an event after a crash. */
static int report_event_row(struct store_sqlite *store, sqlite3_stmt *statement, size_t index,
                            store_on_row *on_row, void *user)
{
    struct store_row row = {
        .context = (const char *)sqlite3_column_text(statement, 1),
        .done = (const char *)sqlite3_column_text(statement, 2),
        .attempts = (uint32_t)sqlite3_column_int64(statement, 3),
        .crashes = (uint32_t)sqlite3_column_int64(statement, 4),
        .uid = (const char *)sqlite3_column_text(statement, 5),
        .arrival_ms = (uint64_t)sqlite3_column_int64(statement, 6),
        .data = (const char *)sqlite3_column_text(statement, 7),
    };
    row.context_bytes = (size_t)sqlite3_column_bytes(statement, 1);
    row.data_bytes = (size_t)sqlite3_column_bytes(statement, 7);
    if (row.context == NULL || row.done == NULL || row.uid == NULL || row.data == NULL)
        return store_sqlite_fail(store, SQLITE_NOMEM);
    return on_row(index, &row, user);
}

/* Reads the events of one range of locks from the store and passes each to on_row; first_index is that of
 * the first lock. Events that no longer carry their lock's token are left out. Returns 0 or the first other
 * code. A worker or the producer runs it. */
static int read_range(struct store_sqlite *store, const struct store_event_lock *locks, size_t count,
                      size_t first_index, store_on_row *on_row, void *user)
{
    if (is_lock_void(store, locks->event >> EVENT_SOURCE_SHIFT, locks))
        return 0;
    sqlite3_stmt *statement = bind_range_statement(store, SQL_READ, locks, count);
    int code;
    while ((code = store_sqlite_step_statement(store, statement)) == 1) {
        size_t offset = (size_t)(sqlite3_column_int64(statement, 0) - locks[0].event);
        code = report_event_row(store, statement, first_index + offset, on_row, user);
        if (code != 0) {
            sqlite3_reset(statement);
            return code;
        }
    }
    return code;
}

/* store_read of the SQLite engine: passes the data and state of each locked event to on_row, and leaves out
 * events whose lock is lost. Returns 0 or the first other code. A worker calls it for its batch, and the
 * producer for the attempts of an event whose worker crashed. */
int store_sqlite_read(struct store *base, const struct store_event_lock *locks, size_t count,
                      store_on_row *on_row, void *user)
{
    struct store_sqlite *store = store_sqlite_of(base);
    if (count_range_locks(locks, count, 0) == count) /* a single statement is a transaction by itself */
        return read_range(store, locks, count, 0, on_row, user);
    int code = store_sqlite_begin_read(store);
    if (code != 0)
        return code;
    for (size_t first_index = 0, range_count; code == 0 && first_index < count; first_index += range_count) {
        range_count = count_range_locks(locks, count, first_index);
        code = read_range(store, &locks[first_index], range_count, first_index, on_row, user);
    }
    return store_sqlite_end_transaction(store, code);
}

/* ---- commit ---- */

/* Sets `applied` of all answers of a range, and returns it: true if the store's last statement changed a
 * row for each of them. Otherwise a lock was lost; the caller then commits the range event by event to find
 * out which. A worker runs it in its commit. */
static bool mark_range_applied(struct store_sqlite *store, struct store_answer *answers, size_t count)
{
    bool are_all_applied = (size_t)sqlite3_changes(store->db) == count;
    for (size_t i = 0; i < count; i++)
        answers[i].applied = are_all_applied;
    return are_all_applied;
}

/* Carries out STORE_ADVANCE for a range of answers: stores that this stage is done; the events stay locked
 * and go on to their next stage. Returns 0 or a negative code; answers->applied tells whether all locks
 * held. A worker runs it in its commit to the store. */
static int advance_events(struct store_sqlite *store, struct store_answer *answers, size_t count)
{
    sqlite3_stmt *statement = bind_range_statement(store, SQL_ADVANCE, &answers->lock, count);
    store_sqlite_bind_string(store, statement, 4, answers->done != NULL ? answers->done : "");
    store_sqlite_bind_text(store, statement, 5, answers->context, answers->context_bytes);
    int code = store_sqlite_run_statement(store, statement);
    if (code == 0)
        mark_range_applied(store, answers, count);
    return code;
}

/* Carries out STORE_COMPLETE or STORE_REMOVE_BY_STAGE for a range of answers on consecutive events: deletes
 * the events from the store. If a lock was lost, it returns 0 with answers->applied false, and the caller
 * rolls back. A worker runs it in its commit, and the producer for events that have no stage left. */
static int delete_answered_events(struct store_sqlite *store, struct store_answer *answers, size_t count)
{
    int code =
        store_sqlite_run_statement(store, bind_range_statement(store, SQL_COMPLETE, &answers->lock, count));
    if (code != 0 || !mark_range_applied(store, answers, count))
        return code;
    int64_t first = answers->lock.event;
    return store_sqlite_delete_events(store, first, first + (int64_t)count - 1);
}

/* Carries out STORE_DELAY or STORE_DEAD_LETTER for one answer: in the store the event waits for its retry,
 * or is dead. Returns 0 or a negative code; answer->applied tells whether the lock held. A worker runs it
 * in its commit. */
static int suspend_answered_event(struct store_sqlite *store, int64_t source, struct store_answer *answer)
{
    bool is_dead_letter = answer->change == STORE_DEAD_LETTER;
    struct store_sqlite_suspend suspend = {
        .event = answer->lock.event,
        .source = source,
        .token = (int64_t)answer->lock.token,
        .state = is_dead_letter ? STORE_DEAD : STORE_DELAYED,
        .reason = is_dead_letter ? answer->reason : STORE_REASON_NONE,
        .due_ms = is_dead_letter ? 0 : answer->due_ms,
        .more_attempts = 1,
        .context = answer->context,
        .context_bytes = answer->context_bytes,
        .error = answer->error,
    };
    return store_sqlite_suspend_event(store, &suspend, &answer->applied);
}

/* Replaces an event's data in the store by what the stage has made of it, so that the next stage gets the
 * new data. Returns 0 or a negative code. A worker runs it in its commit. */
static int store_changed_data(struct store_sqlite *store, const struct store_answer *answer)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_SET_DATA);
    store_sqlite_bind(store, statement, 1, answer->lock.event);
    store_sqlite_bind_text(store, statement, 2, answer->data, answer->data_bytes);
    return store_sqlite_run_statement(store, statement);
}

/* Adds one applied answer to the changes of the totals of its stage and source. The store writes them once
 * per transaction, so that status need not count rows. A worker runs it in its commit. */
static void count_answer(struct store_sqlite_tally *tally, const struct store_answer *answer)
{
    struct store_stage_totals *stage = &tally->stage;
    switch (answer->change) {
    case STORE_ADVANCE:
        stage->processed++;
        return;
    case STORE_COMPLETE:
        stage->processed++;
        tally->completed++;
        tally->live--;
        return;
    case STORE_REMOVE_BY_STAGE:
        stage->removed++;
        tally->removed_by_stage++;
        tally->live--;
        return;
    case STORE_DELAY:
        tally->delayed++;
        break;
    case STORE_DEAD_LETTER:
        tally->dead++;
        break;
    }
    if (answer->change == STORE_DEAD_LETTER && answer->reason == STORE_REASON_REJECTED)
        stage->rejected++;
    else if (answer->change == STORE_DEAD_LETTER && answer->reason == STORE_REASON_CRASHED)
        stage->crashed++;
    else if (answer->failed)
        stage->failed++;
    else
        stage->retried++;
}

/* Returns the kind of trace step that the store records for a stage's answer: processed, completed,
 * removed, rejected, failed or retried. A worker runs it in its commit. */
static enum store_trace_step_kind choose_step_kind(const struct store_answer *answer)
{
    switch (answer->change) {
    case STORE_ADVANCE:
        return STORE_TRACE_STEP_PROCESSED;
    case STORE_COMPLETE:
        return STORE_TRACE_STEP_COMPLETED;
    case STORE_REMOVE_BY_STAGE:
        return STORE_TRACE_STEP_REMOVED_BY_STAGE;
    case STORE_DELAY:
    case STORE_DEAD_LETTER:
        break;
    }
    if (answer->change == STORE_DEAD_LETTER && answer->reason == STORE_REASON_REJECTED)
        return STORE_TRACE_STEP_REJECTED;
    return answer->failed ? STORE_TRACE_STEP_FAILED : STORE_TRACE_STEP_RETRIED;
}

/* Adds one applied answer to the store's trace, with the worker's pid, attempt, duration and error, for
 * `eventpipe trace`. A worker runs it in its commit. */
static void trace_answer(struct store_sqlite *store, const struct store_group_member *member,
                         const struct store_answer *answer)
{
    struct store_trace_step step = {
        .kind = choose_step_kind(answer),
        .reason = answer->change == STORE_DEAD_LETTER ? answer->reason : STORE_REASON_NONE,
        .event = answer->lock.event,
        .stage = member->stage,
        .pid = member->pid,
        .attempt = answer->attempt,
        .duration_us = answer->duration_us,
        .due_ms = answer->change == STORE_DELAY ? answer->due_ms : 0,
        .error = answer->error,
        .error_bytes = answer->error != NULL ? strlen(answer->error) : 0,
    };
    store_sqlite_add_trace_step(store, &step);
}

/* Whether an answer can be committed by the same statement of the store as the answer before it: on the
 * next event, with the same change and the same values. A worker runs it in its commit, to commit whole
 * ranges. */
static bool is_same_change(const struct store_answer *answer, const struct store_answer *previous)
{
    if (answer->change != previous->change || !is_next_lock(&answer->lock, &previous->lock))
        return false;
    if (answer->change == STORE_COMPLETE || answer->change == STORE_REMOVE_BY_STAGE)
        return true;
    return answer->change == STORE_ADVANCE && answer->context == NULL && answer->data == NULL &&
           previous->context == NULL && previous->data == NULL && answer->done != NULL &&
           previous->done != NULL && strcmp(answer->done, previous->done) == 0;
}

/* Finds out whether the store has an answer already, when a worker repeats it because the leader of its
 * group commit crashed. Only the lock's holder changes the event's done stages, deletes or suspends it, so
 * each of these shows our own commit; if an operator did it, there is nothing to commit either. Returns 0
 * or a negative code. */
static int find_earlier_commit(struct store_sqlite *store, struct store_answer *answer, bool *is_committed)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_COMPLETED);
    store_sqlite_bind(store, statement, 1, answer->lock.event);
    store_sqlite_bind(store, statement, 2, (int64_t)answer->lock.token);
    int code = store_sqlite_step_statement(store, statement);
    if (code < 0)
        return code;
    bool has_progress = code == 1 && sqlite3_column_int64(statement, 0) != 0,
         is_suspended = code == 1 && !has_progress;
    const char *done = has_progress ? (const char *)sqlite3_column_text(statement, 1) : NULL;
    switch (answer->change) {
    case STORE_ADVANCE:
        *is_committed = done != NULL && answer->done != NULL && strcmp(done, answer->done) == 0;
        break;
    case STORE_COMPLETE:
    case STORE_REMOVE_BY_STAGE:
        *is_committed = !has_progress && !is_suspended;
        break;
    case STORE_DELAY:
    case STORE_DEAD_LETTER:
        *is_committed = !has_progress && is_suspended;
        break;
    }
    sqlite3_reset(statement);
    answer->applied = *is_committed;
    return 0;
}

/* Writes the answers of one range (or a single one) to the store: states, totals, trace and changed data.
 * Returns 0, a negative code, or STORE_SQLITE_PARTIAL if some locks of a range were lost: then the caller
 * rolls back and writes event by event. A worker runs it in its commit. */
static int commit_range(struct store_sqlite *store, const struct store_group_member *member,
                        struct store_answer *answers, size_t count, struct store_sqlite_tally *tally)
{
    int code = EP_EINVAL;
    bool event_stays = true;
    switch (answers->change) {
    case STORE_ADVANCE:
        code = advance_events(store, answers, count);
        break;
    case STORE_COMPLETE:
    case STORE_REMOVE_BY_STAGE:
        code = delete_answered_events(store, answers, count);
        event_stays = false;
        break;
    case STORE_DELAY:
    case STORE_DEAD_LETTER:
        code = suspend_answered_event(store, member->source, answers);
        break;
    }
    if (code != 0)
        return code;
    if (!answers->applied)
        return count > 1 ? STORE_SQLITE_PARTIAL : 0;
    for (size_t i = 0; i < count; i++) {
        count_answer(tally, &answers[i]);
        trace_answer(store, member, &answers[i]);
    }
    return event_stays && answers->data != NULL ? store_changed_data(store, answers) : 0;
}

/* Writes the answers of one worker to the store inside the transaction of a group commit (one for several
 * workers); answers whose locks were lost stay unapplied. Returns as commit_range does. The worker that
 * leads the group commit calls it for itself and for each follower; the producer for events that have no
 * stage left. */
int store_sqlite_write_member_answers(struct store_sqlite *store, const struct store_group_member *member,
                                      bool one_by_one, struct store_sqlite_tally *tally)
{
    struct store_answer *answers = member->answers;
    int code = 0;
    for (size_t i = 0, range_count; code == 0 && i < member->count; i += range_count) {
        bool is_single = one_by_one || member->again; /* find_earlier_commit looks at one */
        for (range_count = 1; !is_single && i + range_count < member->count &&
                              is_same_change(&answers[i + range_count], &answers[i + range_count - 1]);)
            range_count++;
        if (is_lock_void(store, member->source, &answers[i].lock))
            continue;
        bool is_committed = false;
        code = member->again ? find_earlier_commit(store, &answers[i], &is_committed) : 0;
        if (code == 0 && !is_committed)
            code = commit_range(store, member, &answers[i], range_count, tally);
    }
    return code;
}

/* ---- unlock ---- */

/* Makes a running event of the store ready again without counting an attempt or a crash. unlock->applied
 * tells whether the lock held. Returns 0 or a negative code. The producer runs it for events that only
 * waited in a worker that exited. */
static int unlock_unblamed_event(struct store_sqlite *store, struct store_unlock *unlock)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_UNLOCK);
    store_sqlite_bind(store, statement, 1, unlock->lock.event);
    store_sqlite_bind(store, statement, 2, (int64_t)unlock->lock.token);
    int code = store_sqlite_run_statement(store, statement);
    unlock->applied = code == 0 && sqlite3_changes(store->db) == 1;
    return code;
}

/* Adds to the store's trace why an event lost its lock: crash, timeout, waiting in a process that crashed,
 * or a clean stop. suspend is NULL if the event is simply ready again. The producer runs it when it unlocks
 * what exited workers held. */
static void trace_unlock(struct store_sqlite *store, const struct store_unlock *unlock,
                         const struct store_sqlite_suspend *suspend, uint64_t attempt)
{
    bool is_ready_again = suspend == NULL;
    struct store_trace_step step = {
        .kind = unlock->crashed     ? STORE_TRACE_STEP_CRASHED
                : unlock->timed_out ? STORE_TRACE_STEP_TIMEOUT
                : unlock->pid != 0  ? STORE_TRACE_STEP_LOST
                                    : STORE_TRACE_STEP_UNLOCKED,
        .reason = is_ready_again ? STORE_REASON_NONE : suspend->reason,
        .event = unlock->lock.event,
        .stage = unlock->stage,
        .pid = unlock->pid,
        .attempt = (uint32_t)attempt,
        .due_ms = is_ready_again ? 0 : suspend->due_ms,
        .error = is_ready_again ? NULL : unlock->error,
        .error_bytes = is_ready_again || unlock->error == NULL ? 0 : strlen(unlock->error),
    };
    store_sqlite_add_trace_step(store, &step);
}

/* Suspends a stored event over which its worker crashed or timed out: delayed for a retry, or dead
 * (*is_dead) if it has reached max_crashes, max_attempts or its age limit. Returns 0 or a negative code.
 * The producer runs it when it unlocks what exited workers held. */
static int suspend_blamed_event(struct store_sqlite *store, int64_t source, struct store_unlock *unlock,
                                bool *is_dead)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_COUNTS);
    store_sqlite_bind(store, statement, 1, unlock->lock.event);
    store_sqlite_bind(store, statement, 2, (int64_t)unlock->lock.token);
    int code = store_sqlite_step_statement(store, statement);
    if (code != 1)
        return code; /* it no longer carries the token */
    uint64_t attempts = (uint64_t)sqlite3_column_int64(statement, 0) + unlock->timed_out;
    uint64_t crashes = (uint64_t)sqlite3_column_int64(statement, 1) + unlock->crashed;
    sqlite3_reset(statement);
    bool is_crash_limit_reached =
        unlock->crashed && unlock->max_crashes != 0 && crashes >= unlock->max_crashes;
    bool is_attempt_limit_reached =
        unlock->timed_out && unlock->max_attempts != 0 && attempts >= unlock->max_attempts;
    *is_dead = is_crash_limit_reached || is_attempt_limit_reached || unlock->expired;
    struct store_sqlite_suspend suspend = {
        .event = unlock->lock.event,
        .source = source,
        .token = (int64_t)unlock->lock.token,
        .state = *is_dead ? STORE_DEAD : STORE_DELAYED,
        .reason = is_crash_limit_reached     ? STORE_REASON_CRASHED
                  : is_attempt_limit_reached ? STORE_REASON_EXHAUSTED
                  : *is_dead                 ? STORE_REASON_EXPIRED
                                             : STORE_REASON_NONE,
        .due_ms = *is_dead ? 0 : unlock->due_ms,
        .more_attempts = unlock->timed_out,
        .more_crashes = unlock->crashed,
        .error = unlock->error,
    };
    code = store_sqlite_suspend_event(store, &suspend, &unlock->applied);
    if (code == 0 && unlock->applied)
        trace_unlock(store, unlock, &suspend, attempts + crashes);
    return code;
}

/* Unlocks one event in the store and counts its crash or timeout, if any, in the totals. Returns 0 or a
 * negative code; unlock->applied tells whether the lock held. The producer runs it for each event that an
 * exited worker held. */
static int unlock_event(struct store_sqlite *store, int64_t source, struct store_unlock *unlock)
{
    bool is_dead = false, is_blamed = unlock->crashed || unlock->timed_out;
    int code = is_blamed ? suspend_blamed_event(store, source, unlock, &is_dead)
                         : unlock_unblamed_event(store, unlock);
    if (code == 0 && unlock->applied && !is_blamed)
        trace_unlock(store, unlock, NULL, 0);
    if (code != 0 || !unlock->applied || !is_blamed)
        return code;
    struct store_sqlite_tally tally = {
        .delayed = !is_dead,
        .dead = is_dead,
        .stage.crashed = unlock->crashed,
        .stage.failed = !unlock->crashed,
    };
    return store_sqlite_add_to_totals(store, source, unlock->stage, &tally);
}

/* store_unlock of the SQLite engine: takes away the locks that exited processes held, all in one
 * transaction, so that their events can be claimed again. Returns 0 or a negative code. The producer calls
 * it after a crash of a worker, and for its own events when it stops. */
int store_sqlite_unlock(struct store *base, int64_t source, struct store_unlock *unlocks, size_t count)
{
    struct store_sqlite *store = store_sqlite_of(base);
    for (size_t i = 0; i < count; i++)
        unlocks[i].applied = false;
    int code = store_sqlite_begin_write(store);
    if (code != 0)
        return code;
    store_sqlite_begin_trace_row(store);
    for (size_t i = 0; code == 0 && i < count; i++)
        if (!is_lock_void(store, source, &unlocks[i].lock))
            code = unlock_event(store, source, &unlocks[i]);
    if (code == 0)
        code = store_sqlite_write_trace_row(store);
    code = store_sqlite_end_transaction(store, code);
    for (size_t i = 0; i < count; i++) {
        if (code != 0)
            unlocks[i].applied = false;
        else if (unlocks[i].applied)
            store_sqlite_rescan_from(store, source, unlocks[i].lock.event);
    }
    return code;
}
