/* SPDX-License-Identifier: MIT */
/* Groups as bytes: what goes in comes out; never beyond the room, whatever the bytes say. All bytes stand in
 * blocks of just their size, so that the address sanitizer and valgrind see who goes beyond. */
#include <inttypes.h>

#include "src/process/group_codec.h"
#include "tests/lib/unit.h"

#define ANSWERS 5
#define ROOM 16
#define GUARD 64

static const char binary[] = "a\0b\0\0c\xff";
static const char big[] = "{\"state\":\"0123456789012345678901234567890123456789\"}";

static const struct store_answer samples[ANSWERS] = {
    {.lock = {INT64_C(0x1122334455667788), UINT64_C(0xf1f2f3f4f5f6f7f8)},
     .change = STORE_ADVANCE,
     .done = "first\nsecond\n",
     .context = binary,
     .context_bytes = sizeof binary - 1,
     .data = big,
     .data_bytes = sizeof big - 1,
     .due_ms = UINT64_MAX,
     .failed = true,
     .reason = STORE_REASON_CORRUPT,
     .error = "no such pump",
     .attempt = UINT32_MAX,
     .duration_us = UINT64_C(1) << 60,
     .applied = true},
    {.lock = {1, 2}, .change = STORE_COMPLETE},
    {.lock = {3, 4}, .change = STORE_ADVANCE, .done = "", .context = "", .data = "", .error = ""},
    {.lock = {5, 6}, .change = STORE_DELAY, .due_ms = 7, .error = "later", .attempt = 8, .duration_us = 9},
    {.lock = {7, 8},
     .change = STORE_DEAD_LETTER,
     .reason = STORE_REASON_REJECTED,
     .data = binary,
     .data_bytes = 1},
};

static struct store_group_member sample(struct store_answer answers[ANSWERS], size_t count)
{
    memcpy(answers, samples, sizeof samples);
    return (struct store_group_member){
        .source = INT64_MIN + 5, .stage = INT64_MAX - 6, .pid = -7, .answers = answers, .count = count};
}

/* In a block of its own, of just this many bytes. */
static char *block_of(const char *bytes, size_t count)
{
    char *block = malloc(count > 0 ? count : 1);
    CU_ASSERT_PTR_NOT_NULL_FATAL(block);
    memcpy(block, bytes, count);
    return block;
}

static size_t pack_all(char *to, size_t room, size_t count)
{
    struct store_answer answers[ANSWERS];
    struct store_group_member member = sample(answers, count);
    return process_group_codec_encode(&member, to, room);
}

static void expect_text(const char *text, size_t bytes, const char *wanted, size_t wanted_bytes)
{
    if (wanted == NULL) {
        CU_ASSERT_PTR_NULL(text);
        return;
    }
    CU_ASSERT_PTR_NOT_NULL_FATAL(text);
    CU_ASSERT_EQUAL_FATAL(bytes, wanted_bytes);
    CU_ASSERT_EQUAL(memcmp(text, wanted, wanted_bytes), 0);
    CU_ASSERT_EQUAL(text[wanted_bytes], '\0');
}

static void expect_string(const char *text, const char *wanted)
{
    size_t bytes = wanted != NULL ? strlen(wanted) : 0;
    expect_text(text, text != NULL ? strlen(text) : 0, wanted, bytes);
}

static void expect_same(const struct store_answer *got, const struct store_answer *wanted)
{
    CU_ASSERT_EQUAL(got->lock.event, wanted->lock.event);
    CU_ASSERT_EQUAL(got->lock.token, wanted->lock.token);
    CU_ASSERT_EQUAL(got->change, wanted->change);
    CU_ASSERT_EQUAL(got->due_ms, wanted->due_ms);
    CU_ASSERT_EQUAL(got->failed, wanted->failed);
    CU_ASSERT_EQUAL(got->reason, wanted->reason);
    CU_ASSERT_EQUAL(got->attempt, wanted->attempt);
    CU_ASSERT_EQUAL(got->duration_us, wanted->duration_us);
    expect_string(got->done, wanted->done);
    expect_string(got->error, wanted->error);
    expect_text(got->context, got->context_bytes, wanted->context, wanted->context_bytes);
    expect_text(got->data, got->data_bytes, wanted->data, wanted->data_bytes);
}

static void round_trip(void)
{
    char encoded[4096];
    for (size_t made = 1; made <= ANSWERS; made++) {
        struct store_answer answers[ANSWERS];
        struct store_group_member member = {0};
        size_t packed_bytes = pack_all(encoded, sizeof encoded, made);
        CU_ASSERT_FATAL(packed_bytes > 0);
        char *bytes = block_of(encoded, packed_bytes);
        memset(encoded, 'x', sizeof encoded); /* it lives from its own bytes only */
        CU_ASSERT_TRUE(process_group_codec_decode(bytes, packed_bytes, &member, answers, made));
        CU_ASSERT_EQUAL(member.source, INT64_MIN + 5);
        CU_ASSERT_EQUAL(member.stage, INT64_MAX - 6);
        CU_ASSERT_EQUAL(member.pid, -7);
        CU_ASSERT_FALSE(member.again);
        CU_ASSERT_EQUAL_FATAL(member.count, made);
        CU_ASSERT_PTR_EQUAL(member.answers, answers);
        for (size_t i = 0; i < made; i++)
            expect_same(&answers[i], &samples[i]);
        CU_ASSERT_FALSE(process_group_codec_decode(bytes, packed_bytes, &member, answers, made - 1));
        free(bytes);
    }
}

static void nothing_beyond_the_room(void)
{
    char encoded[4096];
    for (size_t count = 1; count <= ANSWERS; count++) {
        size_t enough = pack_all(encoded, sizeof encoded, count);
        for (size_t room = 0; room <= enough; room++) {
            char *exact = malloc(room > 0 ? room : 1), guarded[4096];
            CU_ASSERT_PTR_NOT_NULL_FATAL(exact);
            CU_ASSERT_EQUAL(pack_all(exact, room, count), room < enough ? 0 : enough);
            free(exact);
            memset(guarded + room, 'g', GUARD);
            CU_ASSERT_EQUAL(pack_all(guarded, room, count), room < enough ? 0 : enough);
            for (size_t i = 0; i < GUARD; i++)
                CU_ASSERT_EQUAL(guarded[room + i], 'g');
        }
    }
}

static void large_texts_do_not_fit(void)
{
    static char text[5000], to[4096];
    struct store_answer answers[2] = {{.change = STORE_COMPLETE}, {.change = STORE_DELAY, .error = text}};
    struct store_group_member member = {.answers = answers, .count = 2};
    memset(text, 'x', sizeof text - 1);
    CU_ASSERT_EQUAL(process_group_codec_encode(&member, to, sizeof to), 0);
    answers[1] = (struct store_answer){.context = text, .context_bytes = SIZE_MAX - 1};
    CU_ASSERT_EQUAL(process_group_codec_encode(&member, to, sizeof to), 0);
}

static void empty_is_refused(void)
{
    struct store_answer answers[1];
    struct store_group_member member = {.answers = answers};
    char encoded[256];
    size_t used = process_group_codec_encode(&member, encoded, sizeof encoded);
    CU_ASSERT_FALSE(process_group_codec_decode(encoded, used, &member, answers, 1));
}

static void no_truncation_is_taken(void)
{
    char encoded[4096];
    for (size_t count = 1; count <= ANSWERS; count++) {
        size_t used = pack_all(encoded, sizeof encoded, count);
        for (size_t left = 0; left < used; left++) {
            struct store_answer answers[ROOM];
            struct store_group_member member;
            char *bytes = block_of(encoded, left);
            CU_ASSERT_FALSE(process_group_codec_decode(bytes, left, &member, answers, ROOM));
            free(bytes);
        }
    }
}

/* Of bytes that were taken for good: each text stands in them, and ends there. */
static void read_text(const char *bytes, size_t count, const char *text)
{
    if (text == NULL)
        return;
    CU_ASSERT_FATAL(text >= bytes && text < bytes + count);
    CU_ASSERT_PTR_NOT_NULL(memchr(text, '\0', (size_t)(bytes + count - text)));
}

static bool unpack_anything(const char *encoded, size_t count)
{
    struct store_answer answers[ROOM];
    struct store_group_member member;
    char *bytes = block_of(encoded, count);
    bool good = process_group_codec_decode(bytes, count, &member, answers, ROOM);
    CU_ASSERT_FATAL(!good || (member.count > 0 && member.count <= ROOM));
    for (size_t i = 0; good && i < member.count; i++) {
        read_text(bytes, count, answers[i].done);
        read_text(bytes, count, answers[i].context);
        read_text(bytes, count, answers[i].data);
        read_text(bytes, count, answers[i].error);
    }
    free(bytes);
    return good;
}

static uint64_t seed;

static uint32_t roll(uint32_t limit)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return (uint32_t)(seed >> 33) % limit;
}

static void random_bytes_do_no_harm(void)
{
    char encoded[4096] = {0};
    seed = 88172645463325252;
    for (int round = 0; round < 20000; round++) {
        size_t count = roll(1200);
        for (size_t i = 0; i < count; i++)
            encoded[i] = (char)roll(256);
        if (count > 24 && roll(2) == 0) /* a count that may be true */
            memcpy(encoded + 20, &(uint32_t){roll(ROOM + 2)}, sizeof(uint32_t));
        unpack_anything(encoded, count);
    }
}

static void damaged_bytes_do_no_harm(void)
{
    static const size_t lengths[] = {0, 1, 2, 50, 4000, SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2};
    char encoded[4096];
    int taken = 0, refused = 0;
    for (int round = 0; round < 20000; round++) {
        size_t used = pack_all(encoded, sizeof encoded, 1 + roll(ANSWERS));
        for (uint32_t i = roll(4); i > 0; i--)
            encoded[roll((uint32_t)used)] = (char)roll(256);
        if (roll(2) == 0) {
            size_t at = 8 * roll((uint32_t)used / 8);
            memcpy(encoded + at, &lengths[roll(sizeof lengths / sizeof lengths[0])], sizeof lengths[0]);
        }
        if (unpack_anything(encoded, used))
            taken++;
        else
            refused++;
    }
    CU_ASSERT(taken > 100 && refused > 100);
}

UNIT_MAIN("process_group_codec_encode", {"what goes in comes out", round_trip},
          {"nothing is written beyond the room", nothing_beyond_the_room},
          {"large texts do not fit", large_texts_do_not_fit},
          {"an empty member is refused", empty_is_refused},
          {"no truncation is taken for good", no_truncation_is_taken},
          {"random bytes do no harm", random_bytes_do_no_harm},
          {"damaged bytes do no harm", damaged_bytes_do_no_harm})
