/* SPDX-License-Identifier: MIT */
/*
 * Writes MessagePack: single values, and JSON text converted to it. Idefix frames are written with it. Pure
 * except for memory: any process, any thread, no state.
 *
 * Invariants:
 * 1. Each value takes the shortest form that holds it, except floats, which always take 64 bits.
 * 2. Integers are read from the JSON text itself, not from a tree of doubles, so that all 64 bits survive.
 * 3. What json_msgpack_json wrote as JSON converts back to the same values.
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

/* Writes a MessagePack format byte and then the number in `size` bytes (0, 1, 2, 4 or 8), highest byte
 * first. Runs in any process. */
static void write_head(struct text *out, unsigned format, uint64_t number, size_t size)
{
    char head[9] = {(char)format};

    for (size_t i = 0; i < size; i++)
        head[1 + i] = (char)(number >> 8 * (size - 1 - i));
    base_text_append_bytes(out, head, 1 + size);
}

/* Writes a MessagePack length in as few bytes as it needs, each size with its own format byte. 0 stands for
 * a format that does not exist. Runs in any process. */
static void write_length(struct text *out, unsigned format8, unsigned format16, unsigned format32,
                         size_t length)
{
    if (length > UINT32_MAX)
        out->failed = true; /* MessagePack cannot say it; no text in this program is as long */
    else if (length > UINT16_MAX)
        write_head(out, format32, length, 4);
    else if (length > UINT8_MAX || format8 == 0)
        write_head(out, format16, length, 2);
    else
        write_head(out, format8, length, 1);
}

void json_msgpack_write_nil(struct text *out)
{
    write_head(out, 0xC0, 0, 0);
}

void json_msgpack_write_bool(struct text *out, bool value)
{
    write_head(out, value ? 0xC3 : 0xC2, 0, 0);
}

/* Appends an unsigned integer as MessagePack, in the shortest form that holds it. The conversion from JSON
 * text uses it, in any process. */
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

/* Appends a signed integer as MessagePack, in the shortest form that holds it. The conversion from JSON text
 * uses it, in any process. */
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

/* Appends a double as MessagePack, always in 64 bits, so that no digit is lost. The conversion from JSON
 * text uses it, in any process. */
void json_msgpack_write_double(struct text *out, double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    write_head(out, 0xCB, bits, 8);
}

/* Appends a MessagePack text. The Idefix client (in the producer, or in a program that uses the library)
 * writes the members of its frames with it. */
void json_msgpack_write_text(struct text *out, const char *text, size_t bytes)
{
    if (bytes < 32)
        write_head(out, 0xA0 | (unsigned)bytes, 0, 0);
    else
        write_length(out, 0xD9, 0xDA, 0xDB, bytes);
    base_text_append_bytes(out, text, bytes);
}

void json_msgpack_write_bytes(struct text *out, const void *data, size_t bytes)
{
    write_length(out, 0xC4, 0xC5, 0xC6, bytes);
    base_text_append_bytes(out, data, bytes);
}

/* Appends the head of a MessagePack array; the caller writes `count` values next. The conversion from JSON
 * text uses it, in any process. */
void json_msgpack_write_array(struct text *out, size_t count)
{
    if (count < 16)
        write_head(out, 0x90 | (unsigned)count, 0, 0);
    else
        write_length(out, 0, 0xDC, 0xDD, count);
}

/* Appends the head of a MessagePack map; the caller writes `count` keys and values next. The Idefix client
 * (in the producer, or in a program that uses the library) begins each frame with it. */
void json_msgpack_write_map(struct text *out, size_t count)
{
    if (count < 16)
        write_head(out, 0x80 | (unsigned)count, 0, 0);
    else
        write_length(out, 0, 0xDE, 0xDF, count);
}

/* ---- base64 ---- */

/* Returns the 6 bits that a base64 digit stands for; -1 if it is not a base64 digit. Runs in any process. */
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

/* Decodes base64 in place. Returns false unless the text is exactly what base64 makes of some bytes (padded,
 * unused bits zero): then it is ordinary text under a JSON key that happens to end in ":b64", and must not
 * change. Runs in any process. */
static bool decode_base64(char *text, size_t *bytes)
{
    size_t count = *bytes, padding = 0, decoded_bytes = 0;
    uint32_t bits = 0;

    if (count % 4 != 0)
        return false;
    while (padding < 2 && count > 0 && text[count - 1] == '=') {
        count--;
        padding++;
    }
    for (size_t i = 0; i < count; i++) {
        int value = base64_digit_value(text[i]);
        if (value < 0)
            return false;
        bits = (bits << 6 | (uint32_t)value) & 0xFFFFFF;
        if (i % 4 > 0)
            text[decoded_bytes++] = (char)(bits >> (6 - 2 * (i % 4)));
    }
    *bytes = decoded_bytes;
    return padding == 0 || (bits & (padding == 1 ? 0x3U : 0xFU)) == 0;
}

/* ---- numbers and strings ---- */

/* Writes a JSON number as a MessagePack integer or float. A number with a point or an exponent is a float,
 * even if it is whole: json_msgpack_json writes floats that way. A whole number of more than 64 bits becomes
 * a float as well. Runs in any process. */
static int convert_number(struct converter *converter, struct json_span value)
{
    size_t bytes;
    char *text = json_text_exact(value, &bytes);

    if (text == NULL)
        return EP_ENOMEM;
    bool whole = strpbrk(text, ".eE") == NULL, negative = text[0] == '-';
    long long integer = 0;
    unsigned long long natural = 0;
    errno = 0;
    if (whole && negative)
        integer = strtoll(text, NULL, 10);
    else if (whole)
        natural = strtoull(text, NULL, 10);
    if (!whole || errno != 0) /* ERANGE */
        json_msgpack_write_double(converter->out, strtod_l(text, NULL, converter->c_locale));
    else if (negative)
        json_msgpack_write_int(converter->out, integer);
    else
        json_msgpack_write_uint(converter->out, natural);
    free(text);
    return 0;
}

/* Decodes a JSON string and writes it as MessagePack text. Returns 0 or EP_ENOMEM. Runs in any process. */
static int convert_string(struct converter *converter, struct json_span value)
{
    size_t bytes;
    char *text = json_text_exact(value, &bytes);

    if (text == NULL)
        return EP_ENOMEM;
    json_msgpack_write_text(converter->out, text, bytes);
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

/* Shortens *bytes by the suffix if the JSON key ends in it (":b64" for example); otherwise returns false.
 * The conversion to MessagePack finds with it which values are base64. Runs in any process. */
static bool remove_key_suffix(const char *text, size_t *bytes, const char *suffix)
{
    size_t length = strlen(suffix);

    if (*bytes < length || memcmp(text + *bytes - length, suffix, length) != 0)
        return false;
    *bytes -= length;
    return true;
}

/* Writes a member whose JSON key ends in ":b64" and whose value is base64 as MessagePack bytes or text. Sets
 * *done when it did; otherwise nothing is written, and the caller writes the member as it is. Runs in any
 * process. */
static int convert_base64_member(struct converter *converter, const char *key, size_t key_bytes,
                                 struct json_span value, bool *done)
{
    size_t bytes;

    *done = false;
    if (json_kind(value) != '"' || !remove_key_suffix(key, &key_bytes, ":b64"))
        return 0;
    bool is_text = remove_key_suffix(key, &key_bytes, ":string");
    char *content = json_text_exact(value, &bytes);
    if (content == NULL)
        return EP_ENOMEM;
    *done = decode_base64(content, &bytes);
    if (*done) {
        json_msgpack_write_text(converter->out, key, key_bytes);
        if (is_text)
            json_msgpack_write_text(converter->out, content, bytes);
        else
            json_msgpack_write_bytes(converter->out, content, bytes);
    }
    free(content);
    return 0;
}

/* Called for each member of a JSON object: writes its key and value as MessagePack, with base64 decoded
 * where the key asks for it. Returns 0 or EP_ENOMEM, which ends the walk. Runs in any process. */
static int on_member_convert(struct json_span key, struct json_span value, void *user)
{
    struct converter *converter = user;
    size_t bytes;
    char *name = json_text_exact(key, &bytes);
    bool done;

    if (name == NULL)
        return EP_ENOMEM;
    int code = convert_base64_member(converter, name, bytes, value, &done);
    if (code == 0 && !done) {
        json_msgpack_write_text(converter->out, name, bytes);
        code = convert_value(converter, value);
    }
    free(name);
    return code;
}

/* Writes a JSON value of any kind as MessagePack. It recurses into arrays and objects, as deep as json_valid
 * allows. Returns 0 or EP_ENOMEM. Runs in any process. */
static int convert_value(struct converter *converter, struct json_span value)
{
    size_t count = 0;

    switch (json_kind(value)) {
    case '{':
        json_each_member(value, on_member_count, &count);
        json_msgpack_write_map(converter->out, count);
        return json_each_member(value, on_member_convert, converter);
    case '[':
        json_each_element(value, on_element_count, &count);
        json_msgpack_write_array(converter->out, count);
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

/* Converts valid JSON text to MessagePack and appends it to `out`. Returns 0 or EP_ENOMEM. The Idefix client
 * encodes the data of its requests with it, in the producer or in a program that uses the library. */
int json_msgpack_write(struct text *out, struct json_span value)
{
    struct converter converter = {out, newlocale(LC_ALL_MASK, "C", (locale_t)0)};

    if (converter.c_locale == (locale_t)0)
        return EP_ENOMEM;
    int code = convert_value(&converter, value);
    freelocale(converter.c_locale);
    return code == 0 && out->failed ? EP_ENOMEM : code;
}
