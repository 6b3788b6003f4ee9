/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the store share: a store of one source with three stages, prepared, held and opened again
 * for each test, once per implementation. STORE_MAIN runs the same cases against each of them.
 */
#ifndef TESTS_LIB_STORE_FIXTURE_H
#define TESTS_LIB_STORE_FIXTURE_H

#include <stdio.h>

#include "src/store/store.h"
#include "tests/lib/unit.h"

enum store_kind { KIND_SQLITE, KIND_MEMORY, KINDS };

struct store_fixture {
    enum store_kind kind; /* which implementation the cases run against */
    char directory[64], url[128], instance[40];
    struct store_options options;
    struct store *store;
    uint64_t start, claims; /* of this start; claims made so far */
    int lock;
    int64_t source, stages[3];
};

/* The store of the running test. */
extern struct store_fixture fixture;
extern const char *const fixture_stages[4]; /* their names, and NULL */

/* Prepares the store for another start; returns the code of store_prepare. */
int fixture_prepare(void);

/* Another handle, to be closed; NULL if there is none. */
struct store *fixture_open(bool readonly);

/* Makes an empty store in a directory of its own, and opens it. */
void fixture_begin(void);

/* Counts a fault that store_check reports, in an int, the user. */
void fixture_fault(const char *message, void *user);

/* Every test ends with a store without faults. */
void fixture_end(void);

/* As after a crash of everything: a new start, and a new handle. */
void fixture_restart(void);

/* ---- short forms of the transactions ---- */

struct held { /* what was claimed, in order */
    struct store_event_lock at[4096];
    size_t count;
    uint64_t token;
    char done[256]; /* of the event claimed last */
};

/* A claim with a token of its own, whose events `held` will have. */
struct store_claim held_claim(struct held *held, size_t limit);
/* Notes what was claimed and ends the claim. */
void held_end(struct store *store, struct held *held, const struct store_claimed *claimed);
struct store_claimed claim(struct held *held, size_t limit, uint64_t now_ms);
struct store_claimed claim_from(struct store *store, struct held *held, size_t limit, uint64_t now_ms);

/* Ingests a page and claims up to `limit` events in the same transaction. */
struct store_ingested ingest_page(const struct store_page *page, struct held *held, size_t limit);
/* Ingests events with the uids "PREFIX<from>" to "PREFIX<from + count - 1>", whose data is {"n":NUMBER}. */
struct store_ingested ingest_claiming(const char *prefix, int from, int count, const char *cursor,
                                      struct held *held, size_t limit);
struct store_ingested ingest_with_cursor(const char *prefix, int from, int count, const char *cursor);
struct store_ingested ingest(const char *prefix, int from, int count);

/* One answer of the first stage; returns whether it was applied. */
bool answer(struct store_event_lock lock, struct store_answer wanted);
bool unlock(struct store_event_lock lock, struct store_unlock wanted);
struct store_totals totals(void);
struct store_stage_totals stage_totals(void);

/* Runs the cases against every implementation. */
#define STORE_MAIN(suite_name, ...)                                                                     \
    int main(void)                                                                                      \
    {                                                                                                   \
        const struct unit_case cases[] = {__VA_ARGS__};                                                 \
        int failed = EXIT_SUCCESS;                                                                      \
        for (fixture.kind = 0; fixture.kind < KINDS; fixture.kind++)                                    \
            if (unit_run(fixture.kind == KIND_SQLITE ? suite_name ", sqlite:" : suite_name ", memory:", \
                         cases, sizeof cases / sizeof cases[0]) != EXIT_SUCCESS)                        \
                failed = EXIT_FAILURE;                                                                  \
        return failed;                                                                                  \
    }

#endif
