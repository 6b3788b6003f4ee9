/* SPDX-License-Identifier: MIT */
/*
 * Checks whether this process may do what the configuration says: run stages as other users and within
 * their limits, and write to the store's directory. Runs in the supervisor before it starts anything. An
 * operator's command reads the same file without these rights, so this is not part of config_validate.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <pwd.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/config/config.h"
#include "src/config/limits.h"
#include "src/config/user.h"

/* Reports a problem with a stage's user, group or limits, with the line in the configuration file. The
 * message begins with its key; `within` is "" or the mapping that contains the key. Runs in the supervisor
 * before it forks. */
static void report_stage_problem(const struct config *config, size_t source, size_t stage, const char *within,
                                 const char *message, config_report *report, void *user)
{
    const struct stage_config *found = &config->sources[source].stages[stage];
    const char *colon = strchr(message, ':');
    char key[160];

    snprintf(key, sizeof key, "sources[%zu].stages[%zu].%s%.*s", source, stage, within,
             (int)(colon - message), message);
    const struct config_problem problem = {
        .file = config->path != NULL ? config->path : "",
        .line = within[0] != '\0'                  ? found->limits_line
                : strncmp(message, "user", 4) == 0 ? found->user_line
                                                   : found->group_line,
        .key = key,
        .message = colon + 2,
    };
    if (report != NULL)
        report(&problem, user);
}

/* Checks whether this process may run every stage of the configuration as its user and within its limits.
 * Reports each problem; returns 0 or EP_ECONFIG. The supervisor calls it before it forks anything, and so
 * does `eventpiped -t`. */
int config_rights_check(const struct config *config, config_report *report, void *user)
{
    int result = 0;

    for (size_t i = 0; i < config->source_count; i++)
        for (size_t j = 0; j < config->sources[i].stage_count; j++) {
            const struct stage_config *stage = &config->sources[i].stages[j];
            struct config_user as = {.changes = false};
            struct error error = {0};
            if (config_user_find(stage, &as, &error) != 0) {
                report_stage_problem(config, i, j, "", error.message, report, user);
                result = EP_ECONFIG;
                continue;
            }
            if (config_limits_check(&stage->limits, as.uid, &error) != 0) {
                report_stage_problem(config, i, j, "limits.", error.message, report, user);
                result = EP_ECONFIG;
            }
            config_user_free(&as);
        }
    return result;
}

#define SERVICE_USER "eventpipe" /* the user of eventpiped@.service */

/* Writes the command that makes the store's directory, for the message of `eventpiped -t`. The directory
 * gets the service's user as owner, if we are root and that user exists. */
static void write_mkdir_command(const char *directory, char *command, size_t size)
{
    if (geteuid() == 0 && getpwnam(SERVICE_USER) != NULL)
        snprintf(command, size, "install -d -m 750 -o " SERVICE_USER " -g " SERVICE_USER " '%s'", directory);
    else
        snprintf(command, size, "mkdir -p '%s'", directory);
}

/* Writes what is wrong with the store's directory and what to do. Returns false if nothing is wrong. Runs in
 * `eventpiped -t`. */
static bool find_directory_fault(const char *directory, char *text, size_t size)
{
    struct stat status;
    char command[PATH_MAX + 64];

    if (stat(directory, &status) != 0 && errno == ENOENT) {
        write_mkdir_command(directory, command, sizeof command);
        snprintf(text, size, "%s does not exist; make it: %s", directory, command);
    } else if (stat(directory, &status) != 0) {
        snprintf(text, size, "cannot use %s: %s", directory, strerror(errno));
    } else if (!S_ISDIR(status.st_mode)) {
        snprintf(text, size, "%s is not a directory", directory);
    } else if (faccessat(AT_FDCWD, directory, W_OK | X_OK, AT_EACCESS) != 0) {
        snprintf(text, size, "user %ju cannot write to %s: %s", (uintmax_t)geteuid(), directory,
                 strerror(errno));
    } else {
        return false;
    }
    return true;
}

/* Checks whether the directory of the SQLite store exists and this process may write to it. Reports a
 * problem and returns EP_ECONFIG if not. `eventpiped -t` calls it, so that the operator learns this before
 * the start. */
int config_check_storage(const struct config *config, config_report *report, void *user)
{
    static const char scheme[] = "sqlite:";
    char path[PATH_MAX], text[2 * PATH_MAX + 128];

    if (strncmp(config->storage, scheme, sizeof scheme - 1) != 0)
        return 0;
    snprintf(path, sizeof path, "%s", config->storage + sizeof scheme - 1);
    if (!find_directory_fault(dirname(path), text, sizeof text))
        return 0;
    const struct config_problem problem = {
        .file = config->path != NULL ? config->path : "",
        .key = "storage",
        .message = text,
    };
    if (report != NULL)
        report(&problem, user);
    return EP_ECONFIG;
}
