/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: what stages need: read, commit (the transaction is in store_sqlite_group.c), release.
 * Runs in workers (read, commit) and producers (release).
 *
 * Invariants
 *  1. An event's row changes only where its token is the one named, and that token is of this start.
 * Everything else about the event (its data, its end, the tallies) is done only after that row has changed.
 *  2. `applied` is true only for what is committed.
 *
 * Events that arrived one after another and were claimed together are mostly read, advanced and finished
 * together, too: such a run is one statement, whose cursor walks along its rows instead of seeking each. A
 * statement over a run counts what it changed; where that is not all of it, the transaction is rolled back
 * and done again event by event, which tells whose lock was lost.
 */
#include "src/store/sqlite/sqlite.h"

#include <string.h>

#define FENCED_EVENTS 100   /* fewer than these stand in so few leaves that a fence costs what it saves */
#define FENCE_EVENTS 2      /* one would share its leaf with the rows before it */
#define FENCE_OVER_BYTES 50 /* two of half a leaf each would just fit into one */

/* ---- steps shared with the operators' changes ---- */

static int delete_range(struct store_sqlite *store, int64_t first, int64_t last)
{
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_DELETE_EVENT);
    store_sqlite_bind(store, statement, 1, first);
    store_sqlite_bind(store, statement, 2, last);
    return store_sqlite_run(store, statement);
}

/*
 * SQLite fills up a leaf that has become two thirds empty with its neighbours' rows. Where a row that stays
 * stands before a long run, and its leaf is nearly full, the next leaf's rows do not fit into the two: part
 * of them is moved, and so every leaf of the run is changed, and written to the log, before it is emptied and
 * free. Where the leaf before has room, all of the next one's rows fit, and a leaf that is free without
 * having been changed is not written at all: a tenth of the pages. So the first rows of a run are made so
 * large that each stands in a leaf of its own and leaves it nearly half empty, and go last.
 */
int store_sqlite_delete_events(struct store_sqlite *store, int64_t first, int64_t last)
{
    if (last - first + 1 < FENCED_EVENTS)
        return delete_range(store, first, last);
    int64_t begin = first + FENCE_EVENTS;
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_FENCE);
    store_sqlite_bind(store, statement, 1, first);
    store_sqlite_bind(store, statement, 2, begin - 1);
    store_sqlite_bind(store, statement, 3, (int64_t)store->page_bytes / 2 + FENCE_OVER_BYTES);
    int code = store_sqlite_run(store, statement);
    if (code == 0)
        code = delete_range(store, begin, last);
    return code == 0 ? delete_range(store, first, begin - 1) : code;
}

int store_sqlite_park(struct store_sqlite *store, const struct store_sqlite_park *park, bool *moved)
{
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_PARK);
    const char *words = park->words != NULL ? park->words : "";
    store_sqlite_bind(store, statement, 1, park->event);
    store_sqlite_bind(store, statement, 2, park->token);
    store_sqlite_bind(store, statement, 3, park->source);
    store_sqlite_bind(store, statement, 4, park->state);
    store_sqlite_bind(store, statement, 5, park->reason);
    store_sqlite_bind(store, statement, 6, store_sqlite_signed(park->due_ms));
    store_sqlite_bind(store, statement, 7, park->more_attempts);
    store_sqlite_bind(store, statement, 8, park->more_crashes);
    store_sqlite_bind_text(store, statement, 9, park->context, park->context_bytes);
    store_sqlite_bind_words(store, statement, 10, park->keep_words ? NULL : words);
    int code = store_sqlite_run(store, statement);
    *moved = code == 0 && sqlite3_changes(store->db) == 1;
    if (!*moved)
        return code;
    statement = store_sqlite_use(store, SQL_DELETE_PROGRESS);
    store_sqlite_bind(store, statement, 1, park->event);
    return store_sqlite_run(store, statement);
}

int store_sqlite_unpark(struct store_sqlite *store, int64_t event, bool anew, bool from_first)
{
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_UNPARK);
    store_sqlite_bind(store, statement, 1, event);
    store_sqlite_bind(store, statement, 2, anew);
    store_sqlite_bind(store, statement, 3, from_first);
    int code = store_sqlite_run(store, statement);
    if (code != 0)
        return code;
    statement = store_sqlite_use(store, SQL_DELETE_PARKED);
    store_sqlite_bind(store, statement, 1, event);
    return store_sqlite_run(store, statement);
}

/* A lease that cannot hold, whatever the rows say: of another source, or of an older start. */
static bool lease_void(const struct store_sqlite *store, int64_t source, const struct store_lease *lease)
{
    return lease->event >> EVENT_SOURCE_SHIFT != source || (int64_t)lease->token < store->void_below ||
           (int64_t)lease->token <= 0;
}

/* ---- read ---- */

static bool follows(const struct store_lease *lease, const struct store_lease *before)
{
    return lease->event == before->event + 1 && lease->token == before->token;
}

/* How many leases from `first` on are a run. */
static size_t run_at(const struct store_lease *leases, size_t count, size_t first)
{
    size_t run = 1;
    while (first + run < count && follows(&leases[first + run], &leases[first + run - 1]))
        run++;
    return run;
}

/* The statement of a run: its first and last event and their token. */
static sqlite3_stmt *use_run(struct store_sqlite *store, enum store_sqlite_statement which,
                             const struct store_lease *first, size_t count)
{
    sqlite3_stmt *statement = store_sqlite_use(store, which);
    store_sqlite_bind(store, statement, 1, first->event);
    store_sqlite_bind(store, statement, 2, first->event + (int64_t)count - 1);
    store_sqlite_bind(store, statement, 3, (int64_t)first->token);
    return statement;
}

static int see_row(struct store_sqlite *store, sqlite3_stmt *statement, size_t index, store_on_row *on_row,
                   void *user)
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

static int read_run(struct store_sqlite *store, const struct store_lease *leases, size_t count, size_t index,
                    store_on_row *on_row, void *user)
{
    if (lease_void(store, leases->event >> EVENT_SOURCE_SHIFT, leases))
        return 0;
    sqlite3_stmt *statement = use_run(store, SQL_READ, leases, count);
    int code;
    while ((code = store_sqlite_step(store, statement)) == 1) {
        size_t at = (size_t)(sqlite3_column_int64(statement, 0) - leases[0].event);
        code = see_row(store, statement, index + at, on_row, user);
        if (code != 0) {
            sqlite3_reset(statement);
            return code;
        }
    }
    return code;
}

int store_sqlite_read(struct store *base, const struct store_lease *leases, size_t count,
                      store_on_row *on_row, void *user)
{
    struct store_sqlite *store = store_sqlite_of(base);
    if (run_at(leases, count, 0) == count) /* one statement is a transaction by itself */
        return read_run(store, leases, count, 0, on_row, user);
    int code = store_sqlite_begin_read(store);
    if (code != 0)
        return code;
    for (size_t i = 0, run; code == 0 && i < count; i += run) {
        run = run_at(leases, count, i);
        code = read_run(store, &leases[i], run, i, on_row, user);
    }
    return store_sqlite_end(store, code);
}

/* ---- commit ---- */

/* Of a run: true when all of it was changed, which makes all of it applied. */
static bool all_changed(struct store_sqlite *store, struct store_answer *answers, size_t count)
{
    bool all = (size_t)sqlite3_changes(store->db) == count;
    for (size_t i = 0; i < count; i++)
        answers[i].applied = all;
    return all;
}

static int advance(struct store_sqlite *store, struct store_answer *answers, size_t count)
{
    sqlite3_stmt *statement = use_run(store, SQL_ADVANCE, &answers->lease, count);
    store_sqlite_bind_words(store, statement, 4, answers->done != NULL ? answers->done : "");
    store_sqlite_bind_text(store, statement, 5, answers->context, answers->context_bytes);
    int code = store_sqlite_run(store, statement);
    if (code == 0)
        all_changed(store, answers, count);
    return code;
}

static int finish(struct store_sqlite *store, struct store_answer *answers, size_t count)
{
    int code = store_sqlite_run(store, use_run(store, SQL_FINISH, &answers->lease, count));
    if (code != 0 || !all_changed(store, answers, count))
        return code;
    int64_t first = answers->lease.event;
    return store_sqlite_delete_events(store, first, first + (int64_t)count - 1);
}

static int set_aside(struct store_sqlite *store, int64_t source, struct store_answer *answer)
{
    bool bury = answer->change == STORE_BURY;
    struct store_sqlite_park park = {
        .event = answer->lease.event,
        .source = source,
        .token = (int64_t)answer->lease.token,
        .state = bury ? STORE_DEAD : STORE_DELAYED,
        .reason = bury ? answer->reason : STORE_REASON_NONE,
        .due_ms = bury ? 0 : answer->due_ms,
        .more_attempts = 1,
        .context = answer->context,
        .context_bytes = answer->context_bytes,
        .words = answer->words,
    };
    return store_sqlite_park(store, &park, &answer->applied);
}

static int set_data(struct store_sqlite *store, const struct store_answer *answer)
{
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_SET_DATA);
    store_sqlite_bind(store, statement, 1, answer->lease.event);
    store_sqlite_bind_text(store, statement, 2, answer->data, answer->data_bytes);
    return store_sqlite_run(store, statement);
}

/* Each applied answer counts once at its stage, and where it changes what the source has. */
static void count_answer(struct store_sqlite_tally *tally, const struct store_answer *answer)
{
    struct store_stage_totals *stage = &tally->stage;
    switch (answer->change) {
    case STORE_ADVANCE:
        stage->processed++;
        return;
    case STORE_FINISH:
        stage->processed++;
        tally->finished++;
        tally->live--;
        return;
    case STORE_REMOVE:
        stage->removed++;
        tally->removed++;
        tally->live--;
        return;
    case STORE_DELAY:
        tally->delayed++;
        break;
    case STORE_BURY:
        tally->dead++;
        break;
    }
    if (answer->change == STORE_BURY && answer->reason == STORE_REASON_REJECTED)
        stage->rejected++;
    else if (answer->change == STORE_BURY && answer->reason == STORE_REASON_CRASHED)
        stage->crashed++;
    else if (answer->failed)
        stage->failed++;
    else
        stage->retried++;
}

static enum store_step_kind step_kind(const struct store_answer *answer)
{
    switch (answer->change) {
    case STORE_ADVANCE:
        return STORE_STEP_PROCESSED;
    case STORE_FINISH:
        return STORE_STEP_FINISHED;
    case STORE_REMOVE:
        return STORE_STEP_REMOVED;
    case STORE_DELAY:
    case STORE_BURY:
        break;
    }
    if (answer->change == STORE_BURY && answer->reason == STORE_REASON_REJECTED)
        return STORE_STEP_REJECTED;
    return answer->failed ? STORE_STEP_FAILED : STORE_STEP_RETRIED;
}

static void trace_answer(struct store_sqlite *store, const struct store_group *group,
                         const struct store_answer *answer)
{
    struct store_step step = {
        .kind = step_kind(answer),
        .reason = answer->change == STORE_BURY ? answer->reason : STORE_REASON_NONE,
        .event = answer->lease.event,
        .stage = group->stage,
        .pid = group->pid,
        .attempt = answer->attempt,
        .duration_us = answer->duration_us,
        .due_ms = answer->change == STORE_DELAY ? answer->due_ms : 0,
        .words = answer->words,
        .words_bytes = answer->words != NULL ? strlen(answer->words) : 0,
    };
    store_sqlite_trace_add(store, &step);
}

/* Whether an answer says of its event what the one before it says of the event before. */
static bool alike(const struct store_answer *answer, const struct store_answer *before)
{
    if (answer->change != before->change || !follows(&answer->lease, &before->lease))
        return false;
    if (answer->change == STORE_FINISH || answer->change == STORE_REMOVE)
        return true;
    return answer->change == STORE_ADVANCE && answer->context == NULL && answer->data == NULL &&
           before->context == NULL && before->data == NULL && answer->done != NULL && before->done != NULL &&
           strcmp(answer->done, before->done) == 0;
}

/*
 * Whether this very answer has been committed: while a lock is ours nobody else gives that event the same
 * list of stages done, ends it or sets it aside. Where an operator has done so since, there is nothing to
 * commit either.
 */
static int find_settled(struct store_sqlite *store, struct store_answer *answer, bool *settled)
{
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_SETTLED);
    store_sqlite_bind(store, statement, 1, answer->lease.event);
    store_sqlite_bind(store, statement, 2, (int64_t)answer->lease.token);
    int code = store_sqlite_step(store, statement);
    if (code < 0)
        return code;
    bool waits = code == 1 && sqlite3_column_int64(statement, 0) != 0, aside = code == 1 && !waits;
    const char *done = waits ? (const char *)sqlite3_column_text(statement, 1) : NULL;
    switch (answer->change) {
    case STORE_ADVANCE:
        *settled = done != NULL && answer->done != NULL && strcmp(done, answer->done) == 0;
        break;
    case STORE_FINISH:
    case STORE_REMOVE:
        *settled = !waits && !aside;
        break;
    case STORE_DELAY:
    case STORE_BURY:
        *settled = !waits && aside;
        break;
    }
    sqlite3_reset(statement);
    answer->applied = *settled;
    return 0;
}

/* A run of answers that are alike, most often; one, if it is not like its neighbours. */
static int commit_run(struct store_sqlite *store, const struct store_group *group,
                      struct store_answer *answers, size_t count, struct store_sqlite_tally *tally)
{
    int code = EP_EINVAL;
    bool stays = true;
    switch (answers->change) {
    case STORE_ADVANCE:
        code = advance(store, answers, count);
        break;
    case STORE_FINISH:
    case STORE_REMOVE:
        code = finish(store, answers, count);
        stays = false;
        break;
    case STORE_DELAY:
    case STORE_BURY:
        code = set_aside(store, group->source, answers);
        break;
    }
    if (code != 0)
        return code;
    if (!answers->applied)
        return count > 1 ? STORE_SQLITE_PARTED : 0;
    for (size_t i = 0; i < count; i++) {
        count_answer(tally, &answers[i]);
        trace_answer(store, group, &answers[i]);
    }
    return stays && answers->data != NULL ? set_data(store, answers) : 0;
}

int store_sqlite_commit_group(struct store_sqlite *store, const struct store_group *group, bool singly,
                              struct store_sqlite_tally *tally)
{
    struct store_answer *answers = group->answers;
    int code = 0;
    for (size_t i = 0, run; code == 0 && i < group->count; i += run) {
        bool alone = singly || group->again; /* find_settled looks at one */
        for (run = 1; !alone && i + run < group->count && alike(&answers[i + run], &answers[i + run - 1]);)
            run++;
        if (lease_void(store, group->source, &answers[i].lease))
            continue;
        bool settled = false;
        code = group->again ? find_settled(store, &answers[i], &settled) : 0;
        if (code == 0 && !settled)
            code = commit_run(store, group, &answers[i], run, tally);
    }
    return code;
}

/* ---- release ---- */

static int unlock(struct store_sqlite *store, struct store_release *release)
{
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_UNLOCK);
    store_sqlite_bind(store, statement, 1, release->lease.event);
    store_sqlite_bind(store, statement, 2, (int64_t)release->lease.token);
    int code = store_sqlite_run(store, statement);
    release->applied = code == 0 && sqlite3_changes(store->db) == 1;
    return code;
}

static void trace_release(struct store_sqlite *store, const struct store_release *release,
                          const struct store_sqlite_park *park, uint64_t attempt)
{
    bool plain = park == NULL;
    struct store_step step = {
        .kind = release->crashed     ? STORE_STEP_CRASHED
                : release->timed_out ? STORE_STEP_TIMEOUT
                : release->pid != 0  ? STORE_STEP_LOST
                                     : STORE_STEP_RELEASED,
        .reason = plain ? STORE_REASON_NONE : park->reason,
        .event = release->lease.event,
        .stage = release->stage,
        .pid = release->pid,
        .attempt = (uint32_t)attempt,
        .due_ms = plain ? 0 : park->due_ms,
        .words = plain ? NULL : release->words,
        .words_bytes = plain || release->words == NULL ? 0 : strlen(release->words),
    };
    store_sqlite_trace_add(store, &step);
}

/* What came of a crash or a timeout: tried again later, or dead when that was once too often. */
static int blame(struct store_sqlite *store, int64_t source, struct store_release *release, bool *dead)
{
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_COUNTS);
    store_sqlite_bind(store, statement, 1, release->lease.event);
    store_sqlite_bind(store, statement, 2, (int64_t)release->lease.token);
    int code = store_sqlite_step(store, statement);
    if (code != 1)
        return code; /* no longer theirs */
    uint64_t attempts = (uint64_t)sqlite3_column_int64(statement, 0) + release->timed_out;
    uint64_t crashes = (uint64_t)sqlite3_column_int64(statement, 1) + release->crashed;
    sqlite3_reset(statement);
    bool crashed_out = release->crashed && release->max_crashes != 0 && crashes >= release->max_crashes;
    bool exhausted = release->timed_out && release->max_attempts != 0 && attempts >= release->max_attempts;
    *dead = crashed_out || exhausted || release->expired;
    struct store_sqlite_park park = {
        .event = release->lease.event,
        .source = source,
        .token = (int64_t)release->lease.token,
        .state = *dead ? STORE_DEAD : STORE_DELAYED,
        .reason = crashed_out ? STORE_REASON_CRASHED
                  : exhausted ? STORE_REASON_EXHAUSTED
                  : *dead     ? STORE_REASON_EXPIRED
                              : STORE_REASON_NONE,
        .due_ms = *dead ? 0 : release->due_ms,
        .more_attempts = release->timed_out,
        .more_crashes = release->crashed,
        .words = release->words,
    };
    code = store_sqlite_park(store, &park, &release->applied);
    if (code == 0 && release->applied)
        trace_release(store, release, &park, attempts + crashes);
    return code;
}

static int release_one(struct store_sqlite *store, int64_t source, struct store_release *release)
{
    bool dead = false, blamed = release->crashed || release->timed_out;
    int code = blamed ? blame(store, source, release, &dead) : unlock(store, release);
    if (code == 0 && release->applied && !blamed)
        trace_release(store, release, NULL, 0);
    if (code != 0 || !release->applied || !blamed)
        return code;
    struct store_sqlite_tally tally = {
        .delayed = !dead,
        .dead = dead,
        .stage.crashed = release->crashed,
        .stage.failed = !release->crashed,
    };
    return store_sqlite_tally(store, source, release->stage, &tally);
}

int store_sqlite_release(struct store *base, int64_t source, struct store_release *releases, size_t count)
{
    struct store_sqlite *store = store_sqlite_of(base);
    for (size_t i = 0; i < count; i++)
        releases[i].applied = false;
    int code = store_sqlite_begin_write(store);
    if (code != 0)
        return code;
    store_sqlite_trace_begin(store);
    for (size_t i = 0; code == 0 && i < count; i++)
        if (!lease_void(store, source, &releases[i].lease))
            code = release_one(store, source, &releases[i]);
    if (code == 0)
        code = store_sqlite_trace_write(store);
    code = store_sqlite_end(store, code);
    for (size_t i = 0; i < count; i++) {
        if (code != 0)
            releases[i].applied = false;
        else if (releases[i].applied)
            store_sqlite_look_again(store, source, releases[i].lease.event);
    }
    return code;
}
