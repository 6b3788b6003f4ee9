/* SPDX-License-Identifier: MIT */
/* One GET at a time, that can wait long and be stopped at once: libcurl behind it. For the http source only.
 */
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
    uint64_t retry_after_ms; /* the header Retry-After, seconds or date; 0 = none */
};

/* config is borrowed for the exchange's life. 0, EP_ENOMEM, EP_EBACKEND. */
int source_http_exchange_open(const struct http_source_config *config, struct http_exchange **out,
                              struct error *error);
void source_http_exchange_close(struct http_exchange **exchange);
/* Any thread: what waits now, or else what waits next, returns at once. */
void source_http_exchange_interrupt(struct http_exchange *exchange);
/* Waits for a time of the monotonic clock; true when it has come, false when interrupted or aborted. */
bool source_http_exchange_wait(struct http_exchange *exchange, uint64_t until_ns, const atomic_bool *abort);
/*
 * Any HTTP status is an answer. EP_EBUSY: interrupted or aborted. EP_EBACKEND: unreachable, silent, too slow.
 * EP_EPROTO: larger than max_bytes, or cut off. Redirects are followed, up to 5; secrets go to the
 * configured origin only.
 */
int source_http_exchange_get(struct http_exchange *exchange, const char *url, uint64_t wait_ms,
                             const atomic_bool *abort, struct http_answer *answer, struct error *error);
uint64_t source_http_exchange_now_ns(void);

#endif
