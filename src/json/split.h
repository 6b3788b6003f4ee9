/* SPDX-License-Identifier: MIT */
/*
 * Splits JSON that may be broken by its structure alone. A piece is whatever stands between brackets and
 * commas outside strings. So one bad piece spoils no other; the caller checks each piece with json_valid.
 * Pure.
 */
#ifndef JSON_SPLIT_H
#define JSON_SPLIT_H

#include "src/json/json.h"

/*
 * As json_each_element and json_each_member, for text that need not be valid. The callback gets each piece
 * without the white space around it; a piece may be empty. A key is a complete string with its quotes. The
 * text must hold the container and nothing else. Returns what the last call returned; EP_EINVAL if the text
 * is not of that kind; EP_EPROTO if the structure is broken, after calls for the pieces before that.
 */
int json_split_elements(struct json_span array, int (*on_element)(struct json_span piece, void *user),
                        void *user);
int json_split_members(struct json_span object,
                       int (*on_member)(struct json_span key, struct json_span piece, void *user),
                       void *user);
/* Whether a key equals this name. */
bool json_split_is_key(struct json_span key, const char *name);
/* Whether more than `depth` brackets are open anywhere in the text. */
bool json_split_is_deeper_than(struct json_span text, size_t depth);

#endif
