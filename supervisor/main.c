/* SPDX-License-Identifier: MIT */
/*
 * eventpiped: reads the command line and the configuration, then is the supervisor until the instance stops.
 *
 * The processes of an instance; each is forked by the supervisor, and restarted when it crashes:
 *
 *   eventpiped               one loop; holds the store's lock, the segment, the control socket (supervisor.c)
 *    +- keeper               starts first, stops last: maintains the store (src/process/keeper.c)
 *    +- SOURCE/STAGE[0..N-1] workers; a stage's workers share a process group (src/process/worker.c)
 *    +- producer SOURCE      fetches and stores events (src/process/producer.c)
 *
 * Rings in the segment join them; each worker pushes into the next stage's ring:
 *
 *   producer --ring--> stage 1 --ring--> stage 2 ... --ring--> last stage
 *
 * Fatal: a wrong command line or configuration; what supervisor.c names.
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

/* WRONG_INPUT: command line or configuration. A restart would not help, so the unit file prevents it. */
enum exit_status { STOPPED_CLEANLY = 0, FAILED = 1, WRONG_INPUT = 2 };

struct arguments {
    const char *config_path;
    bool check_only;
};

static const char usage[] = "usage: eventpiped [-c FILE] [-t]\n"
                            "  -c FILE  read this configuration (default " EVENTPIPED_CONFIG ")\n"
                            "  -t       check the configuration and exit\n"
                            "  -h       show this help and exit\n"
                            "  -V       show version and exit\n";

/* Reads the command line of eventpiped, the supervisor. Returns the exit status if there is nothing left
 * to do (help, version, an error), or -1 to go on. */
static int read_arguments(int argc, char **argv, struct arguments *arguments)
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
            return STOPPED_CLEANLY;
        case 'V':
            puts("eventpiped " PACKAGE_VERSION);
            return STOPPED_CLEANLY;
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

/* Prints one problem of the configuration file as compilers do: "file:line: key: message". eventpiped's
 * main calls it while it reads and checks the file. */
static void on_config_problem(const struct config_problem *problem, void *user)
{
    (void)user;
    fprintf(stderr, "%s:", problem->file);
    if (problem->line > 0)
        fprintf(stderr, "%u:", problem->line);
    if (problem->key[0] != '\0')
        fprintf(stderr, " %s:", problem->key);
    fprintf(stderr, " %s\n", problem->message);
}

/* Checks on this machine what producers and workers need to start (programs, plugins, files), and
 * prints what is missing. Returns whether all is there. `eventpiped -t` calls it. */
static bool check_sources_and_stages(const struct config *config)
{
    bool all_found = true;
    for (size_t source_index = 0; source_index < config->source_count; source_index++) {
        struct error source_error = {0};
        if (source_check(&config->sources[source_index], &source_error) != 0) {
            fprintf(stderr, "%s: %s\n", config->path, source_error.message);
            all_found = false;
        }
        for (size_t stage_index = 0; stage_index < config->sources[source_index].stage_count; stage_index++) {
            const struct stage_config *stage = &config->sources[source_index].stages[stage_index];
            struct error stage_error = {0};
            if (stage_check(stage, &stage_error) == 0)
                continue;
            fprintf(stderr, "%s: %s/%s: %s\n", config->path, config->sources[source_index].id, stage->name,
                    stage_error.message);
            all_found = false;
        }
    }
    return all_found;
}

/* Opens descriptors 0 to 2 on /dev/null if they are closed. eventpiped's main calls it before it opens
 * anything else: otherwise a socket or pipe would get the number of standard error, and log lines would
 * go there. */
static void open_standard_descriptors(void)
{
    for (int fd = open("/dev/null", O_RDWR); fd >= 0; fd = open("/dev/null", O_RDWR))
        if (fd > STDERR_FILENO) {
            close(fd);
            return;
        }
}

/* Checks the configuration, the store and what sources and stages need, and starts nothing. Returns the
 * exit status. main calls it for `eventpiped -t`. */
static int check_configuration(const struct config *config)
{
    bool are_rights_good = config_rights_check(config, on_config_problem, NULL) == 0;
    bool is_storage_good = config_check_storage(config, on_config_problem, NULL) == 0;
    bool is_all_good = check_sources_and_stages(config) && are_rights_good && is_storage_good;
    if (is_all_good)
        puts("configuration ok");
    return is_all_good ? STOPPED_CLEANLY : FAILED;
}

/* Runs the instance in eventpiped: the supervisor forks keeper, workers and producers, and returns when
 * all have exited. Returns the exit status. */
static int run_instance(struct config *config)
{
    if (config_rights_check(config, on_config_problem, NULL) != 0)
        return WRONG_INPUT;
    config_hide_tokens(config);
    base_log_open(config->log_level, NULL, NULL);
    base_log_set_name("supervisor");
    struct supervisor_options options = {.config = config, .daemon = true};
    struct error error = {0};
    int result = supervisor_run(&options, &error);
    if (result != 0)
        base_log_error("failed error=\"%s\"", error.message);
    return result == 0 ? STOPPED_CLEANLY : FAILED;
}

/* eventpiped, the supervisor: reads the command line and the configuration file, then checks the
 * configuration (-t) or runs the instance until it stops. */
int main(int argc, char **argv)
{
    process_enable_titles(argc, argv);
    open_standard_descriptors();
    struct arguments arguments;
    int status = read_arguments(argc, argv, &arguments);
    if (status >= 0)
        return status;

    struct config *config;
    if (config_read(arguments.config_path, on_config_problem, NULL, &config) != 0)
        return arguments.check_only ? FAILED : WRONG_INPUT;
    status = arguments.check_only ? check_configuration(config) : run_instance(config);
    config_close(&config);
    return status;
}
