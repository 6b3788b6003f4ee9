/* SPDX-License-Identifier: MIT */
/*
 * A source: a small table of functions run by its producer in a thread of its own, so that injecting,
 * releasing and retrying go on while a fetch waits. A source never touches the store or the segment.
 */
#ifndef SOURCE_H
#define SOURCE_H

#include <stdatomic.h>

#include "src/base/error.h"
#include "src/config/config.h"
#include "src/json/json.h"
#include "src/store/store.h"

#define UID_BYTES_MAX 1024 /* a UID is an index key: a JSON pointer to a long text is a mistake */

/* One fetch's events. Owns all its strings; source_page_add copies. */
struct page {
    struct store_event *events;
    size_t count, room;
    size_t data_bytes; /* of all events, to bound a page by memory as well */
    char *cursor;      /* the cursor that follows these events; NULL = unchanged */
    bool more;         /* ask again at once: there is more now */
    bool end;          /* no event will ever come again */
};
void source_page_open(struct page *page);
void source_page_clear(struct page *page); /* frees everything, leaves it open and empty */
/* data is the whole event's JSON. uid must not be empty. 0 or EP_ENOMEM / EP_EINVAL. */
int source_page_add(struct page *page, const char *uid, const char *address, const char *type,
                    const char *data, size_t data_bytes);
/* An event that cannot be decoded: kept as dead/corrupt with its raw bytes and the reason. */
int source_page_add_corrupt(struct page *page, const char *uid, const char *raw, size_t raw_bytes,
                            const char *reason);
int source_page_set_cursor(struct page *page, const char *cursor);
/*
 * Builds an event {"uid","address"?,"type"?,"timestamp"?,"payload"} around an element whose members the
 * pointers name (http, file), and adds it. Without `uid` pointer, or where it leads nowhere: fallback_uid, or
 * when that is NULL a hash of the element (SHA-256, first 32 hex digits). is_json false: the payload is
 * written as a JSON string.
 */
int source_page_add_element(struct page *page, const struct event_pointers *pointers,
                            struct json_span element, bool is_json, const char *fallback_uid);

struct source_failure {
    uint64_t retry_after_ms; /* the backend named a time; 0 = it did not */
    struct error error;      /* EP_EBACKEND: unreachable, slow, 5xx; EP_EAUTH: account, 401, 403; EP_EPROTO:
                           malformed answer */
};

struct fetch {
    const char *cursor; /* NULL = none stored yet */
    uint32_t limit;
    uint64_t wait_ms;         /* the longest the backend may hold the call */
    const atomic_bool *abort; /* becomes true when the producer stops: return soon (any code) */
};

struct source_ops {
    const char *type;
    /* Opens the source without network. EP_ECONFIG: wrong for good; other codes: the producer tries again. */
    int (*open)(const struct source_config *config, void **state, struct error *error);
    /* Blocks up to wait_ms and some. 0: page filled, perhaps with no event ('nothing yet'). Negative: failure
     * filled. */
    int (*fetch)(void *state, const struct fetch *fetch, struct page *page, struct source_failure *failure);
    /* Any thread: makes a waiting fetch return soon. NULL when fetch watches `abort` by itself. */
    void (*interrupt)(void *state);
    void (*close)(void *state);
};
const struct source_ops *source_ops_for(enum source_type type); /* NULL: not built in */
/* Checks what a producer finds only when it starts, such as missing files. 0 or the code of open. */
int source_check(const struct source_config *config, struct error *error);

extern const struct source_ops source_idefix_ops, source_http_ops, source_file_ops, source_generate_ops,
    source_client_ops;

#endif
