/* SPDX-License-Identifier: MIT */
/*
 * JSON text packed as MessagePack: what we send. Pure but for memory: any process, any thread.
 *
 * The reverse of json_msgpack_json: what that writes packs into the same values again. msgpack-c writes the
 * bytes; the text is walked by json.h, since a tree of doubles would lose 64-bit integers and NULs.
 *
 * Recurses with the text's depth, which valid text limits to JSON_DEPTH_MAX. A container's head needs the
 * count of what follows, so each is walked twice.
 */
#include "src/json/msgpack_write.h"

#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/error.h"

struct packing {
    msgpack_packer *packer;
    locale_t plain; /* "C": JSON's decimal point is '.', whatever the user's is */
};

static int pack_value(struct packing *packing, struct json_span value);

static int pack_text(msgpack_packer *packer, const char *text, size_t bytes)
{
    if (msgpack_pack_str(packer, bytes) != 0 ||
        (bytes > 0 && msgpack_pack_str_body(packer, text, bytes) != 0))
        return EP_ENOMEM;
    return 0;
}

static int pack_bytes(msgpack_packer *packer, const char *data, size_t bytes)
{
    if (msgpack_pack_bin(packer, bytes) != 0 ||
        (bytes > 0 && msgpack_pack_bin_body(packer, data, bytes) != 0))
        return EP_ENOMEM;
    return 0;
}

/* ---- base64 ---- */

static int digit_value(char digit)
{
    if (digit >= 'A' && digit <= 'Z')
        return digit - 'A';
    if (digit >= 'a' && digit <= 'z')
        return digit - 'a' + 26;
    if (digit >= '0' && digit <= '9')
        return digit - '0' + 52;
    return digit == '+' ? 62 : digit == '/' ? 63 : -1;
}

/* In place. False where it is not exactly what base64 makes of some bytes (padded, no bits left over): then
 * it is somebody's text, and must not change. */
static bool decode_base64(char *text, size_t *bytes)
{
    size_t count = *bytes, padding = 0, made = 0;
    uint32_t bits = 0;

    if (count % 4 != 0)
        return false;
    while (padding < 2 && count > 0 && text[count - 1] == '=') {
        count--;
        padding++;
    }
    for (size_t i = 0; i < count; i++) {
        int value = digit_value(text[i]);
        if (value < 0)
            return false;
        bits = (bits << 6 | (uint32_t)value) & 0xFFFFFF;
        if (i % 4 > 0)
            text[made++] = (char)(bits >> (6 - 2 * (i % 4)));
    }
    *bytes = made;
    return padding == 0 || (bits & (padding == 1 ? 0x3U : 0xFU)) == 0;
}

/* ---- numbers and strings ---- */

/* What has a point or an exponent is a float, even if it is whole: it was one when json_msgpack_json wrote
 * it. */
static int pack_number(struct packing *packing, struct json_span value)
{
    size_t bytes;
    char *text = json_text_exact(value, &bytes);
    bool whole, negative;
    unsigned long long number = 0;
    int failed;

    if (text == NULL)
        return EP_ENOMEM;
    whole = strpbrk(text, ".eE") == NULL;
    negative = text[0] == '-';
    errno = 0;
    if (whole)
        number = negative ? (unsigned long long)strtoll(text, NULL, 10) : strtoull(text, NULL, 10);
    if (!whole || errno != 0) /* errno: more digits than 64 bits hold */
        failed = msgpack_pack_double(packing->packer, strtod_l(text, NULL, packing->plain));
    else if (negative)
        failed = msgpack_pack_int64(packing->packer, (int64_t)number);
    else
        failed = msgpack_pack_uint64(packing->packer, number);
    free(text);
    return failed == 0 ? 0 : EP_ENOMEM;
}

static int pack_string(struct packing *packing, struct json_span value)
{
    size_t bytes;
    char *text = json_text_exact(value, &bytes);

    if (text == NULL)
        return EP_ENOMEM;
    int code = pack_text(packing->packer, text, bytes);
    free(text);
    return code;
}

/* ---- containers ---- */

static int count_element(struct json_span element, void *user)
{
    (void)element;
    (*(size_t *)user)++;
    return 0;
}

static int count_member(struct json_span key, struct json_span value, void *user)
{
    (void)key;
    return count_element(value, user);
}

static int pack_element(struct json_span element, void *user)
{
    return pack_value(user, element);
}

static bool cut_suffix(const char *text, size_t *bytes, const char *suffix)
{
    size_t length = strlen(suffix);

    if (*bytes < length || memcmp(text + *bytes - length, suffix, length) != 0)
        return false;
    *bytes -= length;
    return true;
}

/* A member whose key says that its text is base64. *done: it was, and is packed. */
static int pack_encoded(struct packing *packing, const char *key, size_t key_bytes, struct json_span value,
                        bool *done)
{
    size_t bytes;

    *done = false;
    if (json_kind(value) != '"' || !cut_suffix(key, &key_bytes, ":b64"))
        return 0;
    bool text = cut_suffix(key, &key_bytes, ":string");
    char *content = json_text_exact(value, &bytes);
    if (content == NULL)
        return EP_ENOMEM;
    int code = 0;
    if (decode_base64(content, &bytes)) {
        *done = true;
        code = pack_text(packing->packer, key, key_bytes);
        if (code == 0)
            code = text ? pack_text(packing->packer, content, bytes)
                        : pack_bytes(packing->packer, content, bytes);
    }
    free(content);
    return code;
}

static int pack_member(struct json_span key, struct json_span value, void *user)
{
    struct packing *packing = user;
    size_t bytes;
    char *name = json_text_exact(key, &bytes);
    bool done;

    if (name == NULL)
        return EP_ENOMEM;
    int code = pack_encoded(packing, name, bytes, value, &done);
    if (code == 0 && !done) {
        code = pack_text(packing->packer, name, bytes);
        if (code == 0)
            code = pack_value(packing, value);
    }
    free(name);
    return code;
}

static int pack_value(struct packing *packing, struct json_span value)
{
    size_t count = 0;

    switch (json_kind(value)) {
    case '{':
        json_each_member(value, count_member, &count);
        return msgpack_pack_map(packing->packer, count) != 0 ? EP_ENOMEM
                                                             : json_each_member(value, pack_member, packing);
    case '[':
        json_each_element(value, count_element, &count);
        return msgpack_pack_array(packing->packer, count) != 0
                   ? EP_ENOMEM
                   : json_each_element(value, pack_element, packing);
    case '"':
        return pack_string(packing, value);
    case '0':
        return pack_number(packing, value);
    case 't':
        return msgpack_pack_true(packing->packer) != 0 ? EP_ENOMEM : 0;
    case 'f':
        return msgpack_pack_false(packing->packer) != 0 ? EP_ENOMEM : 0;
    default:
        return msgpack_pack_nil(packing->packer) != 0 ? EP_ENOMEM : 0;
    }
}

int json_msgpack_write(struct json_span value, msgpack_packer *packer)
{
    struct packing packing = {packer, newlocale(LC_ALL_MASK, "C", (locale_t)0)};

    if (packing.plain == (locale_t)0)
        return EP_ENOMEM;
    int code = pack_value(&packing, value);
    freelocale(packing.plain);
    return code;
}
