/* SPDX-License-Identifier: MIT */
/*
 * eventpiped: the command line, the configuration, then the supervisor for the rest of its life.
 *
 *   eventpiped (supervisor.c)   one loop; holds the store's lock, the control socket, the segment
 *    +- keeper (src/process/keeper.c)   first and last: prepares the store; upkeep, totals, the operators'
 *    requests +- SOURCE/STAGE[0..N-1]    workers (src/process/worker.c), one process group a stage
 *    +- producer SOURCE         (src/process/producer.c) fetches, stores, injects into its first stages'
 *    rings
 *
 *   producer --ring--> stage 1 --ring--> stage 2 ... --ring--> last stage; each worker pushes into the next
 * stage's ring
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "src/base/log.h"
#include "src/config/config.h"
#include "src/process/process.h"
#include "src/source/source.h"
#include "src/stage/stage.h"
#include "supervisor/supervisor.h"

#ifndef PACKAGE_VERSION
#define PACKAGE_VERSION "unknown"
#endif
#ifndef EVENTPIPED_CONFIG
#define EVENTPIPED_CONFIG "/etc/eventpipe/eventpipe.yaml"
#endif

/* WRONG_INPUT: of the command line or the configuration; no restart heals it, so the unit file asks for none.
 */
enum exit_status { STOPPED_IN_ORDER = 0, FAILED = 1, WRONG_INPUT = 2 };

struct arguments {
    const char *config_path;
    bool check_only;
};

static const char usage[] = "usage: eventpiped [-c FILE] [-t]\n"
                            "  -c FILE  configuration, " EVENTPIPED_CONFIG " if not given\n"
                            "  -t       check the configuration and end\n"
                            "  -h       this help\n"
                            "  -V       version\n";

/* -1: go on; otherwise the exit status. */
static int arguments_read(int argc, char **argv, struct arguments *arguments)
{
    *arguments = (struct arguments){.config_path = EVENTPIPED_CONFIG};
    for (int option; (option = getopt(argc, argv, "c:thV")) != -1;) {
        switch (option) {
        case 'c':
            arguments->config_path = optarg;
            break;
        case 't':
            arguments->check_only = true;
            break;
        case 'h':
            fputs(usage, stdout);
            return STOPPED_IN_ORDER;
        case 'V':
            puts("eventpiped " PACKAGE_VERSION);
            return STOPPED_IN_ORDER;
        default:
            fputs(usage, stderr);
            return WRONG_INPUT;
        }
    }
    if (optind == argc)
        return -1;
    fprintf(stderr, "eventpiped: unexpected argument \"%s\"\n%s", argv[optind], usage);
    return WRONG_INPUT;
}

/* file:line: key: message, as compilers do */
static void report(const struct config_problem *problem, void *user)
{
    (void)user;
    fprintf(stderr, "%s:", problem->file);
    if (problem->line > 0)
        fprintf(stderr, "%u:", problem->line);
    if (problem->key[0] != '\0')
        fprintf(stderr, " %s:", problem->key);
    fprintf(stderr, " %s\n", problem->message);
}

/* Looks at what producers and workers would only find out when they start. */
static bool check_machine(const struct config *config)
{
    bool good = true;
    for (size_t i = 0; i < config->source_count; i++) {
        struct error wrong = {0};
        if (source_check(&config->sources[i], &wrong) != 0) {
            fprintf(stderr, "%s: %s\n", config->path, wrong.message);
            good = false;
        }
        for (size_t s = 0; s < config->sources[i].stage_count; s++) {
            const struct stage_config *stage = &config->sources[i].stages[s];
            struct error error = {0};
            if (stage_check(stage, &error) == 0)
                continue;
            fprintf(stderr, "%s: %s/%s: %s\n", config->path, config->sources[i].id, stage->name,
                    error.message);
            good = false;
        }
    }
    return good;
}

/* Descriptors 0 to 2 must be taken, or the first pipe would be somebody's standard error. */
static void open_standard_descriptors(void)
{
    for (int fd = open("/dev/null", O_RDWR); fd >= 0; fd = open("/dev/null", O_RDWR))
        if (fd > STDERR_FILENO) {
            close(fd);
            return;
        }
}

int main(int argc, char **argv)
{
    process_titles(argc, argv);
    open_standard_descriptors();
    struct arguments arguments;
    int status = arguments_read(argc, argv, &arguments);
    if (status >= 0)
        return status;

    struct config *config;
    if (config_read(arguments.config_path, report, NULL, &config) != 0)
        return arguments.check_only ? FAILED : WRONG_INPUT;
    bool permitted = config_rights_check(config, report, NULL) == 0;
    if (arguments.check_only) {
        bool stored = config_check_storage(config, report, NULL) == 0;
        bool good = check_machine(config) && permitted && stored;
        if (good)
            puts("configuration ok");
        config_close(&config);
        return good ? STOPPED_IN_ORDER : FAILED;
    }

    if (!permitted) {
        config_close(&config);
        return WRONG_INPUT;
    }
    config_hide_tokens(config);
    base_log_open(config->log_level, NULL, NULL);
    base_log_name("supervisor");
    struct supervisor_options options = {.config = config, .daemon = true};
    struct error error = {0};
    int result = supervisor_run(&options, &error);
    if (result != 0)
        base_log_error("failed error=\"%s\"", error.message);
    config_close(&config);
    return result == 0 ? STOPPED_IN_ORDER : FAILED;
}
