/* SPDX-License-Identifier: MIT */
/*
 * JSON text to MessagePack (msgpack-c), exactly: integers keep their 64 bits. A member whose key ends in
 * ":b64" is packed as bytes under the key without it, ":string:b64" as text; where the text is no base64 the
 * member stays as it is. The reverse of json_msgpack_json.
 */
#ifndef JSON_MSGPACK_WRITE_H
#define JSON_MSGPACK_WRITE_H

#include <msgpack.h>

#include "src/json/json.h"

/* value: valid JSON text (json_valid). 0 or EP_ENOMEM. Numbers: whole ones that fit 64 bits as integers,
 * others as 64-bit floats. */
int json_msgpack_write(struct json_span value, msgpack_packer *packer);

#endif
