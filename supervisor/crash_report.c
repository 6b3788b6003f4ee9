/* SPDX-License-Identifier: MIT */
/*
 * Deaths as operators are told of them: each goes into the segment's ring of deaths, from where the keeper
 * stores it. Run by the supervisor, which never opens the store.
 *
 * A supervisor that was killed tells nothing any more: the next one of its name finds the segment it left,
 * takes over what the keeper had not stored yet, and adds the death of the daemon itself. A start that fails
 * leaves what it took over to the next one: in its own segment, or, where that could not be made, in one that
 * holds nothing else.
 */
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "shm/crash_log.h"
#include "shm/slot.h"
#include "src/base/log.h"
#include "supervisor/family.h"

/* A text cut where a character begins. */
static void copy_text(char *to, size_t size, const char *from)
{
    size_t bytes = strnlen(from, size);
    if (bytes == size)
        for (bytes--; bytes > 0 && ((unsigned char)from[bytes] & 0xc0) == 0x80; bytes--)
            ;
    memcpy(to, from, bytes);
    to[bytes] = '\0';
}

void obituary_add(struct supervisor *supervisor, const struct child *child, const struct obituary *obituary)
{
    const struct segment *segment = &supervisor->segment;
    const struct shm_slot *slot = family_slot(supervisor, child);
    bool exited = WIFEXITED(obituary->status);
    struct shm_death death = {
        .died_ms = shm_realtime_ms(),
        .lived_ms = (shm_now_ns() - child->born_ns) / FAMILY_MS_NS,
        .event = obituary->event,
        .pid = child->pid,
        .code = obituary->code,
        .kind = slot->kind,
        .cause = obituary->cause,
    };
    if (obituary->cause ==
        SHM_CAUSE_NONE) { /* nobody is to blame for it: how it ended is told all the same */
        death.cause = exited ? SHM_CAUSE_EXIT : SHM_CAUSE_SIGNAL;
        death.code = exited ? WEXITSTATUS(obituary->status) : WTERMSIG(obituary->status);
    }
    copy_text(death.process, sizeof death.process, child->name);
    if (slot->kind != SHM_KIND_KEEPER)
        copy_text(death.source, sizeof death.source, segment_source(segment, slot->source)->id);
    if (slot->kind == SHM_KIND_WORKER)
        copy_text(death.stage, sizeof death.stage, segment_stage(segment, slot->stage)->name);
    if (obituary->event != 0) {
        char uid[SHM_UID_BYTES];
        memcpy(uid, slot->uid, sizeof uid);
        uid[sizeof uid - 1] = '\0'; /* its writer may have died in the middle */
        copy_text(death.uid, sizeof death.uid, uid);
    }
    copy_text(death.how, sizeof death.how, obituary->how);
    copy_text(death.words, sizeof death.words, obituary->last_words);
    deaths_add(segment, &death);
    const struct inherit inherit = {.segment = *segment, .activity_fd = supervisor->activity_fd};
    keeper_nudge(&inherit);
}

/* The supervisor that left this segment, as far as it can still be told. */
static struct shm_death daemon_death(const struct segment *before)
{
    const struct shm_header *header = before->header;
    uint64_t heartbeat_ns = atomic_load(&header->heartbeat_ns);
    struct shm_death death = {.pid = header->supervisor_pid, .kind = SHM_KIND_NONE, .cause = SHM_CAUSE_NONE};
    if (heartbeat_ns >= header->started_ns)
        death.lived_ms = (heartbeat_ns - header->started_ns) / FAMILY_MS_NS;
    death.died_ms = header->started_realtime_ms + death.lived_ms;
    copy_text(death.process, sizeof death.process, "daemon");
    copy_text(death.how, sizeof death.how,
              "killed: it did not end in order; the time is that of its last sign "
              "of life");
    return death;
}

void obituary_read(const char *instance, struct inheritance *out)
{
    struct segment before;
    out->count = 0;
    out->daemon_pid = 0;
    if (segment_attach(instance, &before) != 0)
        return;
    for (uint64_t number = deaths_first(&before); number < deaths_end(&before); number++)
        if (out->count < SHM_DEATHS && deaths_read(&before, number, &out->deaths[out->count]))
            out->count++;
    if (atomic_load(&before.header->phase) != SHM_PHASE_STOPPED) {
        out->deaths[out->count++] = daemon_death(&before);
        out->daemon_pid = before.header->supervisor_pid;
    }
    segment_close(&before);
}

void obituary_inherit(const struct segment *segment, const struct inheritance *inheritance)
{
    for (uint32_t i = 0; i < inheritance->count; i++)
        deaths_add(segment, &inheritance->deaths[i]);
    if (inheritance->daemon_pid != 0)
        log_warning("found-dead process=daemon pid=%d", (int)inheritance->daemon_pid);
}

void obituary_keep(const char *instance, const struct inheritance *inheritance)
{
    const struct segment_plan plan = {.instance = instance};
    struct segment segment;
    if (inheritance->count == 0 || segment_create(&plan, &segment) != 0)
        return;
    obituary_inherit(&segment, inheritance);
    atomic_store(&segment.header->phase, SHM_PHASE_STOPPED);
    segment_publish(&segment);
    segment_close(&segment);
}
