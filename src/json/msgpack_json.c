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

struct writer {
    struct msgpack rest; /* not yet written */
    const char *start;
    struct text *out;
    struct error *error;
};

static int write_value(struct writer *writer, int depth);

/* Returns how many bytes of the MessagePack input are already converted to JSON, for messages. */
static size_t byte_offset(const struct writer *writer)
{
    return (size_t)(writer->rest.at - writer->start);
}

/* Moves past the head of a value in the MessagePack input, after it was converted. The head of a text or
 * number includes its content. */
static void skip_head(struct writer *writer, const struct msgpack_head *head)
{
    writer->rest.at += head->bytes;
    writer->rest.bytes -= head->bytes;
}

/* Decodes the head of the next MessagePack value without removing it. Reports EP_EPROTO if the input ends
 * within it. Each step of the conversion to JSON begins with it, in any process. */
static int peek_head(const struct writer *writer, struct msgpack_head *head)
{
    if (json_msgpack_head_read(writer->rest, head))
        return 0;
    return base_error_set(writer->error, EP_EPROTO, "MessagePack ends within the value at byte %zu",
                          byte_offset(writer));
}

/* Writes a MessagePack integer as JSON with all its digits, so that 64-bit IDs of events stay exact. Runs in
 * any process. */
static void write_integer(struct writer *writer, const struct msgpack_head *head)
{
    bool negative;
    uint64_t number = json_msgpack_head_integer(head, &negative);

    if (negative)
        json_write_int(writer->out, (int64_t)number);
    else
        json_write_uint(writer->out, number);
}

/* Writes to JSON what printf made of a float: with '.' instead of the locale's decimal point, and with ".0"
 * after a whole number. So it reads back as a float. Runs in any process. */
static void write_float_digits(struct text *out, const char *digits)
{
    size_t plain = strspn(digits, "-0123456789");
    bool whole = digits[plain] == '\0';

    base_text_append_bytes(out, digits, plain);
    digits += plain;
    if (whole) {
        base_text_append(out, ".0");
        return;
    }
    size_t point = strcspn(digits, "0123456789eE");
    if (point > 0)
        base_text_append(out, ".");
    base_text_append(out, digits + point);
}

/* Writes a MessagePack float as the shortest JSON number that reads back the same. A float of 32 bits
 * becomes the double with the same value, since readers take JSON numbers for doubles. Runs in any
 * process. */
static void write_float(struct writer *writer, const struct msgpack_head *head)
{
    char digits[64];
    double number;
    uint64_t bits = json_msgpack_big_endian(head->content, head->content_bytes);

    if (head->content_bytes == sizeof(float)) {
        uint32_t short_bits = (uint32_t)bits;
        float short_number;
        memcpy(&short_number, &short_bits, sizeof short_number);
        number = short_number;
    } else {
        memcpy(&number, &bits, sizeof number);
    }
    if (!isfinite(number)) {
        base_text_append(writer->out, isnan(number) ? "\"NaN\""
                                      : number < 0  ? "\"-Infinity\""
                                                    : "\"Infinity\"");
        return;
    }
    /* 15 digits survive every round trip, so begin there; numbers below DBL_MIN may need fewer */
    for (int count = fabs(number) < DBL_MIN ? 1 : DBL_DIG; count <= DBL_DECIMAL_DIG; count++) {
        snprintf(digits, sizeof digits, "%.*g", count, number);
        if (strtod(digits, NULL) == number)
            break;
    }
    write_float_digits(writer->out, digits);
}

/* Writes a MessagePack timestamp (extension -1) as a JSON string in RFC 3339. It has seconds in 32 bits; or
 * 30 bits of nanoseconds above 34 of seconds; or 32 bits of nanoseconds, then 64 of seconds. Runs in any
 * process. */
static int write_timestamp(struct writer *writer, const struct msgpack_head *head)
{
    uint64_t seconds, nanoseconds = 0;

    if (head->content_bytes == 4) {
        seconds = json_msgpack_big_endian(head->content, 4);
    } else if (head->content_bytes == 8) {
        uint64_t both = json_msgpack_big_endian(head->content, 8);
        seconds = both & 0x3FFFFFFFFU;
        nanoseconds = both >> 34;
    } else if (head->content_bytes == 12) {
        nanoseconds = json_msgpack_big_endian(head->content, 4);
        seconds = json_msgpack_big_endian(head->content + 4, 8);
    } else {
        return base_error_set(writer->error, EP_EPROTO,
                              "a timestamp of %zu bytes at byte %zu, not of 4, 8 or 12", head->content_bytes,
                              byte_offset(writer));
    }
    time_t when = (time_t)(int64_t)seconds;
    struct tm parts;
    if (nanoseconds >= NANOSECONDS || when < SECONDS_FIRST || when > SECONDS_LAST ||
        gmtime_r(&when, &parts) == NULL)
        return base_error_set(writer->error, EP_EPROTO, "the timestamp at byte %zu is out of range",
                              byte_offset(writer));
    char text[128];
    int length = snprintf(text, sizeof text, "\"%04d-%02d-%02dT%02d:%02d:%02d", parts.tm_year + 1900,
                          parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
    if (nanoseconds > 0) {
        length +=
            snprintf(text + length, sizeof text - (size_t)length, ".%09llu", (unsigned long long)nanoseconds);
        while (text[length - 1] == '0')
            length--;
    }
    base_text_append_bytes(writer->out, text, (size_t)length);
    base_text_append(writer->out, "Z\"");
    return 0;
}

/* Writes a MessagePack extension as JSON. Only timestamps have a form in JSON here; any other type, and the
 * unused byte 0xC1, make the event unreadable (EP_EPROTO). Runs in any process. */
static int write_extension(struct writer *writer, const struct msgpack_head *head)
{
    if (head->format == MSGPACK_UNUSED)
        return base_error_set(writer->error, EP_EPROTO,
                              "byte %zu is 0xC1, which means nothing in MessagePack", byte_offset(writer));
    if (head->extension != -1)
        return base_error_set(writer->error, EP_EPROTO, "an extension of unknown type %d at byte %zu",
                              head->extension, byte_offset(writer));
    return write_timestamp(writer, head);
}

/* Writes a JSON key with the suffix (":b64" for example) inside the quotes. The suffix tells the type that
 * JSON lacks. Runs in any process. */
static void write_key_text(struct text *out, const char *text, size_t bytes, const char *suffix)
{
    json_write_string(out, text, bytes);
    if (suffix[0] == '\0' || out->failed)
        return;
    out->text[--out->bytes] = '\0'; /* the closing quote */
    base_text_append(out, suffix);
    base_text_append(out, "\"");
}

/* Writes the key of a MessagePack map as a JSON key: text, or an integer in decimal, since JSON has only
 * text as keys. Runs in any process. */
static void write_key(struct writer *writer, const struct msgpack_head *key, const char *suffix)
{
    char digits[24];
    bool negative;

    if (key->kind == MSGPACK_TEXT) {
        write_key_text(writer->out, key->content, key->content_bytes, suffix);
        return;
    }
    uint64_t number = json_msgpack_head_integer(key, &negative);
    int length = negative ? snprintf(digits, sizeof digits, "%lld", (long long)number)
                          : snprintf(digits, sizeof digits, "%llu", (unsigned long long)number);
    write_key_text(writer->out, digits, (size_t)length, suffix);
}

/* Writes one member of a MessagePack map as JSON. It looks at the value before it writes the key, since
 * bytes and invalid UTF-8 become base64 and their key gets a suffix. Runs in any process. */
static int write_member(struct writer *writer, int depth)
{
    struct msgpack_head key, value;

    if (peek_head(writer, &key) != 0)
        return EP_EPROTO;
    if (key.kind != MSGPACK_TEXT && key.kind != MSGPACK_INTEGER)
        return base_error_set(writer->error, EP_EPROTO, "the key at byte %zu is neither text nor an integer",
                              byte_offset(writer));
    skip_head(writer, &key);
    if (peek_head(writer, &value) != 0)
        return EP_EPROTO;
    bool text = value.kind == MSGPACK_TEXT;
    if (!(text || value.kind == MSGPACK_BYTES) ||
        (text && base_utf8_valid(value.content, value.content_bytes))) {
        write_key(writer, &key, "");
        base_text_append(writer->out, ":");
        return write_value(writer, depth);
    }
    write_key(writer, &key, text ? ":string:b64" : ":b64");
    base_text_append(writer->out, ":");
    json_write_base64(writer->out, value.content, value.content_bytes);
    skip_head(writer, &value);
    return 0;
}

/* Writes a MessagePack array or map as JSON with all its children. It recurses, and refuses input that is
 * nested deeper than JSON_DEPTH_MAX, so hostile input cannot exhaust the stack. Runs in any process. */
static int write_container(struct writer *writer, const struct msgpack_head *head, int depth)
{
    bool map = head->kind == MSGPACK_MAP;
    uint64_t count = map ? head->values / 2 : head->values;

    if (depth == JSON_DEPTH_MAX)
        return base_error_set(writer->error, EP_EPROTO, "nested deeper than %d at byte %zu", JSON_DEPTH_MAX,
                              byte_offset(writer));
    skip_head(writer, head);
    base_text_append(writer->out, map ? "{" : "[");
    for (uint64_t i = 0; i < count; i++) {
        if (i > 0)
            base_text_append(writer->out, ",");
        int code = map ? write_member(writer, depth + 1) : write_value(writer, depth + 1);
        if (code != 0)
            return code;
    }
    base_text_append(writer->out, map ? "}" : "]");
    return writer->out->failed ? EP_ENOMEM : 0;
}

/* Writes the next MessagePack value of the input as JSON, and removes it from the input. Returns 0 or a
 * negative code. Runs in any process. */
static int write_value(struct writer *writer, int depth)
{
    struct msgpack_head head;
    int code = 0;

    if (peek_head(writer, &head) != 0)
        return EP_EPROTO;
    switch (head.kind) {
    case MSGPACK_ARRAY:
    case MSGPACK_MAP:
        return write_container(writer, &head, depth);
    case MSGPACK_NIL:
        base_text_append(writer->out, "null");
        break;
    case MSGPACK_BOOL:
        base_text_append(writer->out, json_msgpack_bool(writer->rest) ? "true" : "false");
        break;
    case MSGPACK_INTEGER:
        write_integer(writer, &head);
        break;
    case MSGPACK_FLOAT:
        write_float(writer, &head);
        break;
    case MSGPACK_TEXT:
        json_write_string(writer->out, head.content, head.content_bytes);
        break;
    case MSGPACK_BYTES:
        json_write_base64(writer->out, head.content, head.content_bytes);
        break;
    case MSGPACK_EXTENSION:
        code = write_extension(writer, &head);
        break;
    }
    if (code == 0)
        skip_head(writer, &head);
    return code;
}

/* Converts one MessagePack value to JSON text and appends it to `out`. Returns EP_EPROTO with a message if
 * the value cannot be shown as JSON. The producer converts each MessagePack event from Idefix with it,
 * `eventpipe import` each row. */
int json_msgpack_json(struct msgpack value, struct text *out, struct error *error)
{
    struct writer writer = {.rest = value, .start = value.at, .out = out, .error = error};
    int code = write_value(&writer, 0);

    if (code != 0)
        return code;
    return out->failed ? base_error_set(error, EP_ENOMEM, "out of memory") : 0;
}
