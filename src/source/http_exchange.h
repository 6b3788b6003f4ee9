/* SPDX-License-Identifier: MIT */
/* The http source's connection, by libcurl: one GET at a time, which may wait for long and can be
 * interrupted. Runs in the producer's fetcher thread. */
#ifndef SOURCE_HTTP_EXCHANGE_H
#define SOURCE_HTTP_EXCHANGE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "src/config/config.h"
#include "src/json/json.h"

struct http_exchange;

struct http_answer {
    long status;
    struct json_span body;   /* borrowed until the next call */
    uint64_t retry_after_ms; /* from the header Retry-After; 0 = none */
};

/* config is borrowed until source_http_exchange_close. 0, EP_ENOMEM or EP_EBACKEND. */
int source_http_exchange_open(const struct http_source_config *config, struct http_exchange **out,
                              struct error *error);
void source_http_exchange_close(struct http_exchange **exchange);
/* Ends the running wait or request or, if none runs, the next one. Any thread. */
void source_http_exchange_interrupt(struct http_exchange *exchange);
/* Waits for a time of the monotonic clock. Returns false if interrupted or aborted before. */
bool source_http_exchange_wait_until(struct http_exchange *exchange, uint64_t until_ns,
                                     const atomic_bool *abort);
/*
 * Sends a GET and waits for the answer, whatever its HTTP status. EP_EBUSY: interrupted or
 * aborted. EP_EBACKEND: unreachable, silent, too slow. EP_EPROTO: larger than max_bytes, or cut off. Follows
 * up to 5 redirects; sends secrets to the configured origin only.
 */
int source_http_exchange_get(struct http_exchange *exchange, const char *url, uint64_t wait_ms,
                             const atomic_bool *abort, struct http_answer *answer, struct error *error);
/* The monotonic clock. */
uint64_t source_http_exchange_now_ns(void);

#endif
