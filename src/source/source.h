/* SPDX-License-Identifier: MIT */
/*
 * A source: a table of functions that its producer calls in a fetcher thread, so that the producer's main
 * thread can hand out and retry events while a fetch waits. A source never touches the store or the shared
 * memory segment.
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
    size_t data_bytes; /* of all events: limits the memory of a page */
    char *cursor;      /* the cursor after these events; NULL = unchanged */
    bool more;         /* more events wait: fetch again at once */
    bool end;          /* the source has ended: no event will ever come again */
};
void source_page_open(struct page *page);
void source_page_clear(struct page *page); /* frees everything, leaves it open and empty */
/* data is the JSON text of the whole event. uid must not be empty. 0, EP_ENOMEM or EP_EINVAL. */
int source_page_add(struct page *page, const char *uid, const char *address, const char *type,
                    const char *data, size_t data_bytes);
/* Adds an event that cannot be decoded. The store keeps it as dead, reason corrupt, with its raw bytes. */
int source_page_add_corrupt(struct page *page, const char *uid, const char *raw, size_t raw_bytes,
                            const char *reason);
int source_page_set_cursor(struct page *page, const char *cursor);
/*
 * Builds an event {"uid","address"?,"type"?,"timestamp"?,"payload"} from an element of an HTTP answer or a
 * line of a file, and adds it. The pointers name the element's members. If the element has no uid, the event
 * gets fallback_uid or, if that is NULL, a hash of the element (SHA-256, first 32 hex digits). is_json false:
 * the payload is text and written as a JSON string.
 */
int source_page_add_element(struct page *page, const struct event_pointers *pointers,
                            struct json_span element, bool is_json, const char *fallback_uid);

struct source_failure {
    uint64_t retry_after_ms; /* time that the backend asked for; 0 = none */
    struct error error;      /* EP_EBACKEND: unreachable, slow, 5xx; EP_EAUTH: account, 401, 403; EP_EPROTO:
                           malformed answer */
};

struct fetch {
    const char *cursor; /* NULL = none stored yet */
    uint32_t limit;
    uint64_t wait_ms;         /* the longest the backend may hold the call */
    const atomic_bool *abort; /* true = the producer discards this fetch: return soon, with any code */
};

struct source_ops {
    const char *type;
    /* Opens the source without network. EP_ECONFIG: an operator must correct it. Otherwise the producer tries
     * again. */
    int (*open)(const struct source_config *config, void **state, struct error *error);
    /* Blocks for a little more than wait_ms at most. 0: page is filled, with no events if there are none yet.
     * Negative: failure is filled. */
    int (*fetch)(void *state, const struct fetch *fetch, struct page *page, struct source_failure *failure);
    /* Makes a waiting fetch return soon. Any thread may call it. NULL if fetch needs no wake-up. */
    void (*interrupt)(void *state);
    void (*close)(void *state);
};
const struct source_ops *source_ops_for(enum source_type type); /* NULL: not built in */
/* Opens and closes the source, to report early what its producer would report (a missing ca_file). 0 or the
 * code of open. */
int source_check(const struct source_config *config, struct error *error);

extern const struct source_ops source_idefix_ops, source_http_ops, source_file_ops, source_generate_ops,
    source_client_ops;

#endif
