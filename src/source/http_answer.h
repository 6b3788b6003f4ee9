/* SPDX-License-Identifier: MIT */
/* Reads the answer of an HTTP backend for the http source: events and a cursor, or a failure. Runs in the
 * producer's fetcher thread. */
#ifndef SOURCE_HTTP_ANSWER_H
#define SOURCE_HTTP_ANSWER_H

#include "src/source/http_exchange.h"
#include "src/source/source.h"

/*
 * Fills the page with the answer's events and its cursor, if it has one. 0, EP_ENOMEM, or a failure:
 * EP_EAUTH (401, 403, most 4xx), EP_EBACKEND (408, 429, 5xx), EP_EPROTO (not JSON, or no events where the
 * configuration says).
 */
int source_http_answer_read(const struct source_config *config, const struct http_answer *answer,
                            struct page *page, struct source_failure *failure);

#endif
