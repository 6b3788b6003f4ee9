/* SPDX-License-Identifier: MIT */
/* An http source with a feed that really long-polls (tests/system/feed_server.py), for the tests of the http
 * source. */
#ifndef TESTS_LIB_HTTP_RIG_H
#define TESTS_LIB_HTTP_RIG_H

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "src/config/url.h"
#include "src/source/source.h"
#include "tests/lib/unit.h"

/* ---- the feed ---- */

struct feed {
    pid_t pid;
    int input, port;
    FILE *output;
    char path[256]; /* of the file with its events */
};

/* One request beside the source: control, stats, add. */
void feed_send(const struct feed *feed, const char *request, const char *post, struct text *said);

/* A number of the feed's statistics, or -1. */
int64_t feed_number(const struct feed *feed, const char *pointer);

/* Whether this text is in the feed's statistics. */
bool feed_saw(const struct feed *feed, const char *text);

/* ---- the source ---- */

struct http_rig {
    struct feed feed;
    char url[256];
    struct source_config config;
    void *state;
    struct page page;
    struct source_failure failure;
    atomic_bool abort;
    char *cursor;
};

/* Starts a feed with seven events, and opens a source that fetches from this path of it. */
void http_rig_open(struct http_rig *rig, const char *url);
void http_rig_close(struct http_rig *rig);

/* Fetches a page, and keeps its cursor for the next. */
int http_rig_fetch(struct http_rig *rig, uint32_t limit, uint64_t wait_ms);
void http_rig_expect(const struct http_rig *rig, size_t count, const char *cursor);
bool http_rig_event_holds(const struct http_rig *rig, size_t index, const char *text);

/* Tells the feed how to behave. */
void http_rig_control(const struct http_rig *rig, const char *message);
uint64_t http_rig_now_ms(clockid_t clock);

/* Runs the cases with libcurl prepared. */
int http_rig_run(const char *name, const struct unit_case *cases, size_t count);

#endif
