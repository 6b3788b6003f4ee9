/* SPDX-License-Identifier: MIT */
/*
 * A trial from its beginning to its end: the daemon comes up, events go in, the storm rages, the rest comes
 * through in peace, the daemon ends in order, and what became of each event is counted. Runs in a process of
 * its own, with a session and a folder of its own, to which everything that it starts comes back.
 *
 * Fatal: a daemon that does not come up, a folder that cannot be written. A signal ends the trial early, and
 * leaves nothing.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "shm/slot.h"
#include "src/cli/chaos/chaos.h"

#define NS_PER_MS UINT64_C(1000000)
#define TURN_MS 5
#define LOOK_MS 50        /* between two looks at the store */
#define WINDOW_MS 500     /* between two judgements of how fast events go through */
#define PATIENCE_MS 60000 /* without any sign of progress */
#define DELAYED_MS 15000  /* without an end, while all that is left was put off by a stage */
#define FELLING_PATIENCE_MS 30000
#define LEAVING_MS 5000 /* for processes that are on their way out */

static bool interrupted;

bool chaos_interrupted(void)
{
    return interrupted;
}

void chaos_sleep(uint64_t ms)
{
    const struct timespec pause = {(time_t)(ms / 1000), (long)(ms % 1000 * 1000000)};
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGINT);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGHUP);
    if (sigtimedwait(&ending, NULL, &pause) > 0)
        interrupted = true;
}

/* ---- what goes in, and how far it has come ---- */

struct progress {                                /* of all sources together */
    uint64_t fed, fetched, live, delayed, stuck; /* stuck: held or dead */
    uint64_t ended, moved;
};

struct trial {
    struct chaos chaos;
    struct store *store; /* NULL until the daemon has made it */
    struct progress progress;
    uint64_t storm_until_ns, looked_ns, judged_ns;
    uint64_t last_sign_ns, last_end_ns;
};

static int64_t source_id(const struct chaos *chaos, size_t index)
{
    return atomic_load(&segment_source(&chaos->segment, (uint32_t)index)->store_id);
}

/* What the processes have done, where the store does not show it. */
static uint64_t work_done(const struct chaos *chaos)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < chaos->segment.header->slot_count; i++) {
        const struct shm_slot *slot = segment_slot(&chaos->segment, i);
        sum += atomic_load(&slot->calls) + atomic_load(&slot->commits);
    }
    return sum;
}

static bool wants_more(const struct trial *trial, const struct chaos_source *source, bool storm,
                       uint64_t *most)
{
    const struct chaos_options *options = trial->chaos.options;
    uint64_t so_far = source->feed.count;
    *most = storm ? UINT64_MAX : 0;
    if (options->events > 0 && storm) { /* spread over the storm */
        uint64_t passed_ms = (shm_now_ns() - trial->chaos.started_ns) / NS_PER_MS;
        uint64_t due =
            1 + (uint64_t)((double)options->events * (double)passed_ms / (double)options->seconds / 1000);
        due = due < options->events ? due : options->events;
        *most = due > so_far ? due - so_far : 0;
    } else if (options->events > 0) {
        *most = options->events - so_far;
    }
    return *most > 0;
}

static int feed(struct trial *trial, struct chaos_source *source, const struct store_totals *totals,
                bool storm, bool judge, struct error *error)
{
    uint64_t ended = totals->finished + totals->removed + totals->discarded + totals->dead, most;
    uint64_t on_the_way = source->feed.count > ended ? source->feed.count - ended : 0;
    if (judge) {
        source->window = chaos_window(source->window, ended - source->ended_before);
        source->ended_before = ended;
    }
    if (!wants_more(trial, source, storm, &most) || on_the_way >= source->window)
        return EP_OK;
    uint64_t room = source->window - on_the_way;
    return chaos_feed_write(&source->feed, room < most ? room : most, error);
}

/* Looks at the store, and feeds what may be fed. */
static int look(struct trial *trial, bool storm, struct error *error)
{
    struct chaos *chaos = &trial->chaos;
    uint64_t now_ns = shm_now_ns();
    struct progress found = {0}, *before = &trial->progress;
    if (chaos->segment.header == NULL || now_ns - trial->looked_ns < LOOK_MS * NS_PER_MS)
        return EP_OK;
    trial->looked_ns = now_ns;
    bool judge = now_ns - trial->judged_ns >= WINDOW_MS * NS_PER_MS;
    if (judge)
        trial->judged_ns = now_ns;
    struct error passing;
    if (trial->store == NULL &&
        chaos_store_open(chaos, chaos->start_number, &trial->store, &passing) != EP_OK)
        return EP_OK; /* not made yet, or in the hands of recovery: next time */
    for (size_t i = 0; i < chaos->source_count; i++) {
        struct store_totals totals;
        struct chaos_source *source = &chaos->sources[i];
        if (store_source_totals(trial->store, source_id(chaos, i), &totals) != EP_OK)
            return EP_OK;
        int code = feed(trial, source, &totals, storm, judge, error);
        if (code != EP_OK)
            return code;
        found.fed += source->feed.count;
        found.live += totals.live;
        found.fetched += totals.fetched;
        found.delayed += totals.delayed;
        found.stuck += totals.held + totals.dead;
        found.ended += totals.finished + totals.removed + totals.discarded + totals.dead;
    }
    found.moved = found.fetched + found.ended + work_done(chaos);
    if (found.ended != before->ended)
        trial->last_end_ns = now_ns;
    if (found.moved != before->moved)
        trial->last_sign_ns = now_ns;
    *before = found;
    return EP_OK;
}

static int turn(struct trial *trial, bool storm, struct error *error)
{
    int code = chaos_daemon_watch(&trial->chaos, error);
    if (code == EP_OK)
        code = look(trial, storm, error);
    if (code == EP_OK && storm)
        chaos_strike_due(&trial->chaos);
    chaos_go_on(&trial->chaos, false);
    chaos_sleep(TURN_MS);
    if (code == EP_OK && interrupted)
        return error_set(error, EP_ESTATE, "interrupted: nothing is left of the trial");
    return code;
}

/* ---- its parts ---- */

static int come_up(struct trial *trial, struct error *error)
{
    int code = chaos_daemon_start(&trial->chaos, error);
    while (code == EP_OK && !trial->chaos.up)
        code = turn(trial, false, error);
    return code;
}

/* Events went in, and the supervisor has died once. */
static bool has_raged(const struct trial *trial)
{
    const uint64_t *blows = trial->chaos.blows;
    return trial->progress.fed > 0 && blows[CHAOS_SUPERVISOR] + blows[CHAOS_FAMILY] > 0;
}

/* As long as was asked for; on a machine that is busy with other things until the supervisor has died once.
 */
static int storm(struct trial *trial, struct error *error)
{
    struct chaos *chaos = &trial->chaos;
    int code = EP_OK;
    chaos->started_ns = shm_now_ns();
    trial->storm_until_ns = chaos->started_ns + chaos->options->seconds * 1000 * NS_PER_MS;
    uint64_t last_ns = trial->storm_until_ns + FELLING_PATIENCE_MS * NS_PER_MS;
    chaos_strike_plan(chaos);
    while (code == EP_OK &&
           (shm_now_ns() < trial->storm_until_ns || (!has_raged(trial) && shm_now_ns() < last_ns)))
        code = turn(trial, true, error);
    chaos->storm_ms = (shm_now_ns() - chaos->started_ns) / NS_PER_MS;
    return code;
}

static bool all_fed(const struct trial *trial)
{
    for (size_t i = 0; i < trial->chaos.source_count; i++)
        if (trial->chaos.sources[i].feed.count < trial->chaos.options->events)
            return false;
    return true;
}

static uint64_t patience_ms(const struct chaos *chaos)
{
    uint64_t longest_ms = 0;
    for (uint32_t i = 0; i < chaos->segment.header->stage_count; i++) {
        uint64_t timeout_ms = segment_stage(&chaos->segment, i)->timeout_ms;
        longest_ms = timeout_ms > longest_ms ? timeout_ms : longest_ms;
    }
    return PATIENCE_MS + longest_ms;
}

/* What is still on its way comes through; until nothing moves any more. */
static int rest(struct trial *trial, struct error *error)
{
    struct chaos *chaos = &trial->chaos;
    const struct progress *progress = &trial->progress;
    uint64_t began_ns = shm_now_ns();
    int code = EP_OK;
    chaos_go_on(chaos, true);
    trial->last_sign_ns = trial->last_end_ns = began_ns;
    while (code == EP_OK && !chaos->settled) {
        code = turn(trial, false, error);
        uint64_t now_ns = shm_now_ns();
        if (chaos->segment.header == NULL || !chaos->up || trial->looked_ns < began_ns)
            continue;
        /* Not all may have gone in: what a stage puts off for ever keeps the rest of them out. */
        bool fetched = progress->fetched >= progress->fed;
        chaos->settled = all_fed(trial) && fetched && progress->live == progress->stuck;
        bool put_off = fetched && progress->live == progress->stuck + progress->delayed &&
                       now_ns - trial->last_end_ns > DELAYED_MS * NS_PER_MS;
        bool still = now_ns - trial->last_sign_ns > patience_ms(chaos) * NS_PER_MS ||
                     now_ns - trial->last_end_ns > 2 * patience_ms(chaos) * NS_PER_MS;
        if (put_off || still)
            break;
    }
    chaos->rest_ms = (shm_now_ns() - began_ns) / NS_PER_MS;
    return code;
}

static void end(struct trial *trial)
{
    struct chaos *chaos = &trial->chaos;
    struct segment found = {.fd = -1};
    store_close(&trial->store);
    chaos_daemon_stop(chaos);
    chaos_left_look(chaos, LEAVING_MS);
    chaos_left_kill();
    int code = segment_attach(chaos->instance, &found);
    chaos->left_segment = code != -ENOENT;
    if (code == 0)
        segment_close(&found);
    chaos->left_socket = access(chaos->control, F_OK) == 0;
}

/* ---- the whole ---- */

/* Our environment is what the daemon and the stages get. */
static void clear_environment(const struct config *user, const struct config *trial)
{
    static const char *const manager[] = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
                                          "LISTEN_FDS",    "LISTEN_PID",    "LISTEN_FDNAMES"};
    for (size_t i = 0; i < sizeof manager / sizeof manager[0]; i++)
        unsetenv(manager[i]);
    for (size_t i = 0; i < user->token_variables.count; i++) {
        bool wanted = false;
        for (size_t j = 0; j < trial->token_variables.count; j++)
            wanted = wanted || strcmp(user->token_variables.at[i], trial->token_variables.at[j]) == 0;
        if (!wanted) /* a real source's token: no stage is to see it */
            unsetenv(user->token_variables.at[i]);
    }
    setenv("EVENTPIPE_CHAOS", "1", 1);
}

struct problem {
    const char *path;
    struct error *error;
};

static void note_problem(const struct config_problem *problem, void *user)
{
    struct problem *first = user;
    if (first->error->code == 0)
        error_set(first->error, EP_ECONFIG, "the configuration of the trial: %s: %s", problem->key,
                  problem->words);
}

static int prepare_source(struct chaos *chaos, size_t place, const struct source_config *config,
                          struct chaos_source *source, struct error *error)
{
    struct chaos_count *count = &source->count;
    snprintf(count->id, sizeof count->id, "%s", config->id);
    count->stages = calloc(config->stage_count + 1, sizeof *count->stages);
    if (count->stages == NULL)
        return error_set(error, EP_ENOMEM, "out of memory");
    for (size_t i = 0; i < config->stage_count; i++)
        snprintf(count->stages[count->stage_count++].name, SHM_NAME_BYTES, "%s", config->stages[i].name);
    chaos_feed_path(chaos->folder, place, source->feed.path, sizeof source->feed.path);
    chaos_witness_path(chaos->folder, place, source->witness, sizeof source->witness);
    source->feed.sample = &chaos->options->sample;
    source->feed.size_bytes = config->type == SOURCE_GENERATE ? config->generate.size_bytes : 220;
    source->window = chaos_window(0, 0);
    return chaos_feed_open(&source->feed, error);
}

static int prepare(struct chaos *chaos, struct error *error)
{
    const struct config *user = chaos->cli->config;
    const struct chaos_config trial = {.user_path = chaos->cli->config_path,
                                       .instance = chaos->instance,
                                       .storage = chaos->storage,
                                       .control = chaos->control,
                                       .program = chaos->options->program,
                                       .only_source = chaos->options->only_source,
                                       .folder = chaos->folder};
    struct problem problem = {chaos->config_path, error};
    struct config *read = NULL;
    int code = chaos_config_write(&trial, chaos->config_path, error);
    if (code == EP_OK)
        code = config_read(chaos->config_path, note_problem, &problem, &read);
    if (code != EP_OK)
        return code;
    clear_environment(user, read);
    config_close(&read);
    chaos->sources = calloc(user->source_count, sizeof *chaos->sources);
    if (chaos->sources == NULL)
        return error_set(error, EP_ENOMEM, "out of memory");
    for (size_t i = 0; code == EP_OK && i < user->source_count; i++)
        if (chaos->options->only_source == NULL ||
            strcmp(user->sources[i].id, chaos->options->only_source) == 0)
            code = prepare_source(chaos, i, &user->sources[i], &chaos->sources[chaos->source_count++], error);
    return code;
}

static void release(struct chaos *chaos)
{
    for (size_t i = 0; i < chaos->source_count; i++) {
        chaos_feed_close(&chaos->sources[i].feed);
        free(chaos->sources[i].count.stages);
    }
    free(chaos->sources);
}

int chaos_trial(struct cli *cli, const struct chaos_options *options, const char *folder)
{
    struct trial trial = {
        .chaos = {.cli = cli, .options = options, .dice = {options->seed}, .segment = {.fd = -1}}};
    struct chaos *chaos = &trial.chaos;
    struct error error = {0};
    snprintf(chaos->folder, sizeof chaos->folder, "%s", folder);
    snprintf(chaos->config_path, sizeof chaos->config_path, "%.400s/trial.yaml", folder);
    snprintf(chaos->log_path, sizeof chaos->log_path, "%.400s/log", folder);
    snprintf(chaos->control, sizeof chaos->control, "%.400s/control", folder);
    snprintf(chaos->storage, sizeof chaos->storage, "sqlite:%.400s/store.db", folder);
    chaos_instance_name(folder, chaos->instance, sizeof chaos->instance);
    int code = prepare(chaos, &error);
    if (code == EP_OK)
        code = come_up(&trial, &error);
    if (code == EP_OK)
        code = storm(&trial, &error);
    if (code == EP_OK)
        code = rest(&trial, &error);
    if (code == EP_OK) {
        end(&trial);
        code = interrupted ? error_set(&error, EP_ESTATE, "interrupted: nothing is left of the trial")
                           : chaos_count(chaos, &error);
    }
    store_close(&trial.store);
    chaos_go_on(chaos, true);
    chaos_left_kill();
    bool good = code == EP_OK && chaos_report(chaos, cli_given(cli, CLI_OPTION_JSON), &cli->out);
    if (code != EP_OK)
        cli_words("%s", error.words);
    chaos_segment_leave(chaos);
    release(chaos);
    return good ? CONTROL_DONE : CONTROL_NO;
}
