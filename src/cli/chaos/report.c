/* SPDX-License-Identifier: MIT */
/*
 * What a trial has shown, in plain words or as one JSON object, and whether all is well. Pure: all that it
 * says comes from the counts.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "src/cli/chaos/chaos.h"
#include "src/cli/table.h"

static const char *const blow_members[] = {
#define X(name, member, words) member,
    CHAOS_BLOWS(X)
#undef X
};
static const char *const blow_words[] = {
#define X(name, member, words) words,
    CHAOS_BLOWS(X)
#undef X
};

const char *chaos_blow_member(enum chaos_blow blow)
{
    return blow_members[blow];
}

const char *chaos_blow_words(enum chaos_blow blow)
{
    return blow_words[blow];
}

/* ---- what is wrong, and what is worth a word ---- */

struct findings {
    struct json_out wrong, notes; /* lines */
    size_t wrong_count;
};

static void line(struct json_out *out, const char *format, va_list arguments)
{
    char words[1024];
    vsnprintf(words, sizeof words, format, arguments);
    json_out_words(out, words);
    json_out_words(out, "\n");
}

__attribute__((format(printf, 2, 3))) static void wrong(struct findings *findings, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    line(&findings->wrong, format, arguments);
    va_end(arguments);
    findings->wrong_count++;
}

__attribute__((format(printf, 2, 3))) static void note(struct findings *findings, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    line(&findings->notes, format, arguments);
    va_end(arguments);
}

static void judge_source(const struct chaos_count *count, struct findings *findings)
{
    struct chaos_sum sum;
    chaos_sum(count, &sum);
    if (sum.lost > 0)
        wrong(findings, "%s: %" PRIu64 " of %" PRIu64 " events are lost", count->id, sum.lost, count->fed);
    if (sum.doubled > 0)
        wrong(findings, "%s: %" PRIu64 " events came to an end twice, or were never sent", count->id,
              sum.doubled);
    if (sum.locked > 0)
        wrong(findings, "%s: %" PRIu64 " events are left locked", count->id, sum.locked);
    if (sum.waiting > 0)
        wrong(findings, "%s: %" PRIu64 " events still waited for a stage when nothing moved any more",
              count->id, sum.waiting);
    if (sum.through == 0)
        wrong(findings,
              "%s: nothing came through: this trial shows nothing; if the stages want other events, give "
              "some with --sample",
              count->id);
    if (count->dead[STORE_REASON_CRASHED] > 0)
        wrong(findings, "%s: %" PRIu64 " events are dead because a stage crashed again and again", count->id,
              count->dead[STORE_REASON_CRASHED]);
    if (count->dead[STORE_REASON_CORRUPT] > 0)
        wrong(findings, "%s: %" PRIu64 " events are dead because they could not be read", count->id,
              count->dead[STORE_REASON_CORRUPT]);
    if (count->listed[STORE_DELAYED] > 0)
        note(findings, "%s: %" PRIu64 " events were put off by a stage until the end", count->id,
             count->listed[STORE_DELAYED]);
}

static void judge(const struct chaos *chaos, struct findings *findings)
{
    uint64_t dealt = 0;
    for (int i = 0; i < CHAOS_BLOW_COUNT; i++)
        dealt += chaos->blows[i];
    if (dealt == 0)
        wrong(findings, "no blow was dealt: this trial shows nothing; give it more --seconds");
    for (size_t i = 0; i < chaos->source_count; i++)
        judge_source(&chaos->sources[i].count, findings);
    if (chaos->unasked > 0)
        wrong(findings, "the supervisor ended by itself %" PRIu64 " times", chaos->unasked);
    if (!chaos->ended_in_order)
        wrong(findings, "the daemon did not end in order when it was told to");
    if (chaos->left_running > 0)
        wrong(findings, "%" PRIu64 " processes were left running, and were killed: %s", chaos->left_running,
              chaos->left_words);
    if (chaos->left_segment || chaos->left_socket)
        wrong(findings, "the daemon left its %s", chaos->left_segment ? "shared memory" : "socket");
    if (chaos->store_faults > 0)
        wrong(findings, "the store has %" PRIu64 " faults: %s", chaos->store_faults, chaos->store_words);
}

/* ---- in words ---- */

static void put(struct json_out *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(struct json_out *out, const char *format, ...)
{
    char words[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    json_out_words(out, words);
}

static void say_source(const struct chaos_count *count, struct json_out *out)
{
    struct chaos_sum sum;
    chaos_sum(count, &sum);
    put(out,
        "%s: %" PRIu64 " events went in; %" PRIu64 " were processed to the end, %" PRIu64
        " removed by a stage, %" PRIu64 " are dead",
        count->id, count->fed, count->totals.finished, count->totals.removed, count->listed[STORE_DEAD]);
    const char *before = " (";
    for (int i = 1; i <= STORE_REASON_CORRUPT; i++)
        if (count->dead[i] > 0) {
            put(out, "%s%" PRIu64 " %s", before, count->dead[i], store_reason_name((enum store_reason)i));
            before = ", ";
        }
    put(out, "%s\n", before[0] == ',' ? ")" : "");
    put(out, "  %" PRIu64 " calls of stages were repeated, as far as can be seen\n", sum.repeated);
    for (size_t i = 0; i < count->stage_count; i++) {
        const struct chaos_stage_count *stage = &count->stages[i];
        put(out,
            "  %s: %" PRIu64 " answers; stored: %" PRIu64 " processed, %" PRIu64 " not processed, %" PRIu64
            " failed, %" PRIu64 " removed, %" PRIu64 " rejected; %" PRIu64
            " crashed or killed over an event\n",
            stage->name, stage->calls, stage->totals.processed, stage->totals.retried, stage->totals.failed,
            stage->totals.removed, stage->totals.rejected, stage->totals.crashed);
    }
}

static void say(const struct chaos *chaos, const struct findings *findings, struct json_out *out)
{
    put(out, "storm of %.1f s (seed %" PRIu64 "), then %.1f s until the rest was through; dealt:\n",
        (double)chaos->storm_ms / 1000, chaos->options->seed, (double)chaos->rest_ms / 1000);
    for (int i = 0; i < CHAOS_BLOW_COUNT; i++)
        put(out, "  %6" PRIu64 " %s\n", chaos->blows[i], blow_words[i]);
    for (size_t i = 0; i < chaos->source_count; i++)
        say_source(&chaos->sources[i].count, out);
    if (findings->notes.text != NULL)
        json_out_words(out, findings->notes.text);
    if (findings->wrong.text != NULL) {
        json_out_words(out, "WRONG:\n");
        json_out_words(out, findings->wrong.text);
    } else {
        json_out_words(
            out, "all is well: nothing lost, nothing doubled, nothing left locked, nothing left running\n");
    }
}

/* ---- as JSON ---- */

static void put_lines(struct json_out *out, const char *name, const struct json_out *lines)
{
    json_out_key(out, name);
    json_out_words(out, "[");
    const char *at = lines->text != NULL ? lines->text : "", *between = "";
    for (const char *stop; (stop = strchr(at, '\n')) != NULL; at = stop + 1, between = ",") {
        json_out_words(out, between);
        json_out_string(out, at, (size_t)(stop - at));
    }
    json_out_words(out, "]");
}

static void put_stage(struct json_out *out, const struct chaos_stage_count *stage)
{
    json_out_member_text(out, "name", stage->name);
    json_out_member_uint(out, "calls", stage->calls);
    json_out_member_uint(out, "processed", stage->totals.processed);
    json_out_member_uint(out, "retried", stage->totals.retried);
    json_out_member_uint(out, "failed", stage->totals.failed);
    json_out_member_uint(out, "removed", stage->totals.removed);
    json_out_member_uint(out, "rejected", stage->totals.rejected);
    json_out_member_uint(out, "crashed", stage->totals.crashed);
}

static void put_source(struct json_out *out, const struct chaos_count *count)
{
    struct chaos_sum sum;
    chaos_sum(count, &sum);
    json_out_member_text(out, "id", count->id);
    json_out_member_uint(out, "fed", count->fed);
    json_out_member_uint(out, "finished", count->totals.finished);
    json_out_member_uint(out, "removed", count->totals.removed);
    json_out_member_uint(out, "dead", count->listed[STORE_DEAD]);
    json_out_member_uint(out, "delayed", count->listed[STORE_DELAYED]);
    json_out_member_uint(out, "waiting", sum.waiting);
    json_out_member_uint(out, "lost", sum.lost);
    json_out_member_uint(out, "doubled", sum.doubled);
    json_out_member_uint(out, "locked", sum.locked);
    json_out_member_uint(out, "repeated", sum.repeated);
    json_out_key(out, "stages");
    json_out_words(out, "[");
    for (size_t i = 0; i < count->stage_count; i++) {
        json_out_words(out, i == 0 ? "{" : ",{");
        put_stage(out, &count->stages[i]);
        json_out_words(out, "}");
    }
    json_out_words(out, "]");
}

static void put_whole(const struct chaos *chaos, const struct findings *findings, struct json_out *out)
{
    json_out_words(out, "{\"good\":");
    json_out_words(out, findings->wrong_count == 0 ? "true" : "false");
    put_lines(out, "wrong", &findings->wrong);
    put_lines(out, "notes", &findings->notes);
    json_out_member_uint(out, "seed", chaos->options->seed);
    json_out_member_uint(out, "storm_ms", chaos->storm_ms);
    json_out_member_uint(out, "rest_ms", chaos->rest_ms);
    json_out_member_uint(out, "left_running", chaos->left_running);
    json_out_key(out, "blows");
    json_out_words(out, "{");
    for (int i = 0; i < CHAOS_BLOW_COUNT; i++)
        json_out_member_uint(out, blow_members[i], chaos->blows[i]);
    json_out_words(out, "}");
    json_out_key(out, "sources");
    json_out_words(out, "[");
    for (size_t i = 0; i < chaos->source_count; i++) {
        json_out_words(out, i == 0 ? "{" : ",{");
        put_source(out, &chaos->sources[i].count);
        json_out_words(out, "}");
    }
    json_out_words(out, "]}\n");
}

bool chaos_report(const struct chaos *chaos, bool json, struct json_out *out)
{
    struct findings findings = {0};
    judge(chaos, &findings);
    if (json)
        put_whole(chaos, &findings, out);
    else
        say(chaos, &findings, out);
    json_out_free(&findings.wrong);
    json_out_free(&findings.notes);
    return findings.wrong_count == 0;
}
