/* SPDX-License-Identifier: MIT */
/*
 * JSON that may be broken, taken apart by its structure alone: what stands between brackets and commas
 * outside strings is a piece, whatever it holds. So one bad piece spoils no other; who takes one asks
 * json_valid about it. Pure.
 */
#ifndef JSON_PIECES_H
#define JSON_PIECES_H

#include "src/json/json.h"

/*
 * As json_each_element and json_each_member, for text that need not be valid: see gets each piece without the
 * white space around it; it may be empty. A key is a string that ends, with its quotes. The text must hold
 * the container and nothing else. EP_EINVAL: not of that kind; EP_EGARBAGE: the structure is broken, after
 * see was called for what comes before; otherwise what the last call of see returned.
 */
int json_pieces_elements(struct json_span array, int (*see)(struct json_span piece, void *user), void *user);
int json_pieces_members(struct json_span object,
                        int (*see)(struct json_span key, struct json_span piece, void *user), void *user);
/* Whether a key is this name, which needs no escapes. */
bool json_pieces_key_is(struct json_span key, const char *name);
/* Whether more than `depth` brackets are open at any place of the text. */
bool json_pieces_deeper(struct json_span text, size_t depth);

#endif
