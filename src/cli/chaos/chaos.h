/* SPDX-License-Identifier: MIT */
/*
 * Inside `eventpipe chaos`: the user's stages under a storm of kills, on a store that is thrown away.
 *   cli_chaos.c          the verb: what is asked for, and the trial's process
 *   cli_chaos_trial.c    the trial: daemon, storm, the wait for the rest, the end
 *   cli_chaos_config.c   the trial's configuration       cli_chaos_feed.c     the events that go in
 *   cli_chaos_daemon.c   the daemon of the trial         cli_chaos_strike.c   kills and stops
 *   cli_chaos_witness.c  the stage after the last        cli_chaos_count.c    what became of each event
 *   cli_chaos_verdict.c  good or not, in words           cli_chaos_left.c     processes that stay behind
 */
#ifndef CLI_CHAOS_H
#define CLI_CHAOS_H

#include <sys/types.h>

#include "src/cli/cli.h"
#include "src/store/store.h"

#define CHAOS_WITNESS_ARGUMENT "--chaos-witness"
#define CHAOS_PATH_BYTES 512
#define CHAOS_SLOTS_MAX 1024 /* processes that are told apart by the storm; what is beyond is left alone */

/* The blows dealt: id, words, one and several. The only list of them. */
#define CHAOS_BLOWS(X)                                           \
    X(WORKER, "worker", "workers killed")                        \
    X(COPROCESS, "coprocess", "co-processes of stages killed")   \
    X(PRODUCER, "producer", "producers killed")                  \
    X(KEEPER, "keeper", "keepers killed")                        \
    X(SUPERVISOR, "supervisor", "supervisors killed")            \
    X(FAMILY, "family", "times the whole family killed at once") \
    X(STOP, "stopped", "processes halted for a moment")
enum chaos_blow {
#define X(name, member, words) CHAOS_##name,
    CHAOS_BLOWS(X)
#undef X
        CHAOS_BLOW_COUNT
};
const char *chaos_blow_member(enum chaos_blow blow);
const char *chaos_blow_words(enum chaos_blow blow);

/* ---- randomness, by seed, so that a storm can be asked for again */
struct chaos_dice {
    uint64_t state;
};
uint64_t chaos_roll(struct chaos_dice *dice);                                   /* 64 bits */
uint64_t chaos_between(struct chaos_dice *dice, uint64_t least, uint64_t most); /* both may come */

/* ---- what became of the events of one source */
struct chaos_stage_count {
    char name[SHM_NAME_BYTES];
    struct store_stage_totals totals;
    uint64_t calls; /* answers seen in all lives of its workers */
};
struct chaos_count {
    char id[SHM_NAME_BYTES];
    uint64_t fed; /* events written */
    struct store_totals totals;
    uint64_t listed[STORE_DEAD + 1]; /* in the store at the end, by state */
    uint64_t dead[STORE_REASON_CORRUPT + 1];
    uint64_t witnessed; /* different events that came to the witness and are no longer in the store */
    uint64_t witness_repeats;
    uint64_t strangers;               /* events in the store or at the witness that were never fed */
    uint64_t listed_doubles;          /* events that stand in the store twice */
    struct chaos_stage_count *stages; /* the user's, without the witness */
    size_t stage_count;
};
struct chaos_sum { /* what the counts say, for one source */
    uint64_t lost, doubled, locked, waiting, through, repeated;
};
/* Pure: every event fed has exactly one end. */
void chaos_sum(const struct chaos_count *count, struct chaos_sum *out);

/* ---- the events that go in */
struct chaos_sample {
    char *bytes;
    struct json_span *lines;
    size_t count;
};
int chaos_sample_read(const char *path, struct chaos_sample *out, struct error *error);
void chaos_sample_free(struct chaos_sample *sample);

struct chaos_feed {
    char path[CHAOS_PATH_BYTES];
    int fd;
    uint64_t inode;
    uint64_t *offsets; /* of each line */
    uint64_t count, bytes;
    uint64_t size_bytes; /* of a generated payload */
    const struct chaos_sample *sample;
};
int chaos_feed_open(struct chaos_feed *feed, struct error *error);
int chaos_feed_write(struct chaos_feed *feed, uint64_t events, struct error *error);
void chaos_feed_close(struct chaos_feed *feed);
/* The number of the line that a uid of a file source names, or UINT64_MAX. */
uint64_t chaos_feed_find(const struct chaos_feed *feed, const char *uid);
/* How many events may be on their way, after a look at how many ended since the last one. Pure. */
uint64_t chaos_window(uint64_t before, uint64_t ended_since);

/* ---- the trial's configuration */
struct chaos_config {
    const char *user_path; /* the user's file, which is only read */
    const char *instance, *storage, *control;
    const char *program;     /* eventpipe itself, to be the witness */
    const char *only_source; /* or NULL */
    const char *folder;      /* feed.N and witness.N stand there, N = the source's place in the user's list */
};
/* Writes the configuration of the trial. 0, or a negative code with words. */
int chaos_config_write(const struct chaos_config *config, const char *path, struct error *error);
void chaos_feed_path(const char *folder, size_t source, char *buffer, size_t size);
void chaos_witness_path(const char *folder, size_t source, char *buffer, size_t size);
#define CHAOS_WITNESS_STAGE "eventpipe-chaos-witness"

/* The witness, a stage of its own: writes each uid down, answers processed. */
int chaos_witness(const char *path);

/* ---- the trial */
struct chaos_options {
    uint64_t seconds, events, seed; /* events of each source, 0 = as many as go through */
    const char *only_source;
    struct chaos_sample sample;
    char program[CHAOS_PATH_BYTES], daemon[CHAOS_PATH_BYTES]; /* eventpipe and eventpiped */
};

struct chaos_source {
    struct chaos_feed feed;
    char witness[CHAOS_PATH_BYTES];
    struct chaos_count count;
    uint64_t window, ended_before;
};

struct chaos_stopped { /* halted, to go on at a time */
    int pidfd;
    uint64_t until_ns;
};
#define CHAOS_STOPPED_MAX 16

struct chaos {
    struct cli *cli;
    const struct chaos_options *options;
    char folder[CHAOS_PATH_BYTES], config_path[CHAOS_PATH_BYTES], log_path[CHAOS_PATH_BYTES];
    char control[CHAOS_PATH_BYTES], storage[CHAOS_PATH_BYTES], instance[SHM_NAME_BYTES];
    struct chaos_source *sources;
    size_t source_count;
    struct chaos_dice dice;

    pid_t daemon;              /* 0 = none runs */
    bool up;                   /* this one was seen at work */
    bool felled;               /* we killed it, or the last one, and no other has come up since */
    uint64_t born_ns, unasked; /* deaths of the supervisor that nobody dealt */
    struct segment segment;    /* of the running one, or the one before */
    uint64_t start_number;     /* the last seen */

    uint64_t blows[CHAOS_BLOW_COUNT];
    uint64_t struck_work[CHAOS_SLOTS_MAX]; /* by slot: calls and commits + 1 at the last blow */
    uint32_t keepers_struck;
    uint64_t next_strike_ns, next_felling_ns;
    struct chaos_stopped stopped[CHAOS_STOPPED_MAX];

    uint64_t started_ns, storm_ms, rest_ms;
    bool settled; /* the rest came through before patience ended */
    bool ended_in_order;
    uint64_t left_running; /* processes */
    char left_words[512];
    bool left_segment, left_socket;
    uint64_t store_faults;
    char store_words[256];
};
/* In the trial's process, in a folder of its own: runs it, puts what came of it into cli->out. Returns the
 * exit status. */
int chaos_trial(struct cli *cli, const struct chaos_options *options, const char *folder);
void chaos_instance_name(const char *folder, char *buffer, size_t size);

/* cli_chaos_daemon.c. Each: 0, or a negative code with words. */
int chaos_daemon_start(struct chaos *chaos, struct error *error);
/* Looks after it: attaches its segment, starts it again when it is dead. */
int chaos_daemon_watch(struct chaos *chaos, struct error *error);
void chaos_daemon_stop(struct chaos *chaos); /* in order */
/* A handle that reads the trial's store; start_number 0 = as when no daemon runs. */
int chaos_store_open(const struct chaos *chaos, uint64_t start_number, struct store **out,
                     struct error *error);
void chaos_segment_leave(struct chaos *chaos); /* takes its counts, and lets go */
bool chaos_interrupted(void);
void chaos_sleep(uint64_t ms); /* or until a signal comes */

/* cli_chaos_strike.c */
void chaos_strike_plan(struct chaos *chaos);     /* the storm begins, or a supervisor came up */
void chaos_strike_due(struct chaos *chaos);      /* deals the blow whose time has come */
void chaos_go_on(struct chaos *chaos, bool all); /* halted processes whose time has come */

/* cli_chaos_count.c: looks at store and witnesses when all is over. */
int chaos_count(struct chaos *chaos, struct error *error);

/* cli_chaos_left.c: counts what still runs of ours, after it had time to go; and ends all of it. */
void chaos_left_look(struct chaos *chaos, uint64_t patience_ms);
void chaos_left_kill(void);

/* cli_chaos_verdict.c: appends the report; true = all is well. */
bool chaos_report(const struct chaos *chaos, bool json, struct json_out *out);

#endif
