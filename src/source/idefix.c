/* SPDX-License-Identifier: MIT */
/*
 * The idefix source: fetches events from an Idefix backend by long polls. Runs in the producer's fetcher
 * thread; other threads call only `interrupt`. One fetch is one events.get. Without a connection, it
 * connects and logs in first.
 *
 * Invariants:
 *   1. The stored cursor wins over continuation_id, which wins over since.
 *   2. Error 7, an empty page and an interrupted fetch mean that there are no events yet. After an
 *      immediate answer that is empty, or whose cursor did not move, the next request waits until a
 *      second has passed.
 *   3. A full page whose cursor did not move is passed on (the store skips what it knows). A second one
 *      in a row is malformed, since no new event would ever come.
 *   4. After a failed connect, and after the first loss of a connection or login, the next attempt
 *      comes within a second, with jitter: a connect is cheap, and the broker's return must be noticed
 *      soon. After more losses in a row the pauses grow, because two clients with one session ID
 *      disconnect each other again and again. If account or token is refused, the next attempt comes
 *      after retry.max. All other failures follow the producer's backoff.
 *   5. The first poll after a failure is short: its answer clears the failure in `eventpipe status`,
 *      which would stay there during a long poll.
 *   6. After a page that cannot be read, half as many events are requested, down to one. So the events
 *      before a broken one still arrive, and a page that was too large becomes small enough.
 */
#include <errno.h>
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

#define EMPTY_ANSWER_NS UINT64_C(1000000000) /* the shortest time between two empty answers */
#define SHORT_RETRY_MIN_MS 300
#define SHORT_RETRY_MAX_MS 700
#define SHORT_POLL_MS 300 /* the first poll after a failure: invariant 5 */

struct idefix_source {
    const struct source_config *config;
    struct idefix *client;
    uint64_t next_call_ns; /* earliest time of the next call */
    bool was_stuck;        /* the last page was full and its cursor had not moved */
    uint32_t loss_count;   /* of connection or login, since the last long poll that succeeded */
    bool last_call_failed; /* the last call failed */
    uint32_t page_limit;   /* most events to request; each unreadable page halves it */
};

/* Opens an idefix source, whose events come from an Idefix backend: checks filters, ca_file and account,
 * without using the network. The producer's fetcher thread calls this before the first fetch, `eventpipe
 * check` to test the configuration. Returns 0 and sets *state, or returns a negative code and fills the
 * error. */
static int idefix_source_open(const struct source_config *config, void **state, struct error *error)
{
    const char *ca_file = config->idefix.ca_file;
    struct stat ca_file_info;

    if (config->domain == NULL && config->address == NULL)
        return base_error_set(error, EP_ECONFIG,
                              "source %s: neither domain nor address is set: idefix needs one of them",
                              config->id);
    if (ca_file != NULL && access(ca_file, R_OK) != 0)
        return base_error_set(error, EP_ECONFIG, "source %s: its ca_file %s cannot be read: %s", config->id,
                              ca_file, strerror(errno));
    if (ca_file != NULL && (stat(ca_file, &ca_file_info) != 0 || !S_ISREG(ca_file_info.st_mode)))
        return base_error_set(error, EP_ECONFIG, "source %s: its ca_file %s is not a regular file",
                              config->id, ca_file);
    struct idefix_source *source = calloc(1, sizeof *source);
    if (source == NULL)
        return base_error_set(error, EP_ENOMEM, "out of memory for source %s", config->id);
    source->config = config;
    source->page_limit = config->page_size;
    int code = idefix_open(&config->idefix, &source->client, error);
    if (code != 0) {
        base_error_prefix(error, "source %s", config->id);
        free(source);
        return code;
    }
    *state = source;
    return 0;
}

/* Returns a random time of about half a second, after which an idefix source tries again. It is random,
 * so that many producers do not reconnect at once. */
static uint64_t choose_short_retry_ms(void)
{
    return SHORT_RETRY_MIN_MS + arc4random_uniform(SHORT_RETRY_MAX_MS - SHORT_RETRY_MIN_MS + 1);
}

/* Sets when the idefix source tries again after it lost its connection or login: soon the first time, then
 * after growing pauses. They grow here, because polls that succeed in between reset the producer's
 * backoff. Runs in the producer's fetcher thread. */
static void set_retry_after_loss(struct idefix_source *source, struct source_failure *failure)
{
    const struct source_config *config = source->config;

    if (++source->loss_count == 1) {
        failure->retry_after_ms = choose_short_retry_ms();
        return;
    }
    failure->retry_after_ms =
        base_backoff_ms(config->retry.min_ms, config->retry.max_ms, source->loss_count - 1, arc4random());
    size_t message_bytes = strlen(failure->error.message);
    if (config->idefix.session != NULL && message_bytes < sizeof failure->error.message)
        snprintf(failure->error.message + message_bytes, sizeof failure->error.message - message_bytes,
                 " (is there another client with session %s?)", config->idefix.session);
}

/* Turns a failed call of the Idefix backend into the idefix source's failure, and sets when to try again.
 * Returns 0 if the backend only had no events yet, else the failure's code. Runs in the producer's
 * fetcher thread. */
static int set_failure_and_retry(struct idefix_source *source, const struct idefix_failure *call_failure,
                                 struct source_failure *failure)
{
    const char *unused_setting = NULL;
    enum idefix_verdict verdict = call_failure->backend_code != 0
                                      ? idefix_error_verdict(call_failure->backend_code, &unused_setting)
                                      : IDEFIX_FAILED;

    if (verdict == IDEFIX_NOTHING_YET)
        return 0;
    failure->error = call_failure->error;
    if (call_failure->unreachable)
        failure->retry_after_ms = choose_short_retry_ms();
    else if (call_failure->lost || verdict == IDEFIX_SESSION)
        set_retry_after_loss(source, failure);
    else if (call_failure->error.code == EP_EAUTH)
        failure->retry_after_ms = source->config->retry.max_ms;
    return failure->error.code;
}

/* Decides after a page of an idefix source when the next call may go, and sets page->more. Returns 0, or
 * EP_EPROTO at the second full page in a row with the same cursor, since the same events would come for
 * ever. Runs in the producer's fetcher thread. */
static int check_cursor_progress(struct idefix_source *source, const struct idefix_query *query,
                                 uint64_t start_ns, struct page *page, struct source_failure *failure)
{
    const char *cursor = query->cursor;
    bool cursor_has_moved = page->cursor != NULL && (cursor == NULL || strcmp(page->cursor, cursor) != 0);
    bool page_is_full = page->count > 0 && page->count >= query->limit;

    if ((!cursor_has_moved || page->count == 0) &&
        !source->last_call_failed) /* after a short poll the next call comes at once */
        source->next_call_ns = start_ns + EMPTY_ANSWER_NS;
    page->more = page_is_full && cursor_has_moved;
    if (page_is_full && !cursor_has_moved && source->was_stuck) {
        source->was_stuck = false;
        source_page_clear(page);
        return base_error_set(
            &failure->error, EP_EPROTO,
            "two full pages in a row with the cid \"%.100s\": the backend repeats the same events",
            cursor != NULL ? cursor : "");
    }
    source->was_stuck = page_is_full && !cursor_has_moved;
    return 0;
}

/* Sends events.get to the Idefix backend and waits. Returns 0 and fills message with the answer, which the
 * caller frees, or returns a negative code and fills call_failure. Runs in the producer's fetcher thread,
 * once per fetch of the idefix source. */
static int call_events_get(struct idefix_source *source, const struct idefix_query *query,
                           const atomic_bool *abort, struct idefix_message *message,
                           struct idefix_failure *call_failure)
{
    struct text request = {0};
    int code = idefix_query_write_data(query, &request);

    if (code == 0)
        code = idefix_call(source->client, "events.get", (struct json_span){request.text, request.bytes},
                           query->timeout_ms, abort, message, call_failure);
    else
        base_error_set(&call_failure->error, code, "out of memory for a request");
    base_text_free(&request);
    return code;
}

/* Makes the parameters of events.get from the idefix source's configuration, the cursor and the page size,
 * which unreadable pages have reduced. After a failure the poll is short, so that its answer soon clears
 * the failure in `eventpipe status`. The texts are borrowed from configuration and fetch. */
static struct idefix_query make_query(const struct idefix_source *source, const struct fetch *fetch)
{
    const struct source_config *config = source->config;

    return (struct idefix_query){
        .domain = config->domain,
        .address = config->address,
        .event_type = config->event_type,
        .since = config->since,
        .cursor = fetch->cursor != NULL ? fetch->cursor : config->continuation_id,
        .limit = source->page_limit < fetch->limit ? source->page_limit : fetch->limit,
        .timeout_ms =
            source->last_call_failed && fetch->wait_ms > SHORT_POLL_MS ? SHORT_POLL_MS : fetch->wait_ms,
    };
}

/* Fetches one page of an idefix source from its backend by one long poll: calls events.get and reads
 * events and cursor. The producer's fetcher thread calls this. After an unreadable page it asks for half
 * as many events, to get past the bad one. Returns 0, with an empty page if there are no events yet, or a
 * negative code with the failure filled. */
static int idefix_source_fetch(void *state, const struct fetch *fetch, struct page *page,
                               struct source_failure *failure)
{
    struct idefix_source *source = state;
    struct idefix_message message = {0};
    struct idefix_failure call_failure = {0};

    if (!idefix_pause(source->client, source->next_call_ns, fetch->abort))
        return 0;
    const struct idefix_query query = make_query(source, fetch);
    uint64_t start_ns = shm_now_ns();
    int code = call_events_get(source, &query, fetch->abort, &message, &call_failure);
    source->next_call_ns = 0;
    if (call_failure.error.code == EP_EBUSY)
        return 0;
    if (code != 0)
        code = set_failure_and_retry(source, &call_failure, failure);
    else
        code = source_idefix_events_read(&message, page, &failure->error);
    idefix_message_free(&message);
    if (code == 0)
        code = check_cursor_progress(source, &query, start_ns, page, failure);
    if (code == 0 && (!source->last_call_failed || page->count > 0))
        source->loss_count = 0;
    source->last_call_failed = code != 0;
    if (code == EP_EPROTO)
        source->page_limit = query.limit > 1 ? query.limit / 2 : 1;
    else if (code == 0 && source->page_limit < fetch->limit)
        source->page_limit *= 2;
    return code;
}

/* Wakes a fetch of the idefix source that waits for the backend. The producer's main thread calls this to
 * pause or stop the source, and after an operator set its cursor. */
static void idefix_source_interrupt(void *state)
{
    idefix_interrupt(((struct idefix_source *)state)->client);
}

/* Disconnects an idefix source from its backend and frees the source. The producer's fetcher thread calls
 * this when the producer stops, source_check after its test. */
static void idefix_source_close(void *state)
{
    struct idefix_source *source = state;

    idefix_close(&source->client);
    free(source);
}

const struct source_ops source_idefix_ops = {
    .type = "idefix",
    .open = idefix_source_open,
    .fetch = idefix_source_fetch,
    .interrupt = idefix_source_interrupt,
    .close = idefix_source_close,
};
