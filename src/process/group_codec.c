/* SPDX-License-Identifier: MIT */
/*
 * A group as bytes: its head, each answer with the lengths of its texts, then the texts, each terminated. Run
 * by workers, which are forks of one program: structs are copied as they are, only their pointers are made
 * anew.
 */
#include "src/process/group_codec.h"

#include <string.h>

#define TEXTS 4
#define NO_TEXT SIZE_MAX

struct packed_group {
    int64_t source, stage;
    int32_t pid;
    uint32_t count;
};

struct packed_answer {
    struct store_answer answer; /* its pointers mean nothing */
    size_t bytes[TEXTS];        /* of done, context, data, words */
};

static size_t text_bytes(const char *text)
{
    return text != NULL ? strlen(text) : NO_TEXT;
}

static void measure(const struct store_answer *answer, struct packed_answer *packed, const char *texts[TEXTS])
{
    packed->answer = *answer; /* as a whole: its padding is the answer's, not what stood here */
    packed->bytes[0] = text_bytes(answer->done);
    packed->bytes[1] = answer->context != NULL ? answer->context_bytes : NO_TEXT;
    packed->bytes[2] = answer->data != NULL ? answer->data_bytes : NO_TEXT;
    packed->bytes[3] = text_bytes(answer->words);
    texts[0] = answer->done;
    texts[1] = answer->context;
    texts[2] = answer->data;
    texts[3] = answer->words;
}

size_t group_pack(const struct store_group *group, char *to, size_t room)
{
    const struct packed_group head = {group->source, group->stage, group->pid, (uint32_t)group->count};
    size_t used = sizeof head + group->count * sizeof(struct packed_answer);
    if (used > room)
        return 0;
    memcpy(to, &head, sizeof head);
    for (size_t i = 0; i < group->count; i++) {
        struct packed_answer packed;
        const char *texts[TEXTS];
        measure(&group->answers[i], &packed, texts);
        memcpy(to + sizeof head + i * sizeof packed, &packed, sizeof packed);
        for (size_t text = 0; text < TEXTS; text++) {
            if (packed.bytes[text] == NO_TEXT)
                continue;
            if (packed.bytes[text] >= room - used)
                return 0;
            memcpy(to + used, texts[text], packed.bytes[text]);
            used += packed.bytes[text];
            to[used++] = '\0';
        }
    }
    return used;
}

/* NULL where there was no text; *good becomes false where it goes beyond the bytes. */
static const char *unpack_text(const char *bytes, size_t count, size_t *used, size_t text, bool *good)
{
    if (text == NO_TEXT || !*good)
        return NULL;
    const char *begin = bytes + *used;
    *good = *used < count && text < count - *used && begin[text] == '\0';
    *used += *good ? text + 1 : 0;
    return begin;
}

bool group_unpack(char *bytes, size_t count, struct store_group *group, struct store_answer *answers,
                  size_t room)
{
    struct packed_group head;
    if (count < sizeof head)
        return false;
    memcpy(&head, bytes, sizeof head);
    if (head.count == 0 || head.count > room ||
        head.count > (count - sizeof head) / sizeof(struct packed_answer))
        return false;
    size_t used = sizeof head + head.count * sizeof(struct packed_answer);
    bool good = true;
    for (size_t i = 0; i < head.count; i++) {
        struct packed_answer packed;
        memcpy(&packed, bytes + sizeof head + i * sizeof packed, sizeof packed);
        answers[i] = packed.answer;
        answers[i].done = unpack_text(bytes, count, &used, packed.bytes[0], &good);
        answers[i].context = unpack_text(bytes, count, &used, packed.bytes[1], &good);
        answers[i].data = unpack_text(bytes, count, &used, packed.bytes[2], &good);
        answers[i].words = unpack_text(bytes, count, &used, packed.bytes[3], &good);
    }
    *group = (struct store_group){
        .source = head.source, .stage = head.stage, .pid = head.pid, .answers = answers, .count = head.count};
    return good;
}
