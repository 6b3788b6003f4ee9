/* SPDX-License-Identifier: MIT */
/*
 * One member of a group commit as bytes: its head, each answer with the lengths of its texts, then the
 * texts, each terminated. Runs in workers, which are forks of one program: structs are copied as they are,
 * and only their pointers are set again.
 */
#include "src/process/group_codec.h"

#include <string.h>

#define TEXTS_PER_ANSWER 4
#define NO_TEXT SIZE_MAX

struct encoded_member {
    int64_t source, stage;
    int32_t pid;
    uint32_t count;
};

struct encoded_answer {
    struct store_answer answer;     /* its pointers mean nothing */
    size_t bytes[TEXTS_PER_ANSWER]; /* of done, context, data, error */
};

static size_t measure_text_bytes(const char *text)
{
    return text != NULL ? strlen(text) : NO_TEXT;
}

/* Fills in the fixed part of an answer in a worker's commit request: the answer itself and the lengths of
 * its texts. Returns the texts in `texts`, in the order in which they follow. A worker runs it when it
 * leaves its answers to the leader of a group commit (a worker that commits for others, too). */
static void fill_encoded_answer(const struct store_answer *answer, struct encoded_answer *encoded,
                                const char *texts[TEXTS_PER_ANSWER])
{
    encoded->answer = *answer; /* as a whole: its padding is the answer's, not what stood here */
    encoded->bytes[0] = measure_text_bytes(answer->done);
    encoded->bytes[1] = answer->context != NULL ? answer->context_bytes : NO_TEXT;
    encoded->bytes[2] = answer->data != NULL ? answer->data_bytes : NO_TEXT;
    encoded->bytes[3] = measure_text_bytes(answer->error);
    texts[0] = answer->done;
    texts[1] = answer->context;
    texts[2] = answer->data;
    texts[3] = answer->error;
}

/* Writes a worker's answers as bytes into its commit request in shared memory. The leader of a group
 * commit (the worker that holds the write lock) reads and commits them. Returns how many bytes were
 * written, 0 if the answers do not fit. The worker that waits for the leader calls it. */
size_t process_group_codec_encode(const struct store_group_member *member, char *buffer, size_t buffer_bytes)
{
    const struct encoded_member member_head = {member->source, member->stage, member->pid,
                                               (uint32_t)member->count};
    size_t used_bytes = sizeof member_head + member->count * sizeof(struct encoded_answer);
    if (used_bytes > buffer_bytes)
        return 0;
    memcpy(buffer, &member_head, sizeof member_head);
    for (size_t i = 0; i < member->count; i++) {
        struct encoded_answer encoded;
        const char *texts[TEXTS_PER_ANSWER];
        fill_encoded_answer(&member->answers[i], &encoded, texts);
        memcpy(buffer + sizeof member_head + i * sizeof encoded, &encoded, sizeof encoded);
        for (size_t text_index = 0; text_index < TEXTS_PER_ANSWER; text_index++) {
            if (encoded.bytes[text_index] == NO_TEXT)
                continue;
            if (encoded.bytes[text_index] >= buffer_bytes - used_bytes)
                return 0;
            memcpy(buffer + used_bytes, texts[text_index], encoded.bytes[text_index]);
            used_bytes += encoded.bytes[text_index];
            buffer[used_bytes++] = '\0';
        }
    }
    return used_bytes;
}

/* Returns the next text of an answer in another worker's commit request and moves *used_bytes to the end
 * of it; NULL where there was none. Sets *is_valid to false if the text does not lie within the bytes: a
 * worker that crashed may have written half of them. The leader of a group commit (a worker) runs it. */
static const char *decode_text(const char *bytes, size_t byte_count, size_t *used_bytes, size_t text_bytes,
                               bool *is_valid)
{
    if (text_bytes == NO_TEXT || !*is_valid)
        return NULL;
    const char *text = bytes + *used_bytes;
    *is_valid = *used_bytes < byte_count && text_bytes < byte_count - *used_bytes && text[text_bytes] == '\0';
    *used_bytes += *is_valid ? text_bytes + 1 : 0;
    return text;
}

/* Reads another worker's answers from its commit request into `answers`, at most answers_max; their
 * texts stay in `bytes`. Returns false if the bytes are malformed. The worker that leads a group commit
 * calls it for each request that it takes. */
bool process_group_codec_decode(char *bytes, size_t byte_count, struct store_group_member *member,
                                struct store_answer *answers, size_t answers_max)
{
    struct encoded_member member_head;
    if (byte_count < sizeof member_head)
        return false;
    memcpy(&member_head, bytes, sizeof member_head);
    if (member_head.count == 0 || member_head.count > answers_max ||
        member_head.count > (byte_count - sizeof member_head) / sizeof(struct encoded_answer))
        return false;
    size_t used_bytes = sizeof member_head + member_head.count * sizeof(struct encoded_answer);
    bool is_valid = true;
    for (size_t i = 0; i < member_head.count; i++) {
        struct encoded_answer encoded;
        memcpy(&encoded, bytes + sizeof member_head + i * sizeof encoded, sizeof encoded);
        answers[i] = encoded.answer;
        answers[i].done = decode_text(bytes, byte_count, &used_bytes, encoded.bytes[0], &is_valid);
        answers[i].context = decode_text(bytes, byte_count, &used_bytes, encoded.bytes[1], &is_valid);
        answers[i].data = decode_text(bytes, byte_count, &used_bytes, encoded.bytes[2], &is_valid);
        answers[i].error = decode_text(bytes, byte_count, &used_bytes, encoded.bytes[3], &is_valid);
    }
    *member = (struct store_group_member){.source = member_head.source,
                                          .stage = member_head.stage,
                                          .pid = member_head.pid,
                                          .answers = answers,
                                          .count = member_head.count};
    return is_valid;
}
