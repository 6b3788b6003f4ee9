/* SPDX-License-Identifier: MIT */
/*
 * gzip in memory, by zlib. Pure except for memory: any process, any thread.
 *
 * Invariants
 *  1. Inflating: the buffer grows with the output, by doubling, up to max_bytes. A few KB can hold
 *     gigabytes.
 *  2. Members may follow each other, as the format allows, and their contents are joined. Anything else
 *     after a member is an error, and so is a body that ends early.
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

struct inflate_state {
    z_stream stream;
    char *text;
    size_t used_bytes, room_bytes, max_bytes;
    struct error *error;
};

/* Grows the output buffer for an inflated Idefix frame if it is full, to at most max_bytes + 1 bytes:
 * once that last byte is used, the body is known to be too large. Returns 0 or EP_ENOMEM with a message.
 * Runs in the process that receives: a producer, a library caller, or the Idefix simulator. */
static int grow_output(struct inflate_state *state)
{
    size_t new_room_bytes = state->room_bytes < ROOM_FIRST ? ROOM_FIRST : state->room_bytes;
    size_t upper_limit_bytes = state->max_bytes < SIZE_MAX ? state->max_bytes + 1 : SIZE_MAX;

    if (state->used_bytes < state->room_bytes)
        return 0;
    new_room_bytes = new_room_bytes > upper_limit_bytes / 2 ? upper_limit_bytes : 2 * new_room_bytes;
    char *larger_buffer = realloc(state->text, new_room_bytes);
    if (larger_buffer == NULL)
        return base_error_set(state->error, EP_ENOMEM, "out of memory for an inflated frame");
    state->text = larger_buffer;
    state->room_bytes = new_room_bytes;
    return 0;
}

/* Inflates one gzip member of a compressed Idefix frame, which may consist of several. The data is
 * untrusted: if it is damaged, cut off or larger than max_bytes, returns EP_EPROTO with a message.
 * Returns 0 at the end of the member. Runs in the process that receives: a producer, a library caller, or
 * the Idefix simulator. */
static int inflate_member(struct inflate_state *state)
{
    z_stream *stream = &state->stream;

    for (;;) {
        int code = grow_output(state);
        if (code != 0)
            return code;
        size_t free_bytes = state->room_bytes - state->used_bytes;
        uInt offered_bytes = free_bytes > UINT_MAX ? UINT_MAX : (uInt)free_bytes;
        stream->next_out = (Bytef *)state->text + state->used_bytes;
        stream->avail_out = offered_bytes;
        int zlib_result = inflate(stream, Z_NO_FLUSH);
        state->used_bytes += offered_bytes - stream->avail_out;
        if (state->used_bytes > state->max_bytes)
            return base_error_set(state->error, EP_EPROTO, "it is larger than max_bytes (%zu) when inflated",
                                  state->max_bytes);
        if (zlib_result == Z_STREAM_END)
            return 0;
        if (zlib_result == Z_MEM_ERROR)
            return base_error_set(state->error, EP_ENOMEM, "out of memory for an inflated frame");
        if (zlib_result != Z_OK && zlib_result != Z_BUF_ERROR)
            return base_error_set(state->error, EP_EPROTO, "it does not inflate: %s",
                                  stream->msg != NULL ? stream->msg : "not gzip data");
        if (stream->avail_in == 0 && stream->avail_out > 0)
            return base_error_set(state->error, EP_EPROTO, "it does not inflate: the gzip data is cut off");
    }
}

/* Inflates all gzip members of a compressed Idefix frame; the format allows several in a row. Other bytes
 * after a member are an error. Returns 0 or an error code with a message. Runs in the process that
 * receives: a producer, a library caller, or the Idefix simulator. */
static int inflate_members(struct inflate_state *state)
{
    for (;;) {
        int code = inflate_member(state);
        if (code != 0)
            return code;
        const z_stream *stream = &state->stream;
        if (stream->avail_in == 0)
            return 0;
        if (stream->next_in[0] != 0x1F || inflateReset(&state->stream) != Z_OK)
            return base_error_set(state->error, EP_EPROTO, "%u bytes follow the end of the gzip data",
                                  stream->avail_in);
    }
}

/* Inflates the gzip body of a received Idefix frame to at most max_bytes. Returns 0 and sets *out, which
 * the caller frees, or an error code with a message. Called for each compressed frame that an Idefix
 * client or the Idefix simulator receives. */
int idefix_gzip_inflate(const void *body, size_t body_bytes, size_t max_bytes, char **out, size_t *out_bytes,
                        struct error *error)
{
    struct inflate_state state = {.max_bytes = max_bytes, .error = error};

    if (body_bytes > UINT_MAX)
        return base_error_set(error, EP_EPROTO, "a gzip body of %zu bytes is too large", body_bytes);
    if (inflateInit2(&state.stream, WINDOW_GZIP) != Z_OK)
        return base_error_set(error, EP_ENOMEM, "out of memory for a gzip body");
    state.stream.next_in = (z_const Bytef *)body;
    state.stream.avail_in = (uInt)body_bytes;
    int code = inflate_members(&state);
    inflateEnd(&state.stream);
    if (code != 0) {
        free(state.text);
        return code;
    }
    *out = state.text;
    *out_bytes = state.used_bytes;
    return 0;
}

/* Compresses the body of an Idefix frame before it is sent. Returns 0 or EP_ENOMEM. *out, which the
 * caller frees, stays NULL if the result would not be smaller: the frame is then sent as it is. Runs in
 * the process that sends: a producer, a library caller, or the Idefix simulator. */
int idefix_gzip_deflate(const void *body, size_t body_bytes, char **out, size_t *out_bytes)
{
    z_stream stream = {.next_in = (z_const Bytef *)body, .avail_in = (uInt)body_bytes};

    *out = NULL;
    *out_bytes = 0;
    if (body_bytes < 2 || body_bytes > UINT_MAX)
        return 0;
    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, WINDOW_GZIP, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return EP_ENOMEM;
    char *compressed = malloc(body_bytes - 1);
    if (compressed == NULL) {
        deflateEnd(&stream);
        return EP_ENOMEM;
    }
    stream.next_out = (Bytef *)compressed;
    stream.avail_out = (uInt)(body_bytes - 1);
    bool is_smaller = deflate(&stream, Z_FINISH) == Z_STREAM_END;
    size_t compressed_bytes = stream.total_out;
    deflateEnd(&stream);
    if (!is_smaller) {
        free(compressed);
        return 0;
    }
    *out = compressed;
    *out_bytes = compressed_bytes;
    return 0;
}
