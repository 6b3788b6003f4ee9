/* SPDX-License-Identifier: MIT */
/*
 * The events that go into a trial: lines of the user's sample, again and again, or generated ones, appended
 * to the file that stands for a source. Each line has a place of its own, by which its event is known for
 * ever: so what became of every single one can be told. Runs in `eventpipe chaos`; owns the feed's file.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/cli/chaos/chaos.h"

#define SAMPLE_BYTES_MAX (UINT64_C(64) << 20)
#define WINDOW_LEAST 64
#define WINDOW_MOST 20000

/* ---- the sample ---- */

static int read_whole(const char *path, char **bytes, size_t *length, struct error *error)
{
    struct stat about;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &about) != 0) {
        int code = error_set(error, CONTROL_USAGE, "%s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return code;
    }
    char *room = NULL;
    *length = 0;
    ssize_t got = 0;
    if (S_ISREG(about.st_mode) && about.st_size > 0 && (uint64_t)about.st_size <= SAMPLE_BYTES_MAX)
        room = malloc((size_t)about.st_size + 1);
    while (room != NULL && *length < (size_t)about.st_size &&
           (got = read(fd, room + *length, (size_t)about.st_size - *length)) > 0)
        *length += (size_t)got;
    close(fd);
    if (room == NULL || got < 0) {
        free(room);
        return error_set(error, CONTROL_USAGE,
                         "%s: expected a file of 1 byte to 64 MiB with one JSON value a line", path);
    }
    room[*length] = '\0';
    *bytes = room;
    return 0;
}

int chaos_sample_read(const char *path, struct chaos_sample *out, struct error *error)
{
    struct chaos_sample sample = {0};
    size_t length = 0, line = 0;
    int code = read_whole(path, &sample.bytes, &length, error);
    if (code != 0)
        return code;
    for (char *at = sample.bytes, *end = at + length; code == 0 && at < end; line++) {
        size_t bytes = strcspn(at, "\n");
        if (bytes < (size_t)(end - at) && at[bytes] == '\0')
            code = error_set(error, CONTROL_USAGE, "%s: line %zu is not JSON", path, line + 1);
        size_t text = bytes > 0 && at[bytes - 1] == '\r' ? bytes - 1 : bytes;
        if (code == 0 && strspn(at, " \t\r") < bytes) {
            struct json_span *lines = reallocarray(sample.lines, sample.count + 1, sizeof *lines);
            if (lines == NULL)
                code = error_set(error, CONTROL_NO, "out of memory");
            else if (!json_valid(at, text, NULL))
                code = error_set(error, CONTROL_USAGE, "%s: line %zu is not JSON", path, line + 1);
            if (lines != NULL)
                sample.lines = lines;
            if (code == 0 && lines != NULL)
                sample.lines[sample.count++] = (struct json_span){at, text};
        }
        at += bytes + 1;
    }
    if (code == 0 && sample.count == 0)
        code = error_set(error, CONTROL_USAGE, "%s: expected one JSON value a line, found none", path);
    if (code != 0)
        chaos_sample_free(&sample);
    else
        *out = sample;
    return code;
}

void chaos_sample_free(struct chaos_sample *sample)
{
    free(sample->bytes);
    free(sample->lines);
    *sample = (struct chaos_sample){0};
}

/* ---- the feed ---- */

int chaos_feed_open(struct chaos_feed *feed, struct error *error)
{
    struct stat about;
    feed->fd = open(feed->path, O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (feed->fd < 0 || fstat(feed->fd, &about) != 0)
        return error_set(error, EP_ESYSTEM, "%s: %s", feed->path, strerror(errno));
    feed->inode = about.st_ino;
    return EP_OK;
}

static void one_line(const struct chaos_feed *feed, struct json_out *out)
{
    if (feed->sample != NULL && feed->sample->count > 0) {
        const struct json_span *line = &feed->sample->lines[feed->count % feed->sample->count];
        json_out_raw(out, line->at, line->bytes);
        return;
    }
    char head[64];
    size_t used = (size_t)snprintf(head, sizeof head, "{\"n\":%" PRIu64 ",\"pad\":\"", feed->count + 1);
    json_out_raw(out, head, used);
    for (used += 2; used < feed->size_bytes; used++)
        json_out_raw(out, "x", 1);
    json_out_words(out, "\"}");
}

static int write_all(int fd, const char *text, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t written = write(fd, text + done, bytes - done);
        if (written < 0 && errno != EINTR)
            return -errno;
        done += written > 0 ? (size_t)written : 0;
    }
    return 0;
}

int chaos_feed_write(struct chaos_feed *feed, uint64_t events, struct error *error)
{
    struct json_out out = {0};
    uint64_t *offsets = reallocarray(feed->offsets, feed->count + events + 1, sizeof *offsets);
    if (offsets == NULL)
        return error_set(error, EP_ENOMEM, "out of memory");
    feed->offsets = offsets;
    for (uint64_t i = 0; i < events; i++, feed->count++) {
        feed->offsets[feed->count] = feed->bytes + out.bytes;
        one_line(feed, &out);
        json_out_words(&out, "\n");
    }
    int code = out.failed ? -ENOMEM : write_all(feed->fd, out.text, out.bytes);
    feed->bytes += out.bytes;
    json_out_free(&out);
    return code == 0 ? EP_OK : error_set(error, EP_ESYSTEM, "%s: %s", feed->path, strerror(-code));
}

void chaos_feed_close(struct chaos_feed *feed)
{
    if (feed->fd > 0)
        close(feed->fd);
    free(feed->offsets);
    feed->fd = -1;
    feed->offsets = NULL;
}

uint64_t chaos_feed_find(const struct chaos_feed *feed, const char *uid)
{
    uint64_t inode, generation, offset;
    if (sscanf(uid, "%" SCNu64 "-%" SCNu64 "-%" SCNu64 "-", &inode, &generation, &offset) != 3 ||
        inode != feed->inode)
        return UINT64_MAX;
    uint64_t from = 0, to = feed->count;
    while (from < to) {
        uint64_t middle = from + (to - from) / 2;
        if (feed->offsets[middle] < offset)
            from = middle + 1;
        else
            to = middle;
    }
    return from < feed->count && feed->offsets[from] == offset ? from : UINT64_MAX;
}

uint64_t chaos_window(uint64_t before, uint64_t ended_since)
{
    uint64_t window = before < WINDOW_LEAST ? WINDOW_LEAST : before;
    if (ended_since * 2 > window)
        window *= 2;
    return window > WINDOW_MOST ? WINDOW_MOST : window;
}
