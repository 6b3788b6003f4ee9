/* SPDX-License-Identifier: MIT */
/*
 * Converts MessagePack to JSON text. Events that Idefix sends and databases that `eventpipe import`
 * reads go through it. Pure except for memory: any process, any thread.
 *
 * Invariants
 *  1. json_valid accepts everything it writes. Integers keep all their bits.
 *  2. Every byte is visited once: writing a value also finds its end. (Looking for the end of each value
 *     first would visit the innermost of 200 levels 200 times.)
 *  3. The recursion ends at JSON_DEPTH_MAX.
 *  4. A type that JSON lacks is named in the key, as Idefix does, so that json_msgpack_write can restore
 *     it.
 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/base/utf8.h"
#include "src/json/msgpack.h"
#include "src/json/msgpack_head.h"

#define SECONDS_FIRST (-62167219200LL) /* 0000-01-01T00:00:00Z */
#define SECONDS_LAST 253402300799LL    /* 9999-12-31T23:59:59Z */
#define NANOSECONDS 1000000000U

struct converter {
    struct msgpack rest; /* not yet written */
    const char *start;
    struct text *out;
    struct error *error;
};

static int write_value(struct converter *converter, int depth);

/* Returns how many bytes of the MessagePack input are already converted to JSON. Error messages give it as
 * the place of the error. */
static size_t get_byte_offset(const struct converter *converter)
{
    return (size_t)(converter->rest.at - converter->start);
}

/* Moves past a MessagePack value after it was converted to JSON. For an array or map it moves past the head
 * only, and the children are converted next. */
static void skip_value(struct converter *converter, const struct msgpack_head *head)
{
    converter->rest.at += head->bytes;
    converter->rest.bytes -= head->bytes;
}

/* Decodes the head (kind, length) of the next MessagePack value without moving past it. Returns 0, or
 * EP_EPROTO with a message if the input ends within the value. Each step of the conversion to JSON begins
 * with it. */
static int peek_head(const struct converter *converter, struct msgpack_head *head)
{
    if (json_msgpack_head_read(converter->rest, head))
        return 0;
    return base_error_set(converter->error, EP_EPROTO, "MessagePack ends within the value at byte %zu",
                          get_byte_offset(converter));
}

/* Appends a MessagePack integer to the JSON text with all its digits, so that 64-bit IDs of events stay
 * exact. */
static void write_integer(struct converter *converter, const struct msgpack_head *head)
{
    bool is_negative;
    uint64_t number = json_msgpack_head_read_integer(head, &is_negative);

    if (is_negative)
        json_write_int(converter->out, (int64_t)number);
    else
        json_write_uint(converter->out, number);
}

/* Appends the digits that snprintf made of a MessagePack float to the JSON text: with '.' instead of the
 * locale's decimal point, and with ".0" after a whole number, so that it reads back as a float. */
static void write_float_digits(struct text *out, const char *digits)
{
    size_t plain_bytes = strspn(digits, "-0123456789");
    bool is_whole = digits[plain_bytes] == '\0';

    base_text_append_bytes(out, digits, plain_bytes);
    digits += plain_bytes;
    if (is_whole) {
        base_text_append(out, ".0");
        return;
    }
    size_t point_bytes = strcspn(digits, "0123456789eE");
    if (point_bytes > 0)
        base_text_append(out, ".");
    base_text_append(out, digits + point_bytes);
}

/* Appends a MessagePack float as the shortest JSON number that reads back the same, or as the string
 * "NaN", "Infinity" or "-Infinity". A float of 32 bits becomes the double with the same value, since
 * readers take JSON numbers for doubles. */
static void write_float(struct converter *converter, const struct msgpack_head *head)
{
    char digits[64];
    double number;
    uint64_t number_bits = json_msgpack_read_big_endian(head->content, head->content_bytes);

    if (head->content_bytes == sizeof(float)) {
        uint32_t float_bits = (uint32_t)number_bits;
        float float_number;
        memcpy(&float_number, &float_bits, sizeof float_number);
        number = float_number;
    } else {
        memcpy(&number, &number_bits, sizeof number);
    }
    if (!isfinite(number)) {
        base_text_append(converter->out, isnan(number) ? "\"NaN\""
                                         : number < 0  ? "\"-Infinity\""
                                                       : "\"Infinity\"");
        return;
    }
    /* 15 digits survive every round trip, so begin there; numbers below DBL_MIN may need fewer */
    for (int digit_count = fabs(number) < DBL_MIN ? 1 : DBL_DIG; digit_count <= DBL_DECIMAL_DIG;
         digit_count++) {
        snprintf(digits, sizeof digits, "%.*g", digit_count, number);
        if (strtod(digits, NULL) == number)
            break;
    }
    write_float_digits(converter->out, digits);
}

/* Appends a MessagePack timestamp as a JSON string in RFC 3339. Of 4 bytes it holds seconds; of 8, 30 bits
 * of nanoseconds above 34 of seconds; of 12, 4 bytes of nanoseconds before 8 of seconds. Returns 0, or
 * EP_EPROTO with a message. */
static int write_timestamp(struct converter *converter, const struct msgpack_head *head)
{
    uint64_t seconds, nanoseconds = 0;

    if (head->content_bytes == 4) {
        seconds = json_msgpack_read_big_endian(head->content, 4);
    } else if (head->content_bytes == 8) {
        uint64_t combined = json_msgpack_read_big_endian(head->content, 8);
        seconds = combined & 0x3FFFFFFFFU;
        nanoseconds = combined >> 34;
    } else if (head->content_bytes == 12) {
        nanoseconds = json_msgpack_read_big_endian(head->content, 4);
        seconds = json_msgpack_read_big_endian(head->content + 4, 8);
    } else {
        return base_error_set(converter->error, EP_EPROTO,
                              "the timestamp at byte %zu has a length of %zu, expected 4, 8 or 12",
                              get_byte_offset(converter), head->content_bytes);
    }
    time_t unix_time = (time_t)(int64_t)seconds;
    struct tm calendar_time;
    if (nanoseconds >= NANOSECONDS || unix_time < SECONDS_FIRST || unix_time > SECONDS_LAST ||
        gmtime_r(&unix_time, &calendar_time) == NULL)
        return base_error_set(converter->error, EP_EPROTO, "the timestamp at byte %zu is out of range",
                              get_byte_offset(converter));
    char text[128];
    int text_bytes = snprintf(text, sizeof text, "\"%04d-%02d-%02dT%02d:%02d:%02d",
                              calendar_time.tm_year + 1900, calendar_time.tm_mon + 1, calendar_time.tm_mday,
                              calendar_time.tm_hour, calendar_time.tm_min, calendar_time.tm_sec);
    if (nanoseconds > 0) {
        text_bytes += snprintf(text + text_bytes, sizeof text - (size_t)text_bytes, ".%09llu",
                               (unsigned long long)nanoseconds);
        while (text[text_bytes - 1] == '0')
            text_bytes--;
    }
    base_text_append_bytes(converter->out, text, (size_t)text_bytes);
    base_text_append(converter->out, "Z\"");
    return 0;
}

/* Appends a MessagePack extension to the JSON text. Only timestamps (type -1) have a form in JSON; any
 * other type and the unused byte 0xC1 make the whole event unreadable. Returns 0, or EP_EPROTO with a
 * message. */
static int write_extension(struct converter *converter, const struct msgpack_head *head)
{
    if (head->format == MSGPACK_UNUSED)
        return base_error_set(converter->error, EP_EPROTO,
                              "byte %zu is 0xC1, which means nothing in MessagePack",
                              get_byte_offset(converter));
    if (head->extension != -1)
        return base_error_set(converter->error, EP_EPROTO, "an extension of unknown type %d at byte %zu",
                              head->extension, get_byte_offset(converter));
    return write_timestamp(converter, head);
}

/* Appends a JSON key with a suffix inside the quotes ("" for none). The suffix, ":b64" for example, tells
 * the type that JSON lacks, so that the value can be converted back. */
static void write_key_text(struct text *out, const char *text, size_t text_bytes, const char *suffix)
{
    json_write_string(out, text, text_bytes);
    if (suffix[0] == '\0' || out->failed)
        return;
    out->text[--out->bytes] = '\0'; /* the closing quote */
    base_text_append(out, suffix);
    base_text_append(out, "\"");
}

/* Appends the key of a MessagePack map as a JSON key with the suffix. The key is text or an integer;
 * write_member has refused others. An integer is written in decimal, since JSON has only text as keys. */
static void write_key(struct converter *converter, const struct msgpack_head *key, const char *suffix)
{
    char digits[24];
    bool is_negative;

    if (key->kind == MSGPACK_TEXT) {
        write_key_text(converter->out, key->content, key->content_bytes, suffix);
        return;
    }
    uint64_t number = json_msgpack_head_read_integer(key, &is_negative);
    int digit_count = is_negative ? snprintf(digits, sizeof digits, "%lld", (long long)number)
                                  : snprintf(digits, sizeof digits, "%llu", (unsigned long long)number);
    write_key_text(converter->out, digits, (size_t)digit_count, suffix);
}

/* Appends one member of a MessagePack map to the JSON text. It looks at the value before it writes the
 * key, since bytes and invalid UTF-8 become base64 and their key gets a suffix. Returns 0, or EP_EPROTO
 * with a message. */
static int write_member(struct converter *converter, int depth)
{
    struct msgpack_head key, value;

    if (peek_head(converter, &key) != 0)
        return EP_EPROTO;
    if (key.kind != MSGPACK_TEXT && key.kind != MSGPACK_INTEGER)
        return base_error_set(converter->error, EP_EPROTO,
                              "the key at byte %zu is neither text nor an integer",
                              get_byte_offset(converter));
    skip_value(converter, &key);
    if (peek_head(converter, &value) != 0)
        return EP_EPROTO;
    bool is_text = value.kind == MSGPACK_TEXT;
    if (!(is_text || value.kind == MSGPACK_BYTES) ||
        (is_text && base_utf8_valid(value.content, value.content_bytes))) {
        write_key(converter, &key, "");
        base_text_append(converter->out, ":");
        return write_value(converter, depth);
    }
    write_key(converter, &key, is_text ? ":string:b64" : ":b64");
    base_text_append(converter->out, ":");
    json_write_base64(converter->out, value.content, value.content_bytes);
    skip_value(converter, &value);
    return 0;
}

/* Appends a MessagePack array or map with all its children to the JSON text. `depth` counts the containers
 * around it; deeper than JSON_DEPTH_MAX is refused, so that hostile input cannot exhaust the stack.
 * Returns 0, EP_ENOMEM, or EP_EPROTO with a message. */
static int write_container(struct converter *converter, const struct msgpack_head *head, int depth)
{
    bool is_map = head->kind == MSGPACK_MAP;
    uint64_t member_count = is_map ? head->child_count / 2 : head->child_count;

    if (depth == JSON_DEPTH_MAX)
        return base_error_set(converter->error, EP_EPROTO, "nested deeper than %d at byte %zu",
                              JSON_DEPTH_MAX, get_byte_offset(converter));
    skip_value(converter, head);
    base_text_append(converter->out, is_map ? "{" : "[");
    for (uint64_t i = 0; i < member_count; i++) {
        if (i > 0)
            base_text_append(converter->out, ",");
        int code = is_map ? write_member(converter, depth + 1) : write_value(converter, depth + 1);
        if (code != 0)
            return code;
    }
    base_text_append(converter->out, is_map ? "}" : "]");
    return converter->out->failed ? EP_ENOMEM : 0;
}

/* Appends the next MessagePack value of the input to the JSON text and moves past it. `depth` counts the
 * arrays and maps around it. Returns 0, EP_ENOMEM, or EP_EPROTO with a message. */
static int write_value(struct converter *converter, int depth)
{
    struct msgpack_head head;
    int code = 0;

    if (peek_head(converter, &head) != 0)
        return EP_EPROTO;
    switch (head.kind) {
    case MSGPACK_ARRAY:
    case MSGPACK_MAP:
        return write_container(converter, &head, depth);
    case MSGPACK_NIL:
        base_text_append(converter->out, "null");
        break;
    case MSGPACK_BOOL:
        base_text_append(converter->out, json_msgpack_bool(converter->rest) ? "true" : "false");
        break;
    case MSGPACK_INTEGER:
        write_integer(converter, &head);
        break;
    case MSGPACK_FLOAT:
        write_float(converter, &head);
        break;
    case MSGPACK_TEXT:
        json_write_string(converter->out, head.content, head.content_bytes);
        break;
    case MSGPACK_BYTES:
        json_write_base64(converter->out, head.content, head.content_bytes);
        break;
    case MSGPACK_EXTENSION:
        code = write_extension(converter, &head);
        break;
    }
    if (code == 0)
        skip_value(converter, &head);
    return code;
}

/* Converts one MessagePack value to JSON text and appends it to `out`. Returns 0, EP_ENOMEM, or EP_EPROTO
 * with a message if JSON cannot hold the value. The producer converts each MessagePack event from Idefix
 * with it, `eventpipe import` each row. */
int json_msgpack_convert_to_json(struct msgpack value, struct text *out, struct error *error)
{
    struct converter converter = {.rest = value, .start = value.at, .out = out, .error = error};
    int code = write_value(&converter, 0);

    if (code != 0)
        return code;
    return out->failed ? base_error_set(error, EP_ENOMEM, "out of memory") : 0;
}
