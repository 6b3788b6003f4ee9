/* SPDX-License-Identifier: MIT */
/*
 * JSON that may be broken, taken apart by its structure alone: what stands between brackets and commas
 * outside strings is a piece, whatever it holds. So one bad piece spoils no other; who takes one asks
 * json_valid about it. Pure.
 */
#ifndef JSON_SPLIT_H
#define JSON_SPLIT_H

#include "src/json/json.h"

/*
 * As json_each_element and json_each_member, for text that need not be valid: see gets each piece without the
 * white space around it; it may be empty. A key is a string that ends, with its quotes. The text must hold
 * the container and nothing else. EP_EINVAL: not of that kind; EP_EPROTO: the structure is broken, after
 * see was called for what comes before; otherwise what the last call of see returned.
 */
int json_split_elements(struct json_span array, int (*on_element)(struct json_span piece, void *user),
                        void *user);
int json_split_members(struct json_span object,
                       int (*on_member)(struct json_span key, struct json_span piece, void *user),
                       void *user);
/* Whether a key is this name, which needs no escapes. */
bool json_split_key_is(struct json_span key, const char *name);
/* Whether more than `depth` brackets are open at any place of the text. */
bool json_split_deeper(struct json_span text, size_t depth);

#endif
