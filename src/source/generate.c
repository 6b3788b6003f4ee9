/* SPDX-License-Identifier: MIT */
/*
 * The generate source: numbered events of a given size at a given rate, for benchmarks and trials. Runs
 * in the producer's fetch thread; other threads call only `interrupt`.
 *
 * Invariants:
 *   1. The cursor is the number of the last event, so that a restart continues there.
 *   2. Each event is {"uid":"SOURCE-N","payload":{"n":N,"pad":"xxx"}}. The payload has `size` bytes, or
 *      more if n alone needs more.
 *   3. With a rate, events come in bursts of at most one fiftieth of a second, so that a high rate does
 *      not cost one wake-up per event. If no fetch came for more than a second (a full backlog), the
 *      missed events are not made up.
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

struct generate {
    const struct source_config *config;
    int wake_fd;
    uint64_t next_ns; /* when the next event is due; 0 = the clock does not run yet */
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static int generate_open(const struct source_config *config, void **state, struct error *error)
{
    struct generate *generate = calloc(1, sizeof *generate);

    if (generate == NULL)
        return base_error_set(error, EP_ENOMEM, "no memory for source %s", config->id);
    generate->config = config;
    generate->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (generate->wake_fd < 0) {
        int code = base_error_set(error, EP_ESYSTEM, "eventfd: %s", strerror(errno));
        free(generate);
        return code;
    }
    *state = generate;
    return 0;
}

/* Waits until `until`, an interruption or the end of the call's patience; true when it was until. */
static bool wait_until(struct generate *generate, uint64_t until, uint64_t patience, const atomic_bool *abort)
{
    uint64_t end = until < patience ? until : patience;

    while (!atomic_load(abort)) {
        uint64_t now = now_ns();
        if (now >= end)
            return now >= until;
        struct timespec left = {(time_t)((end - now) / SECOND_NS), (long)((end - now) % SECOND_NS)};
        struct pollfd wake = {.fd = generate->wake_fd, .events = POLLIN};
        if (ppoll(&wake, 1, &left, NULL) > 0)
            break;
    }
    uint64_t count;
    (void)!read(generate->wake_fd, &count, sizeof count);
    return false;
}

/* How many of `most` events may go now; 0 when the call's patience ends before one is due. */
static uint64_t due_count(struct generate *generate, uint64_t most, const struct fetch *fetch)
{
    double rate = generate->config->generate.rate;
    if (rate <= 0)
        return most;

    uint64_t now = now_ns(), each_ns = (uint64_t)((double)SECOND_NS / rate);
    if (each_ns == 0)
        each_ns = 1;
    if (generate->next_ns == 0)
        generate->next_ns = now;
    else if (generate->next_ns + SECOND_NS + each_ns < now)
        generate->next_ns = now - SECOND_NS;
    uint64_t burst = (uint64_t)(rate / BURSTS_PER_SECOND);
    burst = burst < 1 ? 1 : burst > most ? most : burst;
    uint64_t ready = generate->next_ns + (burst - 1) * each_ns;
    if (ready > now && !wait_until(generate, ready, now + fetch->wait_ms * 1000000, fetch->abort))
        return 0;
    uint64_t due = (now_ns() - generate->next_ns) / each_ns + 1;
    if (due > most)
        due = most;
    generate->next_ns += due * each_ns;
    return due;
}

static int add_event(const struct generate *generate, uint64_t number, struct json_out *out,
                     struct page *page)
{
    char uid[128], head[64];
    uint64_t size = generate->config->generate.size_bytes;
    size_t head_bytes = (size_t)snprintf(head, sizeof head, "{\"n\":%" PRIu64, number);
    static const char pad_open[] = ",\"pad\":\"", pad_close[] = "\"}";

    snprintf(uid, sizeof uid, "%s-%" PRIu64, generate->config->id, number);
    json_write_reset(out);
    json_write_text(out, "{\"uid\":");
    json_write_string(out, uid, strlen(uid));
    json_write_text(out, ",\"payload\":");
    json_write_raw(out, head, head_bytes);
    if (size < head_bytes + sizeof pad_open - 1 + sizeof pad_close - 1) {
        json_write_text(out, "}");
    } else {
        static const char pad[] = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
        json_write_text(out, pad_open);
        for (size_t left = size - head_bytes - (sizeof pad_open - 1) - (sizeof pad_close - 1), part; left > 0;
             left -= part) {
            part = left < sizeof pad - 1 ? left : sizeof pad - 1;
            json_write_raw(out, pad, part);
        }
        json_write_text(out, pad_close);
    }
    json_write_text(out, "}");
    return out->failed ? EP_ENOMEM : source_page_add(page, uid, NULL, NULL, out->text, out->bytes);
}

static int generate_fetch(void *state, const struct fetch *fetch, struct page *page,
                          struct source_failure *failure)
{
    struct generate *generate = state;
    uint64_t count = generate->config->generate.count, number = 0;
    struct json_out out = {0};
    int code = 0;

    if (fetch->cursor != NULL) {
        char *end;
        errno = 0;
        number = strtoull(fetch->cursor, &end, 10);
        if (errno != 0 || *end != '\0' || fetch->cursor[0] < '0' || fetch->cursor[0] > '9')
            return base_error_set(&failure->error, EP_EPROTO,
                                  "the cursor \"%s\" is not the number of an event", fetch->cursor);
    }
    uint64_t left = count == 0 ? UINT64_MAX - number : count > number ? count - number : 0;
    uint64_t due = left == 0 ? 0 : due_count(generate, left < fetch->limit ? left : fetch->limit, fetch);
    uint64_t last = number;
    while (code == 0 && last < number + due && page->data_bytes < PAGE_BYTES_MAX)
        code = add_event(generate, ++last, &out, page);
    if (code == 0 && last > number) {
        char cursor[24];
        snprintf(cursor, sizeof cursor, "%" PRIu64, last);
        code = source_page_set_cursor(page, cursor);
    }
    json_write_free(&out);
    if (code != 0)
        return base_error_set(&failure->error, code, "no memory for a page of %" PRIu64 " events", due);
    page->more = last > number && generate->config->generate.rate <= 0;
    page->end = count != 0 && last >= count;
    return 0;
}

static void generate_interrupt(void *state)
{
    const struct generate *generate = state;
    uint64_t one = 1;

    (void)!write(generate->wake_fd, &one, sizeof one);
}

static void generate_close(void *state)
{
    struct generate *generate = state;

    close(generate->wake_fd);
    free(generate);
}

const struct source_ops source_generate_ops = {
    .type = "generate",
    .open = generate_open,
    .fetch = generate_fetch,
    .interrupt = generate_interrupt,
    .close = generate_close,
};
