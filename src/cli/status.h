/* SPDX-License-Identifier: MIT */
/*
 * The state of an instance at one instant, as `eventpipe status` shows it: a copy, read from shared memory
 * alone or, while the daemon is down, from the store.
 */
#ifndef CLI_STATUS_H
#define CLI_STATUS_H

#include "shm/segment.h"
#include "src/config/config.h"
#include "src/json/json.h"
#include "src/store/store.h"

#define STATUS_SILENCE_MS 5000    /* a supervisor whose heartbeat is older counts as stuck */
#define STATUS_PROCESSING_MS 1000 /* an event that is processed for longer gets a line */

enum status_health { STATUS_OK, STATUS_DEGRADED, STATUS_DOWN };
const char *cli_status_health_name(enum status_health health);

struct status_process {
    uint32_t slot, kind, index;
    int32_t pid;    /* 0 = none */
    uint32_t state; /* enum shm_slot_state */
    uint32_t restarts;
    uint64_t restart_in_ms; /* BACKOFF */
    uint64_t event;         /* being processed, by its number (store_event_number); 0 = none */
    uint64_t since_ms;      /* how long in this state, or processing this event */
    uint64_t calls;         /* of the stage, answered in this slot since the daemon started */
    char last_exit[SHM_TEXT_BYTES];
};

struct status_stage {
    char name[SHM_NAME_BYTES], type[16];
    const char *state;
    bool paused, degraded;
    uint32_t concurrency, busy_worker_count, alive_worker_count;
    uint64_t queued_count; /* waits in its ring */
    uint64_t processed, retried, removed, rejected, failed, crashed;
    uint64_t restarts; /* of its workers together */
    uint64_t p50_us, p99_us, timeout_ms;
    struct status_process *workers; /* concurrency of them; NULL while the daemon is down */
};

struct status_source {
    char id[SHM_NAME_BYTES], type[16];
    const char *state;
    char *cursor; /* NULL = none */
    char error[SHM_TEXT_BYTES];
    uint64_t next_try_in_ms, failures;
    bool paused;
    uint64_t fetched, duplicates, injected, completed, removed_by_stage, removed_by_operator;
    uint64_t live, ready, running, delayed, held, dead, orphaned;
    uint64_t oldest_s; /* age of the oldest event there is; 0 = none */
    struct status_process producer;
    struct status_stage *stages;
    size_t stage_count;
};

struct status {
    char instance[SHM_NAME_BYTES], version[32], store_url[256];
    int32_t pid; /* 0 = down */
    uint64_t uptime_s;
    enum status_health health;
    const char *phase;
    char **reasons;
    size_t reason_count;
    uint64_t store_bytes, wal_bytes;
    uint64_t heartbeat_age_ms, store_failing_since_ms;
    char store_error[SHM_TEXT_BYTES];
    uint32_t recoveries;
    bool stale; /* totals may be up to a second old */
    struct status_process keeper;
    struct status_source *sources;
    size_t source_count;
};

/* Reads the segment and checks. 0 or EP_ENOMEM; to be closed in any case. */
int cli_status_read_segment(const struct segment *segment, struct status *out);
/* The same from the store of an instance that is down; `down_reason` becomes the first reason. config may be
 * NULL. */
int cli_status_read_store(struct store *store, const struct config *config, const char *instance,
                          const char *url, const char *down_reason, struct status *out, struct error *error);
void cli_status_close(struct status *status);

/* status_health.c: fills health and reasons from the rest. The daemon is up; otherwise the health is
 * down. */
int cli_status_assess_health(struct status *status, bool is_supervisor_alive);
/* Whether the process is stopped (SIGSTOP) and a child of `parent`. Another parent means a reused pid. */
bool cli_status_is_process_stopped(int32_t pid, int32_t parent);
int cli_status_add_reason(struct status *status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* One line, with its line feed. Every member is documented in eventpipe(1). */
void cli_status_write_json(const struct status *status, struct text *out);
/* For people: `width` columns; colours only on a terminal. */
void cli_status_write_text(const struct status *status, size_t width, bool uses_colours, struct text *out);

/* "850us", "1.2ms"; "3d 4h", "12 s"; "1.3M"; "12.3 MiB". */
void cli_status_format_latency(uint64_t latency_us, char *buffer, size_t buffer_bytes);
void cli_status_format_age(uint64_t age_ms, char *buffer, size_t buffer_bytes);
void cli_status_format_count(uint64_t count, bool is_brief, char *buffer, size_t buffer_bytes);
void cli_status_format_bytes(uint64_t bytes, char *buffer, size_t buffer_bytes);

#endif
