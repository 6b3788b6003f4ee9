/* SPDX-License-Identifier: MIT */
/*
 * The generate source: numbered events of a given size at a given rate, for benchmarks and trials. Runs
 * in the producer's fetcher thread; other threads call only `interrupt`.
 *
 * Invariants:
 *   1. The cursor is the number of the last event, so that a restart continues there.
 *   2. Each event is {"uid":"SOURCE-N","payload":{"n":N,"pad":"xxx"}}. The payload has `size` bytes, or
 *      more if n alone needs more.
 *   3. With a rate, events come in bursts of at most one fiftieth of a second, so that a high rate does
 *      not cost one wake-up per event. If no fetch came for more than a second (a full backlog), the
 *      source skips the missed time: it makes at most one second's events at once.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "src/source/source.h"

#define SECOND_NS 1000000000ULL
#define BURSTS_PER_SECOND 50
#define PAGE_BYTES_MAX (8 << 20)

struct generate_source {
    const struct source_config *config;
    int wake_fd;
    uint64_t next_event_ns; /* when the next event is due; 0 = no fetch came yet */
};

/* Returns the monotonic clock in nanoseconds. The generate source keeps its event rate by this clock,
 * since a change of the date must not stop it. */
static uint64_t read_monotonic_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

/* Opens a source that generates numbered events for benchmarks. The producer's fetcher thread calls this
 * before the first fetch, `eventpipe check` to test the configuration. Returns 0 and sets *state, or
 * returns a negative code and fills the error. */
static int generate_source_open(const struct source_config *config, void **state, struct error *error)
{
    struct generate_source *source = calloc(1, sizeof *source);

    if (source == NULL)
        return base_error_set(error, EP_ENOMEM, "out of memory for source %s", config->id);
    source->config = config;
    source->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (source->wake_fd < 0) {
        int code = base_error_set(error, EP_ESYSTEM, "source %s: cannot create an eventfd: %s", config->id,
                                  strerror(errno));
        free(source);
        return code;
    }
    *state = source;
    return 0;
}

/* Sleeps until the next events of the generate source are due. Returns true once they are, false if the
 * fetch's time ends first or generate_source_interrupt wakes it. The producer's fetcher thread calls this
 * when a rate is configured. */
static bool wait_until_due(struct generate_source *source, uint64_t due_ns, uint64_t deadline_ns,
                           const atomic_bool *abort)
{
    uint64_t wait_end_ns = due_ns < deadline_ns ? due_ns : deadline_ns;

    while (!atomic_load(abort)) {
        uint64_t now_ns = read_monotonic_ns();
        if (now_ns >= wait_end_ns)
            return now_ns >= due_ns;
        struct timespec timeout = {(time_t)((wait_end_ns - now_ns) / SECOND_NS),
                                   (long)((wait_end_ns - now_ns) % SECOND_NS)};
        struct pollfd wake_poll = {.fd = source->wake_fd, .events = POLLIN};
        if (ppoll(&wake_poll, 1, &timeout, NULL) > 0)
            break;
    }
    uint64_t wake_count;
    (void)!read(source->wake_fd, &wake_count, sizeof wake_count);
    return false;
}

/* Returns how many events the generate source may make now, at most limit, so that the configured rate is
 * kept; waits for the first burst if none is due. Returns 0 if the fetch's time ends first or an
 * interrupt comes. The producer's fetcher thread calls this once per fetch. */
static uint64_t wait_for_due_events(struct generate_source *source, uint64_t limit, const struct fetch *fetch)
{
    double rate = source->config->generate.rate;
    if (rate <= 0)
        return limit;

    uint64_t now_ns = read_monotonic_ns(), interval_ns = (uint64_t)((double)SECOND_NS / rate);
    if (interval_ns == 0)
        interval_ns = 1;
    if (source->next_event_ns == 0)
        source->next_event_ns = now_ns;
    else if (source->next_event_ns + SECOND_NS + interval_ns < now_ns)
        source->next_event_ns = now_ns - SECOND_NS;
    uint64_t burst_count = (uint64_t)(rate / BURSTS_PER_SECOND);
    burst_count = burst_count < 1 ? 1 : burst_count > limit ? limit : burst_count;
    uint64_t burst_due_ns = source->next_event_ns + (burst_count - 1) * interval_ns;
    if (burst_due_ns > now_ns &&
        !wait_until_due(source, burst_due_ns, now_ns + fetch->wait_ms * 1000000, fetch->abort))
        return 0;
    uint64_t due_count = (read_monotonic_ns() - source->next_event_ns) / interval_ns + 1;
    if (due_count > limit)
        due_count = limit;
    source->next_event_ns += due_count * interval_ns;
    return due_count;
}

/* Adds one event of the generate source to the page, its payload padded to the configured size. json_text
 * is a buffer that is reused for each event. The producer's fetcher thread calls this. Returns 0 or
 * EP_ENOMEM. */
static int add_numbered_event(const struct generate_source *source, uint64_t event_number,
                              struct text *json_text, struct page *page)
{
    char uid[128], head[64];
    uint64_t payload_bytes = source->config->generate.size_bytes;
    size_t head_bytes = (size_t)snprintf(head, sizeof head, "{\"n\":%" PRIu64, event_number);
    static const char pad_open[] = ",\"pad\":\"", pad_close[] = "\"}";

    snprintf(uid, sizeof uid, "%s-%" PRIu64, source->config->id, event_number);
    base_text_reset(json_text);
    base_text_append(json_text, "{\"uid\":");
    json_write_string(json_text, uid, strlen(uid));
    base_text_append(json_text, ",\"payload\":");
    base_text_append_bytes(json_text, head, head_bytes);
    if (payload_bytes < head_bytes + sizeof pad_open - 1 + sizeof pad_close - 1) {
        base_text_append(json_text, "}");
    } else {
        static const char pad_chunk[] = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
        base_text_append(json_text, pad_open);
        for (size_t pad_bytes = payload_bytes - head_bytes - (sizeof pad_open - 1) - (sizeof pad_close - 1),
                    chunk_bytes;
             pad_bytes > 0; pad_bytes -= chunk_bytes) {
            chunk_bytes = pad_bytes < sizeof pad_chunk - 1 ? pad_bytes : sizeof pad_chunk - 1;
            base_text_append_bytes(json_text, pad_chunk, chunk_bytes);
        }
        base_text_append(json_text, pad_close);
    }
    base_text_append(json_text, "}");
    return json_text->failed ? EP_ENOMEM
                             : source_page_add(page, uid, NULL, NULL, json_text->text, json_text->bytes);
}

/* Fetches one page of the generate source: makes the due events after the one whose number is the cursor.
 * The producer's fetcher thread calls this. Sets page->end after the configured number of events. Returns
 * 0, or a negative code with the failure filled. */
static int generate_source_fetch(void *state, const struct fetch *fetch, struct page *page,
                                 struct source_failure *failure)
{
    struct generate_source *source = state;
    uint64_t total_count = source->config->generate.count, cursor_number = 0;
    struct text json_text = {0};
    int code = 0;

    if (fetch->cursor != NULL) {
        char *number_end;
        errno = 0;
        cursor_number = strtoull(fetch->cursor, &number_end, 10);
        if (errno != 0 || *number_end != '\0' || fetch->cursor[0] < '0' || fetch->cursor[0] > '9')
            return base_error_set(
                &failure->error, EP_EPROTO,
                "the cursor \"%s\" is not the number of an event: set a number with eventpipe cursor %s "
                "--set",
                fetch->cursor, source->config->id);
    }
    uint64_t remaining_count = total_count == 0              ? UINT64_MAX - cursor_number
                               : total_count > cursor_number ? total_count - cursor_number
                                                             : 0;
    uint64_t due_count =
        remaining_count == 0
            ? 0
            : wait_for_due_events(source, remaining_count < fetch->limit ? remaining_count : fetch->limit,
                                  fetch);
    uint64_t last_number = cursor_number;
    while (code == 0 && last_number < cursor_number + due_count && page->data_bytes < PAGE_BYTES_MAX)
        code = add_numbered_event(source, ++last_number, &json_text, page);
    if (code == 0 && last_number > cursor_number) {
        char cursor[24];
        snprintf(cursor, sizeof cursor, "%" PRIu64, last_number);
        code = source_page_set_cursor(page, cursor);
    }
    base_text_free(&json_text);
    if (code != 0)
        return base_error_set(&failure->error, code, "out of memory for a page of %" PRIu64 " events",
                              due_count);
    page->more = last_number > cursor_number && source->config->generate.rate <= 0;
    page->end = total_count != 0 && last_number >= total_count;
    return 0;
}

/* Wakes a fetch of the generate source that waits for its next event. The producer's main thread calls
 * this to pause or stop the source, and after an operator set its cursor. */
static void generate_source_interrupt(void *state)
{
    const struct generate_source *source = state;
    uint64_t wake_count = 1;

    (void)!write(source->wake_fd, &wake_count, sizeof wake_count);
}

/* Frees the generate source. The producer's fetcher thread calls this when the producer stops, source_check
 * after its test. */
static void generate_source_close(void *state)
{
    struct generate_source *source = state;

    close(source->wake_fd);
    free(source);
}

const struct source_ops source_generate_ops = {
    .type = "generate",
    .open = generate_source_open,
    .fetch = generate_source_fetch,
    .interrupt = generate_source_interrupt,
    .close = generate_source_close,
};
