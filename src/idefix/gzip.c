/* SPDX-License-Identifier: MIT */
/*
 * gzip in memory, by zlib. Pure except for memory: any process, any thread.
 *
 * Invariants
 *  1. Inflating: the buffer grows with the output, by doubling, up to max_bytes. A few KB can hold
 *     gigabytes.
 *  2. Members may follow each other, as the format allows, and their contents are joined. Anything else
 *     behind a member is an error, and so is a body that ends early.
 *  3. Deflating: the output buffer is one byte smaller than the body, so zlib itself finds out whether
 *     compressing pays.
 */
#include "src/idefix/gzip.h"

#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <zlib.h>

#define WINDOW_GZIP (15 + 16) /* zlib: gzip only */
#define ROOM_FIRST 4096

struct inflating {
    z_stream stream;
    char *text;
    size_t bytes, room, max_bytes;
    struct error *error;
};

/* Gzip: grows the output buffer of an inflated Idefix frame, to at most max_bytes + 1: if that last byte
 * is used, the body is too large. Any process. */
static int grow_output(struct inflating *inflating)
{
    size_t room = inflating->room < ROOM_FIRST ? ROOM_FIRST : inflating->room;
    size_t most = inflating->max_bytes < SIZE_MAX ? inflating->max_bytes + 1 : SIZE_MAX;

    if (inflating->bytes < inflating->room)
        return 0;
    room = room > most / 2 ? most : 2 * room;
    char *text = realloc(inflating->text, room);
    if (text == NULL)
        return base_error_set(inflating->error, EP_ENOMEM, "out of memory for an inflated frame");
    inflating->text = text;
    inflating->room = room;
    return 0;
}

/* Gzip: inflates one member of a compressed Idefix frame. The data is untrusted: it may be damaged, cut
 * off, or grow to gigabytes, so each of these is an error. Any process. */
static int inflate_member(struct inflating *inflating)
{
    z_stream *stream = &inflating->stream;

    for (;;) {
        int code = grow_output(inflating);
        if (code != 0)
            return code;
        size_t room = inflating->room - inflating->bytes;
        uInt before = room > UINT_MAX ? UINT_MAX : (uInt)room;
        stream->next_out = (Bytef *)inflating->text + inflating->bytes;
        stream->avail_out = before;
        int result = inflate(stream, Z_NO_FLUSH);
        inflating->bytes += before - stream->avail_out;
        if (inflating->bytes > inflating->max_bytes)
            return base_error_set(inflating->error, EP_EPROTO, "larger than %zu bytes when inflated",
                                  inflating->max_bytes);
        if (result == Z_STREAM_END)
            return 0;
        if (result == Z_MEM_ERROR)
            return base_error_set(inflating->error, EP_ENOMEM, "out of memory for an inflated frame");
        if (result != Z_OK && result != Z_BUF_ERROR)
            return base_error_set(inflating->error, EP_EPROTO, "does not inflate: %s",
                                  stream->msg != NULL ? stream->msg : "not gzip data");
        if (stream->avail_in == 0 && stream->avail_out > 0)
            return base_error_set(inflating->error, EP_EPROTO, "does not inflate: the gzip data is cut off");
    }
}

/* Gzip: inflates all members of a compressed Idefix frame, as the format allows several in a row. Other
 * bytes after a member are an error. Any process. */
static int inflate_members(struct inflating *inflating)
{
    for (;;) {
        int code = inflate_member(inflating);
        if (code != 0)
            return code;
        const z_stream *stream = &inflating->stream;
        if (stream->avail_in == 0)
            return 0;
        if (stream->next_in[0] != 0x1F || inflateReset(&inflating->stream) != Z_OK)
            return base_error_set(inflating->error, EP_EPROTO, "%u bytes after the end of the gzip data",
                                  stream->avail_in);
    }
}

/* Gzip: inflates the body of a received Idefix frame to at most max_bytes; the caller frees *out. Any
 * process that receives frames: the Idefix client in a producer or in a program that uses the library, and
 * the Idefix simulator. */
int idefix_gzip_inflate(const void *body, size_t bytes, size_t max_bytes, char **out, size_t *out_bytes,
                        struct error *error)
{
    struct inflating inflating = {.max_bytes = max_bytes, .error = error};

    if (bytes > UINT_MAX)
        return base_error_set(error, EP_EPROTO, "a gzip body of %zu bytes is too large", bytes);
    if (inflateInit2(&inflating.stream, WINDOW_GZIP) != Z_OK)
        return base_error_set(error, EP_ENOMEM, "out of memory for inflating");
    inflating.stream.next_in = (z_const Bytef *)body;
    inflating.stream.avail_in = (uInt)bytes;
    int code = inflate_members(&inflating);
    inflateEnd(&inflating.stream);
    if (code != 0) {
        free(inflating.text);
        return code;
    }
    *out = inflating.text;
    *out_bytes = inflating.bytes;
    return 0;
}

/* Gzip: compresses the body of an Idefix frame before it is sent; the caller frees *out. *out stays NULL
 * if the result would not be smaller. Any process that sends frames: the Idefix client in a producer or in
 * a program that uses the library, and the Idefix simulator. */
int idefix_gzip_deflate(const void *body, size_t bytes, char **out, size_t *out_bytes)
{
    z_stream stream = {.next_in = (z_const Bytef *)body, .avail_in = (uInt)bytes};

    *out = NULL;
    *out_bytes = 0;
    if (bytes < 2 || bytes > UINT_MAX)
        return 0;
    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, WINDOW_GZIP, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return EP_ENOMEM;
    char *text = malloc(bytes - 1);
    if (text == NULL) {
        deflateEnd(&stream);
        return EP_ENOMEM;
    }
    stream.next_out = (Bytef *)text;
    stream.avail_out = (uInt)(bytes - 1);
    bool smaller = deflate(&stream, Z_FINISH) == Z_STREAM_END;
    size_t made = stream.total_out;
    deflateEnd(&stream);
    if (!smaller) {
        free(text);
        return 0;
    }
    *out = text;
    *out_bytes = made;
    return 0;
}
