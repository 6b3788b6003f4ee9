/* SPDX-License-Identifier: MIT */
/*
 * chaos: runs the storm against the user's own stages. This file asks for leave, finds the programs, and
 * starts the trial in a process of its own, to which everything comes back that the trial starts; when that
 * process is killed all the same, it comes back to us. Runs in eventpipe.
 *
 * Invariants
 *  1. The live instance is not touched: the trial has its own folder, store, socket and instance name.
 *  2. Nothing is left when we end, however the trial's process ended; and when we are killed, it cleans up.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/cli/chaos/chaos.h"
#include "src/stage/stage.h"
#include "src/cli/table.h"

#define SECONDS_DEFAULT 20
#define FOLDER_BYTES_MAX 80 /* so that a socket's name fits */

/* ---- what is asked for ---- */

static int number(const struct cli *cli, enum cli_option_id option, uint64_t least, uint64_t most,
                  uint64_t *out)
{
    const char *text = cli->values[option];
    if (text == NULL)
        return 0;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || value < least || value > most) {
        cli_words("--%s: expected a number from %llu to %llu, found \"%s\"", cli_options[option].name,
                  (unsigned long long)least, (unsigned long long)most, text);
        return CONTROL_USAGE;
    }
    *out = value;
    return 0;
}

/* Beside eventpipe itself, as installed, or wherever PATH says. */
static bool find_daemon(const char *program, char *out, size_t size)
{
    static const char *const beside[] = {"eventpiped", "../sbin/eventpiped"};
    const char *slash = strrchr(program, '/');
    for (size_t i = 0; slash != NULL && i < sizeof beside / sizeof beside[0]; i++) {
        int used = snprintf(out, size, "%.*s/%s", (int)(slash - program), program, beside[i]);
        if (used > 0 && (size_t)used < size && access(out, X_OK) == 0)
            return true;
    }
    const char *path = getenv("PATH");
    for (const char *at = path != NULL ? path : ""; *at != '\0'; at += *at == ':') {
        size_t length = strcspn(at, ":");
        int used = snprintf(out, size, "%.*s/eventpiped", (int)length, at);
        if (length > 0 && used > 0 && (size_t)used < size && access(out, X_OK) == 0)
            return true;
        at += length;
    }
    return false;
}

static int read_options(const struct cli *cli, struct chaos_options *options)
{
    struct error error = {0};
    *options = (struct chaos_options){.seconds = SECONDS_DEFAULT};
    options->only_source = cli->arg_count > 0 ? cli->args[0] : NULL;
    if (getrandom(&options->seed, 4, GRND_NONBLOCK) != 4)
        options->seed = (uint64_t)getpid();
    if (number(cli, CLI_OPTION_SECONDS, 1, 24 * 60 * 60, &options->seconds) != 0 ||
        number(cli, CLI_OPTION_EVENTS, 1, 100000000, &options->events) != 0 ||
        number(cli, CLI_OPTION_SEED, 0, UINT32_MAX, &options->seed) != 0)
        return CONTROL_USAGE;
    ssize_t length = readlink("/proc/self/exe", options->program, sizeof options->program - 1);
    options->program[length > 0 ? length : 0] = '\0';
    if (!find_daemon(options->program, options->daemon, sizeof options->daemon)) {
        cli_words("eventpiped is neither beside eventpipe nor in PATH");
        return CONTROL_NO;
    }
    if (!cli_given(cli, CLI_OPTION_SAMPLE))
        return 0;
    int code = chaos_sample_read(cli->values[CLI_OPTION_SAMPLE], &options->sample, &error);
    if (code != 0)
        cli_words("%s", error.words);
    return code;
}

static const struct source_config *find_source(const struct config *config, const char *id)
{
    for (size_t i = 0; i < config->source_count; i++)
        if (strcmp(config->sources[i].id, id) == 0)
            return &config->sources[i];
    return NULL;
}

/* What would be run, for who has not said yes. */
static int ask_for_leave(const struct cli *cli, const char *only_source)
{
    cli_words(
        "chaos runs these stages of %s for real, over and over, with made-up events, and kills them in the "
        "middle; what they do to the world outside, they do. Say --yes if that may be:",
        cli->config_path);
    for (size_t i = 0; i < cli->config->source_count; i++) {
        const struct source_config *source = &cli->config->sources[i];
        if (only_source != NULL && strcmp(only_source, source->id) != 0)
            continue;
        for (size_t j = 0; j < source->stage_count; j++) {
            const struct stage_config *stage = &source->stages[j];
            struct json_out what = {0};
            for (size_t k = 0; stage->kind == STAGE_EXEC && k < stage->exec.count; k++) {
                json_out_words(&what, " ");
                json_out_words(&what, stage->exec.at[k]);
            }
            const char *other = stage->kind == STAGE_PLUGIN ? stage->plugin
                                : stage->kind == STAGE_HTTP ? stage->url
                                                            : "";
            cli_words("  %s/%s: %s%s%s", source->id, stage->name, stage_kind_name(stage->kind),
                      what.text != NULL ? what.text : " ", other);
            json_out_free(&what);
        }
    }
    return CONTROL_USAGE;
}

/* A stage that cannot start on this machine would only let its events wait, or crash, for hours. */
static int check_stages(const struct config *config, const char *only_source)
{
    int status = 0;
    for (size_t i = 0; i < config->source_count; i++) {
        const struct source_config *source = &config->sources[i];
        for (size_t j = 0; j < source->stage_count; j++) {
            struct error error = {0};
            if ((only_source != NULL && strcmp(only_source, source->id) != 0) ||
                stage_check(&source->stages[j], &error) == EP_OK)
                continue;
            cli_words("%s/%s: %s", source->id, source->stages[j].name, error.words);
            status = CONTROL_NO;
        }
    }
    return status;
}

static int check(const struct cli *cli)
{
    const char *only_source = cli->arg_count > 0 ? cli->args[0] : NULL;
    if (cli->config == NULL) {
        cli_words(cli->config_path == NULL ? "which configuration? Give -c FILE"
                                           : "the configuration has problems: eventpipe check lists them");
        return CONTROL_USAGE;
    }
    if (only_source != NULL && find_source(cli->config, only_source) == NULL) {
        cli_words("there is no source \"%s\" in %s", only_source, cli->config_path);
        return CONTROL_USAGE;
    }
    return cli_given(cli, CLI_OPTION_YES) ? check_stages(cli->config, only_source)
                                          : ask_for_leave(cli, only_source);
}

/* ---- the folder ---- */

static int make_folder(char *out, size_t size)
{
    const char *base = getenv("TMPDIR");
    if (base == NULL || base[0] != '/' || strlen(base) + sizeof "/eventpipe-chaos.XXXXXX" > FOLDER_BYTES_MAX)
        base = "/tmp";
    snprintf(out, size, "%s/eventpipe-chaos.XXXXXX", base);
    if (mkdtemp(out) != NULL)
        return 0;
    cli_words("%s: %s", out, strerror(errno));
    return CONTROL_NO;
}

/* Made from the folder's own name, which nobody else has. */
void chaos_instance_name(const char *folder, char *buffer, size_t size)
{
    const char *dot = strrchr(folder, '.');
    snprintf(buffer, size, "chaos-%.16s-%d", dot != NULL ? dot + 1 : "", getuid());
}

static void remove_folder(const char *folder)
{
    DIR *open_folder = opendir(folder);
    for (struct dirent *entry; open_folder != NULL && (entry = readdir(open_folder)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(dirfd(open_folder), entry->d_name, 0);
    if (open_folder != NULL)
        closedir(open_folder);
    rmdir(folder);
}

/* ---- the trial's process ---- */

static void become_trial(struct cli *cli, const struct chaos_options *options, const char *folder,
                         pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0); /* blocked: the trial reads it, and cleans up */
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    setsid();
    if (getppid() != parent)
        raise(SIGTERM);
    signal(SIGPIPE, SIG_IGN);
    int status = chaos_trial(cli, options, folder);
    if (getppid() != parent) { /* nobody is left who would */
        char instance[SHM_NAME_BYTES];
        chaos_instance_name(folder, instance, sizeof instance);
        segment_unlink(instance);
        remove_folder(folder);
    }
    _exit(cli_out_end(cli, status));
}

/* Until it has ended; what we are told, it is told. */
static int wait_for(pid_t pid, const sigset_t *signals)
{
    int status;
    for (;;) {
        pid_t ended = waitpid(pid, &status, WNOHANG);
        if (ended == pid)
            break;
        if (ended < 0 && errno == ECHILD) {
            cli_words("the trial has ended, and how is not known");
            return CONTROL_NO;
        }
        int number = sigwaitinfo(signals, NULL);
        if (number > 0 && number != SIGCHLD)
            kill(pid, SIGTERM);
    }
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    cli_words("the trial was ended by signal %d: nothing is left of it", WTERMSIG(status));
    return CONTROL_NO;
}

static int run(struct cli *cli, const struct chaos_options *options, const char *folder)
{
    sigset_t signals, before;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, &before);
    signal(SIGCHLD,
           SIG_DFL); /* whoever started us may ignore it: the trial would be reaped behind our back */
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    fflush(NULL);
    pid_t self = getpid(), pid = fork();
    if (pid == 0)
        become_trial(cli, options, folder, self);
    int status = CONTROL_NO;
    if (pid < 0)
        cli_words("cannot fork: %s", strerror(errno));
    else
        status = wait_for(pid, &signals);
    chaos_left_kill();
    sigprocmask(SIG_SETMASK, &before, NULL);
    return status;
}

int cli_chaos(struct cli *cli)
{
    struct chaos_options options;
    char folder[CHAOS_PATH_BYTES], instance[SHM_NAME_BYTES];
    int code = check(cli);
    if (code == 0)
        code = read_options(cli, &options);
    if (code != 0)
        return code;
    code = make_folder(folder, sizeof folder);
    if (code == 0) {
        cli_words("a storm of %llu s over the stages of %s, seed %llu, in %s",
                  (unsigned long long)options.seconds, cli->config_path, (unsigned long long)options.seed,
                  folder);
        code = run(cli, &options, folder);
        chaos_instance_name(folder, instance, sizeof instance);
        segment_unlink(instance);
        remove_folder(folder);
    }
    chaos_sample_free(&options.sample);
    return code;
}
