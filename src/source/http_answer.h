/* SPDX-License-Identifier: MIT */
/* What an HTTP backend's answer means: events and a cursor, or why not. For the http source only. Pure but
 * for memory. */
#ifndef SOURCE_HTTP_ANSWER_H
#define SOURCE_HTTP_ANSWER_H

#include "src/source/http_exchange.h"
#include "src/source/source.h"

/*
 * Fills the page with the answer's events and, where there is one, the cursor that follows. 0, EP_ENOMEM, or
 * a failure: EP_EAUTH (401, 403, most 4xx), EP_EBACKEND (408, 429, 5xx), EP_EPROTO (not what the
 * configuration says).
 */
int source_http_answer_read(const struct source_config *config, const struct http_answer *answer,
                            struct page *page, struct source_failure *failure);

#endif
