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

struct inflate_state {
    z_stream stream;
    char *text;
    size_t bytes, room, max_bytes;
    struct error *error;
};

/* Grows the output buffer for an inflated Idefix frame if it is full, to at most max_bytes + 1 bytes:
 * once that last byte is used, the body is known to be too large. Returns 0 or EP_ENOMEM with a message.
 * Runs in the process that receives: a producer, a library caller, or the Idefix simulator. */
static int grow_output(struct inflate_state *state)
{
    size_t new_room = state->room < ROOM_FIRST ? ROOM_FIRST : state->room;
    size_t upper_limit = state->max_bytes < SIZE_MAX ? state->max_bytes + 1 : SIZE_MAX;

    if (state->bytes < state->room)
        return 0;
    new_room = new_room > upper_limit / 2 ? upper_limit : 2 * new_room;
    char *text = realloc(state->text, new_room);
    if (text == NULL)
        return base_error_set(state->error, EP_ENOMEM, "out of memory for an inflated frame");
    state->text = text;
    state->room = new_room;
    return 0;
}

/* Inflates one member of a gzip body, which may consist of several. The data is untrusted: if it is
 * damaged, cut off or larger than max_bytes, returns EP_EPROTO with a message. Returns 0 at the end of
 * the member. Runs in the process that receives: a producer, a library caller, or the Idefix simulator. */
static int inflate_member(struct inflate_state *state)
{
    z_stream *stream = &state->stream;

    for (;;) {
        int code = grow_output(state);
        if (code != 0)
            return code;
        size_t room = state->room - state->bytes;
        uInt offered_bytes = room > UINT_MAX ? UINT_MAX : (uInt)room;
        stream->next_out = (Bytef *)state->text + state->bytes;
        stream->avail_out = offered_bytes;
        int result = inflate(stream, Z_NO_FLUSH);
        state->bytes += offered_bytes - stream->avail_out;
        if (state->bytes > state->max_bytes)
            return base_error_set(state->error, EP_EPROTO, "it is larger than max_bytes (%zu) when inflated",
                                  state->max_bytes);
        if (result == Z_STREAM_END)
            return 0;
        if (result == Z_MEM_ERROR)
            return base_error_set(state->error, EP_ENOMEM, "out of memory for an inflated frame");
        if (result != Z_OK && result != Z_BUF_ERROR)
            return base_error_set(state->error, EP_EPROTO, "it does not inflate: %s",
                                  stream->msg != NULL ? stream->msg : "not gzip data");
        if (stream->avail_in == 0 && stream->avail_out > 0)
            return base_error_set(state->error, EP_EPROTO, "it does not inflate: the gzip data is cut off");
    }
}

/* Inflates all members of a gzip body; the format allows several in a row. Other bytes after a member
 * are an error. Returns 0 or an error code with a message. Runs in the process that receives: a
 * producer, a library caller, or the Idefix simulator. */
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
int idefix_gzip_inflate(const void *body, size_t bytes, size_t max_bytes, char **out, size_t *out_bytes,
                        struct error *error)
{
    struct inflate_state state = {.max_bytes = max_bytes, .error = error};

    if (bytes > UINT_MAX)
        return base_error_set(error, EP_EPROTO, "a gzip body of %zu bytes is too large", bytes);
    if (inflateInit2(&state.stream, WINDOW_GZIP) != Z_OK)
        return base_error_set(error, EP_ENOMEM, "out of memory for a gzip body");
    state.stream.next_in = (z_const Bytef *)body;
    state.stream.avail_in = (uInt)bytes;
    int code = inflate_members(&state);
    inflateEnd(&state.stream);
    if (code != 0) {
        free(state.text);
        return code;
    }
    *out = state.text;
    *out_bytes = state.bytes;
    return 0;
}

/* Compresses the body of an Idefix frame before it is sent. Returns 0 or EP_ENOMEM. *out, which the
 * caller frees, stays NULL if the result would not be smaller: the frame is then sent as it is. Runs in
 * the process that sends: a producer, a library caller, or the Idefix simulator. */
int idefix_gzip_deflate(const void *body, size_t bytes, char **out, size_t *out_bytes)
{
    z_stream stream = {.next_in = (z_const Bytef *)body, .avail_in = (uInt)bytes};

    *out = NULL;
    *out_bytes = 0;
    if (bytes < 2 || bytes > UINT_MAX)
        return 0;
    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, WINDOW_GZIP, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return EP_ENOMEM;
    char *compressed = malloc(bytes - 1);
    if (compressed == NULL) {
        deflateEnd(&stream);
        return EP_ENOMEM;
    }
    stream.next_out = (Bytef *)compressed;
    stream.avail_out = (uInt)(bytes - 1);
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
