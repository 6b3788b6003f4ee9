/* SPDX-License-Identifier: MIT */
/*
 * The daemon of a trial: started as a service manager would, started again whenever it was felled, ended in
 * order. Runs in `eventpipe chaos`, the daemon's parent.
 *
 * Invariants
 *  1. Nobody but us hears of it: no service manager, and no other instance's name or socket.
 *  2. It cannot outlive us.
 *  3. A death that nobody dealt is counted, and so is one before it was at work, after which there is no
 * trial.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/slot.h"
#include "src/cli/chaos/chaos.h"

#define NS_PER_MS UINT64_C(1000000)
#define START_PATIENCE_MS 120000
#define UNASKED_MOST 5 /* deaths of its own, until it is not worth going on */

static void become(const struct chaos *chaos, pid_t parent)
{
    sigset_t none;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    int log = open(chaos->log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (log < 0 || nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0 ||
        dup2(log, STDERR_FILENO) < 0)
        _exit(127);
    setpgid(0, 0);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execl(chaos->options->daemon, "eventpiped", "-c", chaos->config_path, (char *)NULL);
    fprintf(stderr, "%s: %s\n", chaos->options->daemon, strerror(errno));
    _exit(127);
}

int chaos_daemon_start(struct chaos *chaos, struct error *error)
{
    pid_t self = getpid(), pid = fork();
    if (pid == 0)
        become(chaos, self);
    if (pid < 0)
        return error_set(error, EP_ESYSTEM, "cannot fork: %s", strerror(errno));
    chaos->daemon = pid;
    chaos->up = false;
    chaos->born_ns = shm_now_ns();
    return EP_OK;
}

/* The calls of a life of the family, which end with its segment. */
void chaos_segment_leave(struct chaos *chaos)
{
    struct segment *segment = &chaos->segment;
    if (segment->header == NULL)
        return;
    for (uint32_t i = 0; i < segment->header->slot_count; i++) {
        const struct shm_slot *slot = segment_slot(segment, i);
        if (slot->kind != SHM_KIND_WORKER || slot->source >= chaos->source_count)
            continue;
        struct chaos_count *count = &chaos->sources[slot->source].count;
        uint32_t position = segment_stage(segment, slot->stage)->position;
        if (position < count->stage_count)
            count->stages[position].calls += atomic_load(&slot->calls);
    }
    segment_close(segment);
    *segment = (struct segment){.fd = -1};
}

static bool is_up(struct chaos *chaos)
{
    struct segment found = {.fd = -1};
    if (segment_attach(chaos->instance, &found) != 0)
        return false;
    if (found.header->supervisor_pid != chaos->daemon || atomic_load(&found.header->prepared) == 0 ||
        atomic_load(&found.header->phase) != SHM_PHASE_RUNNING) {
        segment_close(&found);
        return false;
    }
    chaos_segment_leave(chaos);
    chaos->segment = found;
    chaos->start_number = atomic_load(&found.header->start_number);
    return true;
}

/* The last lines of its log. */
static void last_words(const struct chaos *chaos, char *words, size_t size)
{
    FILE *file = fopen(chaos->log_path, "re");
    words[0] = '\0';
    if (file == NULL)
        return;
    if (fseek(file, 0, SEEK_END) == 0) {
        long end = ftell(file);
        fseek(file, end > (long)size - 1 ? end - (long)size + 1 : 0, SEEK_SET);
        words[fread(words, 1, size - 1, file)] = '\0';
    }
    fclose(file);
    size_t length = strlen(words);
    if (length > 0 && words[length - 1] == '\n')
        words[length - 1] = '\0';
}

static int has_died(struct chaos *chaos, int status, struct error *error)
{
    bool was_up = chaos->up, asked = chaos->felled;
    char words[700];
    chaos->daemon = 0;
    chaos->up = false;
    chaos_go_on(chaos, true);
    if (!asked)
        chaos->unasked++;
    if ((!was_up && !asked) || chaos->unasked >= UNASKED_MOST) {
        last_words(chaos, words, sizeof words);
        return error_set(error, EP_ESYSTEM, "the trial's daemon ended by itself (%s %d); its last words: %s",
                         WIFSIGNALED(status) ? "signal" : "exit status",
                         WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), words);
    }
    if (!was_up)
        chaos_sleep(100); /* the family before it is still on its way out */
    return chaos_daemon_start(chaos, error);
}

int chaos_daemon_watch(struct chaos *chaos, struct error *error)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == chaos->daemon) {
            int code = has_died(chaos, status, error);
            if (code != EP_OK)
                return code;
        }
    if (chaos->up)
        return EP_OK;
    if (is_up(chaos)) {
        chaos->up = true;
        chaos->felled = false;
        chaos_strike_plan(chaos);
    } else if (shm_now_ns() - chaos->born_ns > START_PATIENCE_MS * NS_PER_MS) {
        char words[700];
        last_words(chaos, words, sizeof words);
        return error_set(error, EP_ESYSTEM, "the trial's daemon does not come up; its last words: %s", words);
    }
    return EP_OK;
}

void chaos_daemon_stop(struct chaos *chaos)
{
    uint64_t drain_ms = chaos->cli->config->drain_timeout_ms;
    uint64_t until = shm_now_ns() + (START_PATIENCE_MS + drain_ms) * NS_PER_MS;
    int status = 0;
    if (chaos->daemon <= 0)
        return;
    kill(chaos->daemon, SIGTERM);
    for (pid_t pid;;) {
        while ((pid = waitpid(-1, &status, WNOHANG)) > 0 && pid != chaos->daemon)
            continue;
        if (pid == chaos->daemon) {
            chaos->ended_in_order = WIFEXITED(status) && WEXITSTATUS(status) == 0;
            break;
        }
        if (shm_now_ns() > until || chaos_interrupted())
            break;
        chaos_sleep(20);
    }
    chaos->daemon = 0;
    chaos_segment_leave(chaos);
}

int chaos_store_open(const struct chaos *chaos, uint64_t start_number, struct store **out,
                     struct error *error)
{
    struct store_options options = {.url = chaos->storage,
                                    .instance = chaos->instance,
                                    .readonly = true,
                                    .start_number = start_number};
    return store_open(&options, out, error);
}
