/* SPDX-License-Identifier: MIT */
/*
 * The crash log. The supervisor adds records; the keeper stores them and notes how far it has come; the
 * keeper and the command line read. No process waits for another: a keeper that hangs costs the oldest
 * records and never holds up the supervisor.
 *
 * Invariants
 *  1. A record's number is 0 from before its first word changes until after its last has. A reader that
 *     sees the same number before and after it copies has a whole record. A supervisor killed in between
 *     leaves 0, and the record counts as never written.
 *  2. `written` moves after the record is complete, so every record below it was whole once.
 */
#include "shm/crash_log.h"

#include <string.h>

#define WORD_COUNT (sizeof(struct crash_record) / sizeof(uint64_t))
static_assert(sizeof(struct crash_record) % sizeof(uint64_t) == 0, "a crash is whole words");

static struct shm_crashes *get_crash_log(const struct segment *segment)
{
    return (struct shm_crashes *)(void *)((char *)segment->header + segment->header->crash_offset);
}

/* Adds one record to the crash log in shared memory, in place of the oldest if the log is full. The
 * supervisor calls it after each crash of a process; the keeper stores the record from there. The order
 * of the writes lets a reader tell a whole record from a half-written one. */
void crash_log_add(const struct segment *segment, const struct crash_record *crash)
{
    struct shm_crashes *crashes = get_crash_log(segment);
    /* Relaxed: the supervisor alone writes it. */
    uint64_t number = atomic_load_explicit(&crashes->written, memory_order_relaxed) + 1;
    struct shm_crash_entry *entry = &crashes->records[number % SHM_CRASHES];
    uint64_t words[WORD_COUNT];
    memcpy(words, crash, sizeof words);
    atomic_store_explicit(&entry->number, 0, memory_order_relaxed);
    /* Release: a reader that sees a word of this crash also sees that the number is gone. */
    for (size_t i = 0; i < WORD_COUNT; i++)
        atomic_store_explicit(&entry->words[i], words[i], memory_order_release);
    /* Release: a reader that sees the number sees every word. */
    atomic_store_explicit(&entry->number, number, memory_order_release);
    atomic_store_explicit(&crashes->written, number, memory_order_release);
}

uint64_t crash_log_end(const struct segment *segment)
{
    /* Acquire: the records below are complete. */
    return atomic_load_explicit(&get_crash_log(segment)->written, memory_order_acquire) + 1;
}

uint64_t crash_log_stored_end(const struct segment *segment)
{
    /* Acquire: those below are found in the store from now on. */
    return atomic_load_explicit(&get_crash_log(segment)->stored, memory_order_acquire) + 1;
}

/* Returns the number of the oldest crash record that is in the crash log in shared memory and not yet in
 * the store. The keeper stores the records from there on, `eventpipe crashes` shows them, and the next
 * supervisor takes them over from a killed one. */
uint64_t crash_log_first(const struct segment *segment)
{
    uint64_t end_number = crash_log_end(segment);
    uint64_t first_number = crash_log_stored_end(segment);
    uint64_t oldest_number = end_number > SHM_CRASHES ? end_number - SHM_CRASHES : 1;
    if (first_number > end_number) /* only in a damaged segment */
        first_number = end_number;
    return first_number < oldest_number ? oldest_number : first_number;
}

static void terminate_text(char *text, size_t text_bytes)
{
    text[text_bytes - 1] = '\0';
}

/* Copies one crash record out of the crash log in shared memory. Returns false if a later crash has
 * replaced it, or if it was never complete. The keeper, `eventpipe crashes` and a starting supervisor call
 * it. */
bool crash_log_read(const struct segment *segment, uint64_t number, struct crash_record *out)
{
    const struct shm_crash_entry *entry = &get_crash_log(segment)->records[number % SHM_CRASHES];
    uint64_t words[WORD_COUNT];
    /* Acquire: the words of this number, or later ones. */
    if (number == 0 || atomic_load_explicit(&entry->number, memory_order_acquire) != number)
        return false;
    /* Acquire: having read a word of a later crash, it reads another number below. */
    for (size_t i = 0; i < WORD_COUNT; i++)
        words[i] = atomic_load_explicit(&entry->words[i], memory_order_acquire);
    if (atomic_load_explicit(&entry->number, memory_order_relaxed) != number)
        return false;
    memcpy(out, words, sizeof words);
    terminate_text(out->kind, sizeof out->kind);
    terminate_text(out->cause, sizeof out->cause);
    terminate_text(out->process, sizeof out->process);
    terminate_text(out->source, sizeof out->source);
    terminate_text(out->stage, sizeof out->stage);
    terminate_text(out->uid, sizeof out->uid);
    terminate_text(out->how, sizeof out->how);
    terminate_text(out->last_output, sizeof out->last_output);
    return true;
}

void crash_log_set_stored_end(const struct segment *segment, uint64_t end_number)
{
    /* Release: readers that no longer look here find them in the store. */
    atomic_store_explicit(&get_crash_log(segment)->stored, end_number - 1, memory_order_release);
}
