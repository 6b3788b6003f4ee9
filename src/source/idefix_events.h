/* SPDX-License-Identifier: MIT */
/* Reads the events in an Idefix backend's answer, for the idefix source (in the producer's fetcher thread)
 * and for the library's Idefix client (in the caller's process). */
#ifndef SOURCE_IDEFIX_EVENTS_H
#define SOURCE_IDEFIX_EVENTS_H

#include "src/idefix/frame.h"
#include "src/source/source.h"

/*
 * Adds the events of an answer to events.get, and the cursor after them (`cid`), to the page. Each event is
 * stored as JSON text; an event that came as JSON stays byte for byte. An event that cannot be decoded
 * (nested too deep, no uid, not a map, an unknown extension) becomes a corrupt event with its raw bytes and
 * the reason. If data or `events` is missing, null or empty, there are no events. If `cid` is missing, null
 * or "", the page's cursor stays unset. 0, EP_ENOMEM, or EP_EPROTO: data is not a map, events not a list or
 * cid not a text; then the page is unchanged.
 */
int source_idefix_events_read(const struct idefix_message *message, struct page *page, struct error *error);

#endif
