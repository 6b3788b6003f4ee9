/* SPDX-License-Identifier: MIT */
/*
 * One member of a group commit as bytes: its head, each answer with the lengths of its texts, then the
 * texts, each terminated. Runs in workers, which are forks of one program: structs are copied as they are,
 * and only their pointers are set again.
 */
#include "src/process/group_codec.h"

#include <string.h>

#define TEXTS 4
#define NO_TEXT SIZE_MAX

struct encoded_member {
    int64_t source, stage;
    int32_t pid;
    uint32_t count;
};

struct encoded_answer {
    struct store_answer answer; /* its pointers mean nothing */
    size_t bytes[TEXTS];        /* of done, context, data, error */
};

static size_t measure_text(const char *text)
{
    return text != NULL ? strlen(text) : NO_TEXT;
}

/* Fills in the fixed part of an encoded answer: the answer and the lengths of its texts, which it returns
 * in `texts`. A worker runs it when it puts its answers into a commit request for the leader of a group
 * commit. */
static void fill_encoded_answer(const struct store_answer *answer, struct encoded_answer *encoded,
                                const char *texts[TEXTS])
{
    encoded->answer = *answer; /* as a whole: its padding is the answer's, not what stood here */
    encoded->bytes[0] = measure_text(answer->done);
    encoded->bytes[1] = answer->context != NULL ? answer->context_bytes : NO_TEXT;
    encoded->bytes[2] = answer->data != NULL ? answer->data_bytes : NO_TEXT;
    encoded->bytes[3] = measure_text(answer->error);
    texts[0] = answer->done;
    texts[1] = answer->context;
    texts[2] = answer->data;
    texts[3] = answer->error;
}

/* Writes a worker's answers as bytes into its commit request in shared memory, where the leader of a group
 * commit reads them. Returns their number, 0 = they do not fit. The worker that waits for the leader calls
 * it. */
size_t process_group_codec_encode(const struct store_group_member *member, char *to, size_t room)
{
    const struct encoded_member head = {member->source, member->stage, member->pid, (uint32_t)member->count};
    size_t used = sizeof head + member->count * sizeof(struct encoded_answer);
    if (used > room)
        return 0;
    memcpy(to, &head, sizeof head);
    for (size_t i = 0; i < member->count; i++) {
        struct encoded_answer encoded;
        const char *texts[TEXTS];
        fill_encoded_answer(&member->answers[i], &encoded, texts);
        memcpy(to + sizeof head + i * sizeof encoded, &encoded, sizeof encoded);
        for (size_t text = 0; text < TEXTS; text++) {
            if (encoded.bytes[text] == NO_TEXT)
                continue;
            if (encoded.bytes[text] >= room - used)
                return 0;
            memcpy(to + used, texts[text], encoded.bytes[text]);
            used += encoded.bytes[text];
            to[used++] = '\0';
        }
    }
    return used;
}

/* Returns a text of an encoded answer, or NULL where there was none; *good becomes false if it goes beyond
 * the bytes. The leader of a group commit (a worker) runs it: the bytes of a crashed worker may be
 * malformed. */
static const char *decode_text(const char *bytes, size_t count, size_t *used, size_t text, bool *good)
{
    if (text == NO_TEXT || !*good)
        return NULL;
    const char *begin = bytes + *used;
    *good = *used < count && text < count - *used && begin[text] == '\0';
    *used += *good ? text + 1 : 0;
    return begin;
}

/* Reads the answers of another worker from its commit request; the texts stay in the bytes. False:
 * malformed. The worker that leads a group commit calls it for each request that it takes. */
bool process_group_codec_decode(char *bytes, size_t count, struct store_group_member *member,
                                struct store_answer *answers, size_t room)
{
    struct encoded_member head;
    if (count < sizeof head)
        return false;
    memcpy(&head, bytes, sizeof head);
    if (head.count == 0 || head.count > room ||
        head.count > (count - sizeof head) / sizeof(struct encoded_answer))
        return false;
    size_t used = sizeof head + head.count * sizeof(struct encoded_answer);
    bool good = true;
    for (size_t i = 0; i < head.count; i++) {
        struct encoded_answer encoded;
        memcpy(&encoded, bytes + sizeof head + i * sizeof encoded, sizeof encoded);
        answers[i] = encoded.answer;
        answers[i].done = decode_text(bytes, count, &used, encoded.bytes[0], &good);
        answers[i].context = decode_text(bytes, count, &used, encoded.bytes[1], &good);
        answers[i].data = decode_text(bytes, count, &used, encoded.bytes[2], &good);
        answers[i].error = decode_text(bytes, count, &used, encoded.bytes[3], &good);
    }
    *member = (struct store_group_member){
        .source = head.source, .stage = head.stage, .pid = head.pid, .answers = answers, .count = head.count};
    return good;
}
