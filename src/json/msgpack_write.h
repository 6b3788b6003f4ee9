/* SPDX-License-Identifier: MIT */
/*
 * Writes MessagePack into a growing text (struct text), whose bytes may be anything here. The functions
 * may be chained: a lack of memory sets `failed` of the text, and the caller checks it once at the end.
 */
#ifndef JSON_MSGPACK_WRITE_H
#define JSON_MSGPACK_WRITE_H

#include "src/json/json.h"

void json_msgpack_write_nil(struct text *out);
void json_msgpack_write_bool(struct text *out, bool value);
void json_msgpack_write_int(struct text *out, int64_t value);
void json_msgpack_write_uint(struct text *out, uint64_t value);
void json_msgpack_write_double(struct text *out, double value);
void json_msgpack_write_text(struct text *out, const char *text, size_t text_bytes);
void json_msgpack_write_bytes(struct text *out, const void *data, size_t data_bytes);
/* Write the head only. The caller writes count elements next, or count times a key and a value. */
void json_msgpack_write_array(struct text *out, size_t element_count);
void json_msgpack_write_map(struct text *out, size_t member_count);

/*
 * Converts JSON text (json_valid) and appends it. Whole numbers that fit 64 bits become integers, all
 * others 64-bit floats. A member whose key ends in ":b64" becomes bytes under the key without that
 * ending, one in ":string:b64" becomes text; if its value is not base64, the member stays as it is. This
 * is the reverse of json_msgpack_convert_to_json. Returns 0 or EP_ENOMEM.
 */
int json_msgpack_write(struct text *out, struct json_span value);

#endif
