/* SPDX-License-Identifier: MIT */
/*
 * Writes MessagePack: single values, and JSON text converted to it. Idefix frames are written with it. Pure
 * except for memory: any process, any thread, no state.
 *
 * Invariants:
 * 1. Each value takes the shortest form that holds it, except floats, which always take 64 bits.
 * 2. Integers are read from the JSON text itself, not from a tree of doubles, so that all 64 bits survive.
 * 3. What json_msgpack_convert_to_json wrote as JSON converts back to the same values.
 * 4. The recursion is as deep as the text, which is at most JSON_DEPTH_MAX in valid text.
 *
 * The head of a map or an array holds the number of its members, so each container is walked twice: once to
 * count, once to write.
 *
 * Survived: a lack of memory. `failed` of the output stays set, and json_msgpack_write returns EP_ENOMEM.
 */
#include "src/json/msgpack_write.h"

#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/error.h"

struct converter {
    struct text *out;
    locale_t c_locale; /* "C": JSON's decimal point is '.', whatever the user's is */
};

static int convert_value(struct converter *converter, struct json_span value);

/* ---- single values ---- */

/* Appends a MessagePack format byte and then the number in `number_bytes` bytes (0, 1, 2, 4 or 8), highest
 * byte first. Each function that writes a MessagePack value begins with it. */
static void write_head(struct text *out, unsigned format, uint64_t number, size_t number_bytes)
{
    char head[9] = {(char)format};

    for (size_t i = 0; i < number_bytes; i++)
        head[1 + i] = (char)(number >> 8 * (number_bytes - 1 - i));
    base_text_append_bytes(out, head, 1 + number_bytes);
}

/* Appends a MessagePack length in as few bytes as it needs; each size has its own format byte, format8 is
 * 0 if there is none of 8 bits. A length above 32 bits sets `failed` of the output, since MessagePack
 * cannot hold it. */
static void write_length(struct text *out, unsigned format8, unsigned format16, unsigned format32,
                         size_t content_length)
{
    if (content_length > UINT32_MAX)
        out->failed = true; /* MessagePack cannot say it; no text in this program is as long */
    else if (content_length > UINT16_MAX)
        write_head(out, format32, content_length, 4);
    else if (content_length > UINT8_MAX || format8 == 0)
        write_head(out, format16, content_length, 2);
    else
        write_head(out, format8, content_length, 1);
}

void json_msgpack_write_nil(struct text *out)
{
    write_head(out, 0xC0, 0, 0);
}

void json_msgpack_write_bool(struct text *out, bool value)
{
    write_head(out, value ? 0xC3 : 0xC2, 0, 0);
}

/* Appends an unsigned integer as MessagePack, in the shortest form that holds it. The Idefix client sends
 * the numbers in the data of its requests this way, converted from JSON text. */
void json_msgpack_write_uint(struct text *out, uint64_t value)
{
    if (value < 0x80)
        write_head(out, (unsigned)value, 0, 0);
    else if (value <= UINT8_MAX)
        write_head(out, 0xCC, value, 1);
    else if (value <= UINT16_MAX)
        write_head(out, 0xCD, value, 2);
    else if (value <= UINT32_MAX)
        write_head(out, 0xCE, value, 4);
    else
        write_head(out, 0xCF, value, 8);
}

/* Appends a signed integer as MessagePack, in the shortest form that holds it. The Idefix client sends
 * negative numbers in the data of its requests this way, converted from JSON text. */
void json_msgpack_write_int(struct text *out, int64_t value)
{
    if (value >= 0)
        json_msgpack_write_uint(out, (uint64_t)value);
    else if (value >= -32)
        write_head(out, (uint8_t)value, 0, 0);
    else if (value >= INT8_MIN)
        write_head(out, 0xD0, (uint64_t)value, 1);
    else if (value >= INT16_MIN)
        write_head(out, 0xD1, (uint64_t)value, 2);
    else if (value >= INT32_MIN)
        write_head(out, 0xD2, (uint64_t)value, 4);
    else
        write_head(out, 0xD3, (uint64_t)value, 8);
}

/* Appends a double as MessagePack, always in 64 bits, so that no digit is lost. The conversion of JSON
 * text calls it for numbers that are not whole or do not fit 64 bits. */
void json_msgpack_write_double(struct text *out, double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    write_head(out, 0xCB, bits, 8);
}

/* Appends a MessagePack text of `text_bytes` bytes. The Idefix client (in the producer, or in a program
 * that uses the library) writes the members of its frames with it. */
void json_msgpack_write_text(struct text *out, const char *text, size_t text_bytes)
{
    if (text_bytes < 32)
        write_head(out, 0xA0 | (unsigned)text_bytes, 0, 0);
    else
        write_length(out, 0xD9, 0xDA, 0xDB, text_bytes);
    base_text_append_bytes(out, text, text_bytes);
}

void json_msgpack_write_bytes(struct text *out, const void *data, size_t data_bytes)
{
    write_length(out, 0xC4, 0xC5, 0xC6, data_bytes);
    base_text_append_bytes(out, data, data_bytes);
}

/* Appends the head of a MessagePack array; the caller must append `element_count` values next. The
 * conversion of JSON text calls it, and the Idefix simulator for broken frames. */
void json_msgpack_write_array(struct text *out, size_t element_count)
{
    if (element_count < 16)
        write_head(out, 0x90 | (unsigned)element_count, 0, 0);
    else
        write_length(out, 0, 0xDC, 0xDD, element_count);
}

/* Appends the head of a MessagePack map; the caller must append `member_count` keys and values next. The
 * Idefix client (in the producer, or in a program that uses the library) begins each frame with it. */
void json_msgpack_write_map(struct text *out, size_t member_count)
{
    if (member_count < 16)
        write_head(out, 0x80 | (unsigned)member_count, 0, 0);
    else
        write_length(out, 0, 0xDE, 0xDF, member_count);
}

/* ---- base64 ---- */

/* Returns the 6 bits that a base64 digit stands for, or -1 if it is not a base64 digit. */
static int base64_digit_value(char digit)
{
    if (digit >= 'A' && digit <= 'Z')
        return digit - 'A';
    if (digit >= 'a' && digit <= 'z')
        return digit - 'a' + 26;
    if (digit >= '0' && digit <= '9')
        return digit - '0' + 52;
    return digit == '+' ? 62 : digit == '/' ? 63 : -1;
}

/* Decodes base64 in place and sets *text_bytes to the new length. Returns false unless the text is exactly
 * what an encoder writes (padded, unused bits zero): then it is ordinary text under a JSON key that happens
 * to end in ":b64", and must not change. */
static bool decode_base64(char *text, size_t *text_bytes)
{
    size_t digit_count = *text_bytes, padding = 0, decoded_bytes = 0;
    uint32_t bits = 0;

    if (digit_count % 4 != 0)
        return false;
    while (padding < 2 && digit_count > 0 && text[digit_count - 1] == '=') {
        digit_count--;
        padding++;
    }
    for (size_t i = 0; i < digit_count; i++) {
        int digit_value = base64_digit_value(text[i]);
        if (digit_value < 0)
            return false;
        bits = (bits << 6 | (uint32_t)digit_value) & 0xFFFFFF;
        if (i % 4 > 0)
            text[decoded_bytes++] = (char)(bits >> (6 - 2 * (i % 4)));
    }
    *text_bytes = decoded_bytes;
    return padding == 0 || (bits & (padding == 1 ? 0x3U : 0xFU)) == 0;
}

/* ---- numbers and strings ---- */

/* Appends a JSON number as a MessagePack integer or float. A number with a point or an exponent becomes a
 * float even if it is whole, since json_msgpack_convert_to_json writes floats that way; so does a whole
 * number of more than 64 bits. Returns 0 or EP_ENOMEM. */
static int convert_number(struct converter *converter, struct json_span value)
{
    size_t text_bytes;
    char *text = json_text_exact(value, &text_bytes);

    if (text == NULL)
        return EP_ENOMEM;
    bool is_whole = strpbrk(text, ".eE") == NULL, is_negative = text[0] == '-';
    long long signed_integer = 0;
    unsigned long long unsigned_integer = 0;
    errno = 0;
    if (is_whole && is_negative)
        signed_integer = strtoll(text, NULL, 10);
    else if (is_whole)
        unsigned_integer = strtoull(text, NULL, 10);
    if (!is_whole || errno != 0) /* ERANGE */
        json_msgpack_write_double(converter->out, strtod_l(text, NULL, converter->c_locale));
    else if (is_negative)
        json_msgpack_write_int(converter->out, signed_integer);
    else
        json_msgpack_write_uint(converter->out, unsigned_integer);
    free(text);
    return 0;
}

/* Decodes a JSON string and appends it as MessagePack text. Returns 0 or EP_ENOMEM. */
static int convert_string(struct converter *converter, struct json_span value)
{
    size_t text_bytes;
    char *text = json_text_exact(value, &text_bytes);

    if (text == NULL)
        return EP_ENOMEM;
    json_msgpack_write_text(converter->out, text, text_bytes);
    free(text);
    return 0;
}

/* ---- containers ---- */

/* Counts the elements of a JSON array, since a MessagePack array begins with their number. */
static int on_element_count(struct json_span element, void *user)
{
    (void)element;
    (*(size_t *)user)++;
    return 0;
}

/* Counts the members of a JSON object, since a MessagePack map begins with their number. */
static int on_member_count(struct json_span key, struct json_span value, void *user)
{
    (void)key;
    return on_element_count(value, user);
}

/* Converts one element of a JSON array to MessagePack. */
static int on_element_convert(struct json_span element, void *user)
{
    return convert_value(user, element);
}

/* Subtracts the suffix, such as ":b64", from *key_bytes and returns true if the JSON key ends in it;
 * otherwise returns false. The suffix tells that a member's value is base64. */
static bool cut_key_suffix(const char *key, size_t *key_bytes, const char *suffix)
{
    size_t suffix_bytes = strlen(suffix);

    if (*key_bytes < suffix_bytes || memcmp(key + *key_bytes - suffix_bytes, suffix, suffix_bytes) != 0)
        return false;
    *key_bytes -= suffix_bytes;
    return true;
}

/* Appends a member as MessagePack bytes or text if its JSON key ends in ":b64" and its value is base64,
 * and sets *is_written. Otherwise it appends nothing, and the caller converts the member as it is. Returns
 * 0 or EP_ENOMEM. */
static int write_if_base64_member(struct converter *converter, const char *key, size_t key_bytes,
                                  struct json_span value, bool *is_written)
{
    size_t content_bytes;

    *is_written = false;
    if (json_kind(value) != '"' || !cut_key_suffix(key, &key_bytes, ":b64"))
        return 0;
    bool is_text = cut_key_suffix(key, &key_bytes, ":string");
    char *content = json_text_exact(value, &content_bytes);
    if (content == NULL)
        return EP_ENOMEM;
    *is_written = decode_base64(content, &content_bytes);
    if (*is_written) {
        json_msgpack_write_text(converter->out, key, key_bytes);
        if (is_text)
            json_msgpack_write_text(converter->out, content, content_bytes);
        else
            json_msgpack_write_bytes(converter->out, content, content_bytes);
    }
    free(content);
    return 0;
}

/* Appends the key and value of one member of a JSON object as MessagePack, with base64 decoded where the
 * key's suffix asks for it. Returns 0, or EP_ENOMEM, which ends the loop over the members. */
static int on_member_convert(struct json_span key, struct json_span value, void *user)
{
    struct converter *converter = user;
    size_t name_bytes;
    char *name = json_text_exact(key, &name_bytes);
    bool is_written;

    if (name == NULL)
        return EP_ENOMEM;
    int code = write_if_base64_member(converter, name, name_bytes, value, &is_written);
    if (code == 0 && !is_written) {
        json_msgpack_write_text(converter->out, name, name_bytes);
        code = convert_value(converter, value);
    }
    free(name);
    return code;
}

/* Appends a JSON value of any kind as MessagePack. It recurses into arrays and objects, which json_valid
 * has limited to JSON_DEPTH_MAX levels. Returns 0 or EP_ENOMEM. */
static int convert_value(struct converter *converter, struct json_span value)
{
    size_t child_count = 0;

    switch (json_kind(value)) {
    case '{':
        json_each_member(value, on_member_count, &child_count);
        json_msgpack_write_map(converter->out, child_count);
        return json_each_member(value, on_member_convert, converter);
    case '[':
        json_each_element(value, on_element_count, &child_count);
        json_msgpack_write_array(converter->out, child_count);
        return json_each_element(value, on_element_convert, converter);
    case '"':
        return convert_string(converter, value);
    case '0':
        return convert_number(converter, value);
    case 't':
    case 'f':
        json_msgpack_write_bool(converter->out, json_kind(value) == 't');
        return 0;
    default:
        json_msgpack_write_nil(converter->out);
        return 0;
    }
}

/* Converts valid JSON text to MessagePack and appends it to `out`. Returns 0 or EP_ENOMEM. The Idefix
 * client, in the producer or in a program that uses the library, encodes the data of its requests with
 * it. */
int json_msgpack_write(struct text *out, struct json_span value)
{
    struct converter converter = {out, newlocale(LC_ALL_MASK, "C", (locale_t)0)};

    if (converter.c_locale == (locale_t)0)
        return EP_ENOMEM;
    int code = convert_value(&converter, value);
    freelocale(converter.c_locale);
    return code == 0 && out->failed ? EP_ENOMEM : code;
}
