/* SPDX-License-Identifier: MIT */
/*
 * Fills a store with the events that a `generate` source would have made, as bench-pipeline finds it the next
 * time: ready ones, or delayed ones that are not due for days, or dead ones. Through the store's own
 * interface, so it is a store like any other; it does not wait for the disk, since this is not measured.
 *
 *   bench-fill --file PATH --events N [--delayed | --dead] [--payload BYTES]
 *
 * Prints one JSON line: events, seconds.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "contrib/bench_parts.h"
#include "contrib/bench_tool.h"
#include "src/store/store.h"

#define PAGE 5000
#define DAYS_MS (UINT64_C(30) * 24 * 3600 * 1000)

struct fill {
    char url[4096];
    uint64_t events, payload, start_number, claims;
    bool delayed, dead;
    struct store *store;
    int64_t source, stage;
    char uids[PAGE][32];
    char *texts;
    size_t text_bytes; /* of each, at most */
    struct store_event page[PAGE];
    struct store_answer answers[PAGE];
    size_t answer_count;
};

static uint64_t wall_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void open_store(struct fill *fill)
{
    struct error error = {0};
    const char *stages[3];
    int64_t stage_ids[3];
    for (unsigned i = 0; i < 3; i++)
        stages[i] = bench_stage_name(i);
    struct store_names names = {.source = BENCH_SOURCE,
                                .stages = stages,
                                .stage_count = 3,
                                .stage_ids = stage_ids};
    struct store_options options = {.url = fill->url,
                                    .instance = "bench-fill",
                                    .synchronous = SYNCHRONOUS_NORMAL};
    int lock_fd;
    if (store_hold(&options, 0, &lock_fd, &error) != 0 ||
        store_prepare(&options, &names, 1, &fill->start_number, &error) != 0)
        bench_give_up(fill->url, error.message);
    options.start_number = fill->start_number;
    if (store_open(&options, &fill->store, &error) != 0)
        bench_give_up(fill->url, error.message);
    fill->source = names.source_id;
    fill->stage = stage_ids[0];
}

static void write_event(struct fill *fill, size_t at, uint64_t number)
{
    char *text = fill->texts + at * fill->text_bytes;
    snprintf(fill->uids[at], sizeof fill->uids[at], BENCH_SOURCE "-%" PRIu64, number);
    int head = snprintf(text, fill->text_bytes, "{\"uid\":\"%s\",\"payload\":{\"n\":%" PRIu64 ",\"pad\":\"",
                        fill->uids[at], number);
    int pad = (int)fill->payload - snprintf(NULL, 0, "{\"n\":%" PRIu64 ",\"pad\":\"\"}", number);
    size_t pad_bytes = pad > 0 ? (size_t)pad : 0;
    memset(text + head, 'x', pad_bytes);
    memcpy(text + head + pad_bytes, "\"}}", 4);
    fill->page[at] = (struct store_event){.uid = fill->uids[at],
                                          .data = text,
                                          .data_bytes = (size_t)head + pad_bytes + 3,
                                          .dead = fill->dead ? STORE_REASON_CORRUPT : STORE_REASON_NONE,
                                          .error = fill->dead ? "made up" : NULL};
}

static void store_page(struct fill *fill, uint64_t first, size_t count)
{
    char cursor[24];
    for (size_t i = 0; i < count; i++)
        write_event(fill, i, first + i);
    snprintf(cursor, sizeof cursor, "%" PRIu64, first + count - 1);
    const struct store_page page = {.events = fill->page,
                                    .count = count,
                                    .cursor = cursor,
                                    .now_ms = wall_ms()};
    const struct store_claim claim = {STORE_TOKEN(fill->start_number, ++fill->claims),
                                      fill->delayed ? count : 0};
    struct store_ingested ingested;
    struct store_claimed claimed;
    if (store_ingest_begin(fill->store, fill->source, &page, &claim, &ingested, &claimed) != 0)
        bench_give_up(fill->url, store_errmsg(fill->store));
    fill->answer_count = claimed.count;
    for (size_t i = 0; i < claimed.count; i++)
        fill->answers[i] = (struct store_answer){.lock = {claimed.events[i].event, claim.token},
                                                 .change = STORE_DELAY,
                                                 .due_ms = wall_ms() + DAYS_MS,
                                                 .attempt = 1};
    if (store_claim_end(fill->store) != 0 || ingested.stored != count)
        bench_give_up(fill->url, store_errmsg(fill->store));
    if (fill->delayed &&
        (fill->answer_count != count ||
         store_commit(fill->store, fill->source, fill->stage, fill->answers, fill->answer_count) != 0))
        bench_give_up(fill->url, store_errmsg(fill->store));
}

static void read_options(struct fill *fill, int argc, char **argv)
{
    static const struct option options[] = {{"file", required_argument, NULL, 'f'},
                                            {"events", required_argument, NULL, 'n'},
                                            {"payload", required_argument, NULL, 's'},
                                            {"delayed", no_argument, NULL, 'l'},
                                            {"dead", no_argument, NULL, 'x'},
                                            {0}};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'f':
            snprintf(fill->url, sizeof fill->url, "sqlite:%s", optarg);
            break;
        case 'n':
            fill->events = bench_number(optarg, 1, 1000000000);
            break;
        case 's':
            fill->payload = bench_number(optarg, 2, 1 << 20);
            break;
        case 'l':
            fill->delayed = true;
            break;
        case 'x':
            fill->dead = true;
            break;
        default:
            exit(2);
        }
    if (fill->url[0] == '\0' || fill->events == 0 || optind < argc) {
        fprintf(stderr, "usage: bench-fill --file PATH --events N [--delayed | --dead] [--payload BYTES]\n");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    static struct fill fill = {.payload = 220};
    read_options(&fill, argc, argv);
    fill.text_bytes = fill.payload + 128;
    fill.texts = malloc(PAGE * fill.text_bytes);
    if (fill.texts == NULL)
        bench_give_up("events", "out of memory");
    uint64_t begin = bench_now_ns();
    open_store(&fill);
    for (uint64_t first = 1; first <= fill.events; first += PAGE) {
        uint64_t left = fill.events - first + 1;
        store_page(&fill, first, left < PAGE ? left : PAGE);
    }
    store_close(&fill.store);
    free(fill.texts);
    printf("{\"events\":%" PRIu64 ",\"seconds\":%.3f}\n", fill.events,
           (double)(bench_now_ns() - begin) / 1e9);
    return 0;
}
