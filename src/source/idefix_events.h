/* SPDX-License-Identifier: MIT */
/* What Idefix's answers mean: a page of events, or an error code. Pure. */
#ifndef SOURCE_IDEFIX_EVENTS_H
#define SOURCE_IDEFIX_EVENTS_H

#include "src/idefix/frame.h"
#include "src/source/source.h"

/*
 * The events of an answer to events.get, added to the page with the cursor (`cid`) that follows them. Each
 * event is stored as its JSON text; JSON as it came, byte for byte. One that cannot be taken (nested too
 * deep, no uid, no map, an extension we do not know...) becomes the page's corrupt event with its raw bytes
 * and the reason. An answer without data, without `events`, or with null or [] for them, has none; without
 * `cid`, or with null or "", leaves the page's cursor unset. 0, EP_ENOMEM, or EP_EPROTO: data is no map,
 * events no list, cid no text; then the page is as it was.
 */
int source_idefix_events_read(const struct idefix_message *message, struct page *page, struct error *error);

#endif
