/* SPDX-License-Identifier: MIT */
/* Makes the store of a test, and checks it at the end. */
#include "tests/lib/store_fixture.h"

#include <stdio.h>
#include <unistd.h>

struct store_fixture fixture;
const char *const fixture_stages[4] = {"first", "second", "third", NULL};

int fixture_prepare(void)
{
    struct error error = {0};
    struct store_names names = {"quakes", fixture_stages, 3, 0, fixture.stages};
    int code = store_prepare(&fixture.options, &names, 1, &fixture.start, &error);
    if (code != 0)
        fprintf(stderr, "store_prepare: %s\n", error.message);
    fixture.source = names.source_id;
    fixture.options.start_number = fixture.start;
    fixture.claims = 0;
    return code;
}

struct store *fixture_open(bool readonly)
{
    struct error error = {0};
    struct store *store = NULL;
    struct store_options options = fixture.options;
    options.readonly = readonly;
    if (store_open(&options, &store, &error) != 0)
        fprintf(stderr, "store_open: %s\n", error.message);
    return store;
}

void fixture_begin(void)
{
    static int number;
    const char *temporary = getenv("TMPDIR");
    snprintf(fixture.directory, sizeof fixture.directory, "%.40s/storeXXXXXX",
             temporary != NULL && strlen(temporary) < 40 ? temporary : "/tmp");
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(fixture.directory));
    snprintf(fixture.instance, sizeof fixture.instance, "test-%d-%d", (int)getpid(), number++);
    if (fixture.kind == KIND_MEMORY)
        strcpy(fixture.url, "memory:");
    else
        snprintf(fixture.url, sizeof fixture.url, "sqlite:%s/a store#1.db", fixture.directory);
    fixture.options = (struct store_options){.url = fixture.url,
                                             .instance = fixture.instance,
                                             .synchronous = SYNCHRONOUS_NORMAL,
                                             .busy_timeout_ms = 50};
    struct error error = {0};
    CU_ASSERT_EQUAL_FATAL(store_hold(&fixture.options, 0, &fixture.lock, &error), 0);
    CU_ASSERT_EQUAL_FATAL(fixture_prepare(), 0);
    fixture.store = fixture_open(false);
    CU_ASSERT_PTR_NOT_NULL_FATAL(fixture.store);
}

void fixture_fault(const char *message, void *user)
{
    fprintf(stderr, "  check: %s\n", message);
    ++*(int *)user;
}

void fixture_end(void)
{
    int faults = 0;
    CU_ASSERT_EQUAL(store_check(fixture.store, fixture_fault, &faults), 0);
    CU_ASSERT_EQUAL(faults, 0);
    store_close(&fixture.store);
    store_leave(&fixture.options);
    close(fixture.lock);
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", fixture.directory);
    CU_ASSERT_EQUAL(system(command), 0);
}

void fixture_restart(void)
{
    store_close(&fixture.store);
    CU_ASSERT_EQUAL_FATAL(fixture_prepare(), 0);
    fixture.store = fixture_open(false);
    CU_ASSERT_PTR_NOT_NULL_FATAL(fixture.store);
}

/* ---- short forms of the transactions ---- */

struct store_claim held_claim(struct held *held, size_t limit)
{
    *held = (struct held){.token = STORE_TOKEN(fixture.start, ++fixture.claims)};
    return (struct store_claim){held->token, limit};
}

void held_end(struct store *store, struct held *held, const struct store_claimed *claimed)
{
    for (size_t i = 0; i < claimed->count; i++) {
        held->at[held->count++] = (struct store_event_lock){claimed->events[i].event, held->token};
        snprintf(held->done, sizeof held->done, "%s", claimed->events[i].done);
    }
    CU_ASSERT_EQUAL(store_claim_end(store), 0);
}

struct store_claimed claim_from(struct store *store, struct held *held, size_t limit, uint64_t now_ms)
{
    const struct store_claim wanted = held_claim(held, limit);
    struct store_claimed out;
    CU_ASSERT_EQUAL(store_claim_begin(store, fixture.source, now_ms, &wanted, &out), 0);
    held_end(store, held, &out);
    return out;
}

struct store_claimed claim(struct held *held, size_t limit, uint64_t now_ms)
{
    return claim_from(fixture.store, held, limit, now_ms);
}

struct store_ingested ingest_page(const struct store_page *page, struct held *held, size_t limit)
{
    const struct store_claim wanted = held_claim(held, limit);
    struct store_ingested out = {0};
    struct store_claimed claimed = {0};
    int code = store_ingest_begin(fixture.store, fixture.source, page, &wanted, &out, &claimed);
    if (code != 0)
        fprintf(stderr, "store_ingest_begin: %s\n", store_errmsg(fixture.store));
    CU_ASSERT_EQUAL(code, 0);
    held_end(fixture.store, held, &claimed);
    return out;
}

struct store_ingested ingest_claiming(const char *prefix, int from, int count, const char *cursor,
                                      struct held *held, size_t limit)
{
    static struct store_event events[4096];
    static char uids[4096][32], data[4096][32];
    for (int i = 0; i < count; i++) {
        snprintf(uids[i], sizeof uids[i], "%s%d", prefix, from + i);
        snprintf(data[i], sizeof data[i], "{\"n\":%d}", from + i);
        events[i] = (struct store_event){.uid = uids[i],
                                         .address = "device-1",
                                         .type = "quake",
                                         .data = data[i],
                                         .data_bytes = strlen(data[i])};
    }
    struct store_page page = {events, (size_t)count, cursor, false, 1000, false, NULL};
    return ingest_page(&page, held, limit);
}

struct store_ingested ingest_with_cursor(const char *prefix, int from, int count, const char *cursor)
{
    struct held none;
    return ingest_claiming(prefix, from, count, cursor, &none, 0);
}

struct store_ingested ingest(const char *prefix, int from, int count)
{
    return ingest_with_cursor(prefix, from, count, NULL);
}

bool answer(struct store_event_lock lock, struct store_answer wanted)
{
    wanted.lock = lock;
    int code = store_commit(fixture.store, fixture.source, fixture.stages[0], &wanted, 1);
    if (code != 0)
        fprintf(stderr, "store_commit: %s\n", store_errmsg(fixture.store));
    CU_ASSERT_EQUAL(code, 0);
    return wanted.applied;
}

bool unlock(struct store_event_lock lock, struct store_unlock wanted)
{
    wanted.lock = lock;
    CU_ASSERT_EQUAL(store_unlock(fixture.store, fixture.source, &wanted, 1), 0);
    return wanted.applied;
}

struct store_totals totals(void)
{
    struct store_totals out;
    CU_ASSERT_EQUAL(store_source_totals(fixture.store, fixture.source, &out), 0);
    CU_ASSERT_EQUAL(out.fetched, out.completed + out.removed_by_stage + out.removed_by_operator + out.live);
    return out;
}

struct store_stage_totals stage_totals(void)
{
    struct store_stage_totals out;
    CU_ASSERT_EQUAL(store_stage_totals(fixture.store, fixture.stages[0], &out), 0);
    return out;
}
