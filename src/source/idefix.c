/* SPDX-License-Identifier: MIT */
/*
 * The idefix source: events from an Idefix backend, by long polls. Runs in the producer's fetch thread;
 * other threads call only `interrupt`. One fetch is one events.get, after a connect and a login if there
 * is no connection.
 *
 * Invariants:
 *   1. The stored cursor wins over continuation_id, which wins over since.
 *   2. Error 7, an empty page and an interrupted fetch mean that there are no events yet. After an
 *      immediate answer that is empty, or whose cursor did not move, the next request waits until a
 *      second has passed.
 *   3. A full page whose cursor did not move is passed on (the store skips what it knows). A second one
 *      in a row is malformed, since no new event would ever come.
 *   4. The next attempt is soon, with jitter, if there was no TCP connection (a connect is cheap, and the
 *      broker's return must be noticed within a second), and after the first loss of a connection or
 *      login. More losses in a row give growing pauses: two clients with one session ID would throw each
 *      other out for ever. A refused account or token waits retry.max. Everything else follows the
 *      producer's backoff.
 *   5. The first poll after a failure is short: its answer clears the reported failure, which a long poll
 *      would keep.
 *   6. After a page that cannot be read, half as many events are requested, down to one. So readable
 *      events before the broken one are not held up, and a page that is too large becomes small enough.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/slot.h" /* shm_now_ns */
#include "src/base/backoff.h"
#include "src/idefix/client.h"
#include "src/source/idefix_events.h"
#include "src/source/source.h"

#define PACE_NS UINT64_C(1000000000)
#define SOON_MIN_MS 300
#define SOON_MAX_MS 700
#define PROBE_MS 300 /* invariant 5 */

struct idefix_source {
    const struct source_config *config;
    struct idefix *idefix;
    uint64_t next_ns; /* the next call not before this */
    bool stuck;       /* the last page was full and its cursor had not moved */
    uint32_t losses;  /* of connection or login, since the last call that was no short poll and went well */
    bool failed;      /* the last call did */
    uint32_t limit;   /* events to ask for at most, halved by each page that cannot be read */
};

static int source_idefix_open(const struct source_config *config, void **state, struct error *error)
{
    const char *ca_file = config->idefix.ca_file;
    struct stat status;

    if (config->domain == NULL && config->address == NULL)
        return base_error_set(error, EP_ECONFIG,
                              "source %s: neither domain nor address is set, and idefix needs one",
                              config->id);
    if (ca_file != NULL && access(ca_file, R_OK) != 0)
        return base_error_set(error, EP_ECONFIG, "source %s: its ca_file %s cannot be read", config->id,
                              ca_file);
    if (ca_file != NULL && (stat(ca_file, &status) != 0 || !S_ISREG(status.st_mode)))
        return base_error_set(error, EP_ECONFIG, "source %s: its ca_file %s is no regular file", config->id,
                              ca_file);
    struct idefix_source *source = calloc(1, sizeof *source);
    if (source == NULL)
        return base_error_set(error, EP_ENOMEM, "no memory for source %s", config->id);
    source->config = config;
    source->limit = config->page_size;
    int code = idefix_open(&config->idefix, &source->idefix, error);
    if (code != 0) {
        base_error_prefix(error, "source %s", config->id);
        free(source);
        return code;
    }
    *state = source;
    return 0;
}

static uint64_t soon_ms(void)
{
    return SOON_MIN_MS + arc4random_uniform(SOON_MAX_MS - SOON_MIN_MS + 1);
}

/* The connection or the login is gone. From the second time on the pauses grow here, since polls that go well
 * in between let the producer begin again. */
static void complete_lost(struct idefix_source *source, struct source_failure *failure)
{
    const struct source_config *config = source->config;

    if (++source->losses == 1) {
        failure->retry_after_ms = soon_ms();
        return;
    }
    failure->retry_after_ms =
        base_backoff_ms(config->retry.min_ms, config->retry.max_ms, source->losses - 1, arc4random());
    size_t used = strlen(failure->error.message);
    if (config->idefix.session != NULL && used < sizeof failure->error.message)
        snprintf(failure->error.message + used, sizeof failure->error.message - used,
                 " (is there another client with session %s?)", config->idefix.session);
}

/* When to try again after a failed call; 0: it was none. */
static int complete_failed(struct idefix_source *source, const struct idefix_failure *failed,
                           struct source_failure *failure)
{
    const char *setting = NULL;
    enum idefix_verdict verdict =
        failed->backend_code != 0 ? idefix_error_verdict(failed->backend_code, &setting) : IDEFIX_FAILED;

    if (verdict == IDEFIX_NOTHING_YET)
        return 0;
    failure->error = failed->error;
    if (failed->unreachable)
        failure->retry_after_ms = soon_ms();
    else if (failed->lost || verdict == IDEFIX_SESSION)
        complete_lost(source, failure);
    else if (failed->error.code == EP_EAUTH)
        failure->retry_after_ms = source->config->retry.max_ms;
    return failure->error.code;
}

/* What the page means for the next call. */
static int complete_page(struct idefix_source *source, const struct idefix_query *query, uint64_t start,
                         struct page *page, struct source_failure *failure)
{
    const char *cursor = query->cursor;
    bool moved = page->cursor != NULL && (cursor == NULL || strcmp(page->cursor, cursor) != 0);
    bool full = page->count > 0 && page->count >= query->limit;

    if ((!moved || page->count == 0) &&
        !source->failed) /* else it was a short poll, which is to end at once */
        source->next_ns = start + PACE_NS;
    page->more = full && moved;
    if (full && !moved && source->stuck) {
        source->stuck = false;
        source_page_clear(page);
        return base_error_set(
            &failure->error, EP_EPROTO,
            "two full pages, and the backend's cid is still \"%.100s\": nothing new would ever come",
            cursor != NULL ? cursor : "");
    }
    source->stuck = full && !moved;
    return 0;
}

static int events_get(struct idefix_source *source, const struct idefix_query *query,
                      const atomic_bool *abort, struct idefix_message *message, struct idefix_failure *failed)
{
    struct json_out data = {0};
    int code = idefix_query_data(query, &data);

    if (code == 0)
        code = idefix_call(source->idefix, "events.get", (struct json_span){data.text, data.bytes},
                           query->timeout_ms, abort, message, failed);
    else
        base_error_set(&failed->error, code, "no memory for a request");
    json_write_free(&data);
    return code;
}

static struct idefix_query query_of(const struct idefix_source *source, const struct fetch *fetch)
{
    const struct source_config *config = source->config;

    return (struct idefix_query){
        .domain = config->domain,
        .address = config->address,
        .event_type = config->event_type,
        .since = config->since,
        .cursor = fetch->cursor != NULL ? fetch->cursor : config->continuation_id,
        .limit = source->limit < fetch->limit ? source->limit : fetch->limit,
        .timeout_ms = source->failed && fetch->wait_ms > PROBE_MS ? PROBE_MS : fetch->wait_ms,
    };
}

static int source_idefix_fetch(void *state, const struct fetch *fetch, struct page *page,
                               struct source_failure *failure)
{
    struct idefix_source *source = state;
    struct idefix_message message = {0};
    struct idefix_failure failed = {0};

    if (!idefix_pause(source->idefix, source->next_ns, fetch->abort))
        return 0;
    const struct idefix_query query = query_of(source, fetch);
    uint64_t start = shm_now_ns();
    int code = events_get(source, &query, fetch->abort, &message, &failed);
    source->next_ns = 0;
    if (failed.error.code == EP_EBUSY)
        return 0;
    if (code != 0)
        code = complete_failed(source, &failed, failure);
    else
        code = source_idefix_events_read(&message, page, &failure->error);
    idefix_message_free(&message);
    if (code == 0)
        code = complete_page(source, &query, start, page, failure);
    if (code == 0 && (!source->failed || page->count > 0))
        source->losses = 0;
    source->failed = code != 0;
    if (code == EP_EPROTO)
        source->limit = query.limit > 1 ? query.limit / 2 : 1;
    else if (code == 0 && source->limit < fetch->limit)
        source->limit *= 2;
    return code;
}

static void source_idefix_interrupt(void *state)
{
    idefix_interrupt(((struct idefix_source *)state)->idefix);
}

static void source_idefix_close(void *state)
{
    struct idefix_source *source = state;

    idefix_close(&source->idefix);
    free(source);
}

const struct source_ops source_idefix_ops = {
    .type = "idefix",
    .open = source_idefix_open,
    .fetch = source_idefix_fetch,
    .interrupt = source_idefix_interrupt,
    .close = source_idefix_close,
};
