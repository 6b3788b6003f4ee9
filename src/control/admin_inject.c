/* SPDX-License-Identifier: MIT */
/*
 * inject: reads an operator's events as lines from the client's connection and stores them in pages,
 * each in one transaction. Runs in the keeper. A line that is not an event is reported with its number
 * and skipped. If the client falls silent or the store fails, the pages stored so far stay, and the
 * answer says how many events they had.
 *
 * The keeper has other work, so it gives up a client that sends nothing for READ_MS. That is why the
 * command line sends only events that it has read already, in requests of a bounded size.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "shm/slot.h"
#include "src/base/hash.h"
#include "src/control/admin.h"
#include "src/source/source.h"

#define READ_MS 5000
#define PAGE_EVENTS 100
#define PAGE_BYTES (8u << 20)
#define LINE_BYTES (64u << 20)
#define UID_BYTES 1024

struct injection {
    struct admin_request *request;
    int64_t source;
    struct page page;
    struct answer answer;
    struct text received; /* not a whole line yet */
    bool skipping;        /* a line longer than LINE_BYTES: its rest is dropped */
    uint64_t line, stored, duplicates, invalid;
    int code; /* the first error of the store, or EP_ENOMEM; then nothing more is stored */
};

/* `eventpipe inject`, in the keeper: answers with a data line that a line is not an event and why, and
 * counts it. The other lines are still stored. */
static void refuse_line(struct injection *injection, const char *message)
{
    struct text *out = &injection->answer.lines;
    injection->invalid++;
    base_text_append(out, "{\"line\":");
    json_write_uint(out, injection->line);
    control_admin_member(out, "error", message);
    base_text_append(out, "}");
    control_answer_line(&injection->answer);
}

/* `eventpipe inject`, in the keeper: stores the events collected so far in one transaction and counts
 * duplicates. With --dry-run it only counts. After an error of the store nothing more is stored. */
static void store_page(struct injection *injection)
{
    struct page *page = &injection->page;
    if (page->count == 0 || injection->code != EP_OK)
        return;
    struct store_ingested ingested = {.stored = page->count};
    if (!injection->request->dry_run) {
        struct store_page events = {.events = page->events,
                                    .count = page->count,
                                    .injected = true,
                                    .now_ms = shm_realtime_ms()};
        injection->code =
            store_ingest(injection->request->admin->store, injection->source, &events, &ingested);
    }
    if (injection->code == EP_OK) {
        injection->stored += ingested.stored;
        injection->duplicates += ingested.duplicates;
        if (ingested.stored > 0 && !injection->request->dry_run)
            control_admin_mark_changed(injection->request, injection->request->select.source);
    }
    source_page_clear(page);
}

/* `eventpipe inject`, in the keeper: returns the text of an event's member that is a string or a number,
 * which the caller frees. Returns NULL if it is missing, null, or of another kind, which also sets *wrong. */
static char *copy_member_text(struct json_span event, const char *pointer, bool *wrong)
{
    struct json_span value;
    if (!json_find(event, pointer, &value) || json_kind(value) == 'n')
        return NULL;
    if (json_kind(value) != '"' && json_kind(value) != '0') {
        *wrong = true;
        return NULL;
    }
    return json_text(value);
}

/* `eventpipe inject`, in the keeper: adds an event to the page that is stored next, with the bytes of its
 * line. An event without a UID gets a hash of its line as UID, so that injecting the same file twice finds
 * duplicates. */
static int add_event_to_page(struct injection *injection, struct json_span event, const char *uid,
                             const char *address, const char *type)
{
    if (uid != NULL)
        return source_page_add(&injection->page, uid, address, type, event.at, event.bytes);
    char hash[HASH_UID_DIGITS + 1];
    base_hash_hex(event.at, event.bytes, hash, HASH_UID_DIGITS);
    const char *rest = event.at + 1, *end = event.at + event.bytes;
    while (rest < end && strchr(" \t\r\n", *rest) != NULL)
        rest++;
    struct text out = {0};
    base_text_append(&out, "{\"uid\":\"");
    base_text_append(&out, hash);
    base_text_append(&out, *rest == '}' ? "\"" : "\",");
    base_text_append_bytes(&out, rest, (size_t)(end - rest));
    int code =
        out.failed ? EP_ENOMEM : source_page_add(&injection->page, hash, address, type, out.text, out.bytes);
    base_text_free(&out);
    return code;
}

/* `eventpipe inject`, in the keeper: checks uid, address and type of one event, then adds it to the page
 * to be stored, or answers that the line is refused. */
static void check_and_add_event(struct injection *injection, struct json_span event)
{
    bool uid_wrong = false, other_wrong = false;
    struct json_span value;
    bool null_uid = json_find(event, "/uid", &value) && json_kind(value) == 'n';
    char *uid = copy_member_text(event, "/uid", &uid_wrong);
    char *address = copy_member_text(event, "/address", &other_wrong);
    char *type = copy_member_text(event, "/type", &other_wrong);
    if (uid_wrong || null_uid || (uid != NULL && (uid[0] == '\0' || strlen(uid) > UID_BYTES)))
        refuse_line(injection, "\"uid\" must be a string of 1 to 1024 bytes; without it, the event gets one");
    else if (other_wrong)
        refuse_line(injection, "\"address\" and \"type\" must be strings");
    else
        injection->code = add_event_to_page(injection, event, uid, address, type);
    free(uid);
    free(address);
    free(type);
}

/* `eventpipe inject`, in the keeper: reads one line of the client as an event. Empty lines are skipped,
 * lines that are not a JSON object are refused. Stores the page when it is full. */
static void read_event_line(struct injection *injection, const char *text, size_t bytes)
{
    while (bytes > 0 && strchr(" \t\r", text[bytes - 1]) != NULL && text[bytes - 1] != '\0')
        bytes--;
    while (bytes > 0 && (*text == ' ' || *text == '\t')) {
        text++;
        bytes--;
    }
    size_t at;
    char message[128];
    if (bytes == 0)
        return;
    if (!json_valid(text, bytes, &at)) {
        snprintf(message, sizeof message, "not JSON: error at byte %zu", at + 1);
        refuse_line(injection, message);
    } else if (*text != '{') {
        refuse_line(injection, "expected a JSON object, such as {\"uid\":\"a-1\",\"payload\":{}}");
    } else {
        check_and_add_event(injection, (struct json_span){text, bytes});
    }
    if (injection->page.count >= PAGE_EVENTS || injection->page.data_bytes >= PAGE_BYTES)
        store_page(injection);
}

/* `eventpipe inject`, in the keeper: handles a line that has arrived whole and counts it. The rest of a
 * line over 64 MiB was dropped, so such a line is refused here. */
static void finish_line(struct injection *injection, const char *text, size_t bytes)
{
    if (injection->skipping)
        refuse_line(injection, "the line is longer than 64 MiB");
    else
        read_event_line(injection, text, bytes);
    injection->skipping = false;
    injection->line++;
}

/* `eventpipe inject`, in the keeper: handles every whole line received so far and keeps the unfinished
 * rest. A rest over 64 MiB is dropped, which bounds the keeper's memory. */
static void read_received_lines(struct injection *injection)
{
    struct text *received = &injection->received;
    size_t done = 0;
    while (injection->code == EP_OK && !injection->answer.lost) {
        char *feed = memchr(received->text + done, '\n', received->bytes - done);
        if (feed == NULL)
            break;
        finish_line(injection, received->text + done, (size_t)(feed - received->text) - done);
        done = (size_t)(feed - received->text) + 1;
    }
    memmove(received->text, received->text + done, received->bytes - done);
    received->bytes -= done;
    if (received->bytes > LINE_BYTES) {
        injection->skipping = true;
        base_text_reset(received);
    }
}

/* `eventpipe inject`, in the keeper: receives more of the client's lines. Returns 1 if some arrived, 0 if
 * the client has sent everything, EP_ESYSTEM if it is gone or silent for 5 s: the keeper cannot wait
 * longer for a client. EP_ENOMEM. */
static int receive_from_client(struct injection *injection)
{
    char buffer[65536];
    for (;;) {
        ssize_t got = recv(injection->request->client, buffer, sizeof buffer, MSG_DONTWAIT);
        if (got > 0) {
            base_text_append_bytes(&injection->received, buffer, (size_t)got);
            return injection->received.failed ? EP_ENOMEM : 1;
        }
        if (got == 0)
            return 0;
        if (errno == EINTR)
            continue;
        struct pollfd waiting = {.fd = injection->request->client, .events = POLLIN};
        if (errno != EAGAIN || (poll(&waiting, 1, READ_MS) <= 0 && errno != EINTR))
            return EP_ESYSTEM;
    }
}

/* `eventpipe inject`, in the keeper: sends the numbers of injected, duplicate and invalid events, and then
 * the last line of the answer, with the error if one ended the command early. */
static void end_inject_answer(struct injection *injection, int read_code)
{
    struct text *out = &injection->answer.lines;
    const char *would = injection->request->dry_run ? "would be " : "";
    base_text_append(out, "{\"injected\":");
    json_write_uint(out, injection->stored);
    base_text_append(out, ",\"duplicates\":");
    json_write_uint(out, injection->duplicates);
    base_text_append(out, ",\"invalid\":");
    json_write_uint(out, injection->invalid);
    base_text_append(out, ",\"lines\":");
    json_write_uint(out, injection->line - injection->request->first_line);
    base_text_append(out, "}");
    control_answer_line(&injection->answer);
    control_answer_flush(&injection->answer);
    char done[256];
    snprintf(done, sizeof done, "%" PRIu64 " %sinjected, %" PRIu64 " duplicate%s, %" PRIu64 " invalid",
             injection->stored, would, injection->duplicates, injection->duplicates == 1 ? "" : "s",
             injection->invalid);
    if (injection->code == EP_ENOMEM || read_code == EP_ENOMEM)
        control_end(injection->request->client, CONTROL_NO, "out of memory; %s", done);
    else if (injection->code != EP_OK)
        control_admin_store_failed(injection->request, "cannot store more events", done);
    else if (read_code != 0)
        control_end(injection->request->client, CONTROL_NO, "received no more events for %d s; %s",
                    READ_MS / 1000, done);
    else
        control_end(injection->request->client, injection->invalid > 0 ? CONTROL_NO : CONTROL_DONE, "%s",
                    done);
}

/* Serves `eventpipe inject` in the keeper: reads events as lines from the client's connection and stores
 * them page by page in the given source. Pages stored before an error stay. */
void control_admin_inject(struct admin_request *request)
{
    struct error error;
    struct injection injection = {.request = request, .line = request->first_line};
    int code = control_admin_source_id(request, request->select.source, &injection.source, &error);
    if (code != EP_OK) {
        control_end(request->client, code == EP_ENOENT ? CONTROL_USAGE : CONTROL_NO, "%s", error.message);
        return;
    }
    source_page_open(&injection.page);
    control_answer_begin(&injection.answer, request->client);
    int got = 1;
    while (got == 1 && injection.code == EP_OK && !injection.answer.lost) {
        got = receive_from_client(&injection);
        if (got == 1)
            read_received_lines(&injection);
    }
    if (got == 0 && injection.code == EP_OK &&
        (injection.received.bytes > 0 || injection.skipping)) /* the last line has no line feed */
        finish_line(&injection, injection.received.text, injection.received.bytes);
    store_page(&injection);
    end_inject_answer(&injection, got == 1 ? 0 : got);
    source_page_clear(&injection.page);
    base_text_free(&injection.received);
    control_answer_close(&injection.answer);
}
