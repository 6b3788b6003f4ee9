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

/* Reports a problem with a stage's user, group or limits, with the line in the configuration file.
 * `message` must begin with the key and a colon; parent_key is "limits." or "". config_rights_check calls
 * it in the supervisor. */
static void report_stage_problem(const struct config *config, size_t source_index, size_t stage_index,
                                 const char *parent_key, const char *message, config_report *report,
                                 void *user)
{
    const struct stage_config *stage = &config->sources[source_index].stages[stage_index];
    const char *colon = strchr(message, ':');
    char key[160];

    snprintf(key, sizeof key, "sources[%zu].stages[%zu].%s%.*s", source_index, stage_index, parent_key,
             (int)(colon - message), message);
    const struct config_problem problem = {
        .file = config->path != NULL ? config->path : "",
        .line = parent_key[0] != '\0'              ? stage->limits_line
                : strncmp(message, "user", 4) == 0 ? stage->user_line
                                                   : stage->group_line,
        .key = key,
        .message = colon + 2,
    };
    if (report != NULL)
        report(&problem, user);
}

/* Checks whether this process may run every stage of the configuration as its user and within its limits,
 * and reports each problem. Returns 0 or EP_ECONFIG. The supervisor calls it before it forks, and so does
 * `eventpiped -t`. */
int config_rights_check(const struct config *config, config_report *report, void *user)
{
    int result = 0;

    for (size_t source_index = 0; source_index < config->source_count; source_index++)
        for (size_t stage_index = 0; stage_index < config->sources[source_index].stage_count; stage_index++) {
            const struct stage_config *stage = &config->sources[source_index].stages[stage_index];
            struct config_user runs_as = {.changes = false};
            struct error error = {0};
            if (config_user_find(stage, &runs_as, &error) != 0) {
                report_stage_problem(config, source_index, stage_index, "", error.message, report, user);
                result = EP_ECONFIG;
                continue;
            }
            if (config_limits_check(&stage->limits, runs_as.uid, &error) != 0) {
                report_stage_problem(config, source_index, stage_index, "limits.", error.message, report,
                                     user);
                result = EP_ECONFIG;
            }
            config_user_free(&runs_as);
        }
    return result;
}

#define SERVICE_USER "eventpipe" /* the user of eventpiped@.service */

/* Writes the shell command that creates the directory of the store that the configuration names, for a
 * message of `eventpiped -t`. As root, and if the service's user exists, the command makes that user the
 * owner, since the daemon must write there. */
static void write_mkdir_command(const char *directory, char *command, size_t buffer_bytes)
{
    if (geteuid() == 0 && getpwnam(SERVICE_USER) != NULL)
        snprintf(command, buffer_bytes, "install -d -m 750 -o " SERVICE_USER " -g " SERVICE_USER " '%s'",
                 directory);
    else
        snprintf(command, buffer_bytes, "mkdir -p '%s'", directory);
}

/* Writes what is wrong with the directory of the store that the configuration names and what to do, and
 * returns true. Returns false if nothing is wrong. config_check_storage calls it in `eventpiped -t`. */
static bool describe_directory_problem(const char *directory, char *message, size_t buffer_bytes)
{
    struct stat status;
    char command[PATH_MAX + 64];

    if (stat(directory, &status) != 0 && errno == ENOENT) {
        write_mkdir_command(directory, command, sizeof command);
        snprintf(message, buffer_bytes, "%s does not exist; make it: %s", directory, command);
    } else if (stat(directory, &status) != 0) {
        snprintf(message, buffer_bytes, "cannot examine %s: %s", directory, strerror(errno));
    } else if (!S_ISDIR(status.st_mode)) {
        snprintf(message, buffer_bytes, "%s is not a directory: give the store another path", directory);
    } else if (faccessat(AT_FDCWD, directory, W_OK | X_OK, AT_EACCESS) != 0) {
        snprintf(message, buffer_bytes, "user %ju cannot write to %s: %s", (uintmax_t)geteuid(), directory,
                 strerror(errno));
    } else {
        return false;
    }
    return true;
}

/* Checks whether the directory of the SQLite store that the configuration names exists and this process may
 * write to it. Returns 0, or EP_ECONFIG after it reported a problem. `eventpiped -t` calls it, so that the
 * operator learns of it before the daemon starts. */
int config_check_storage(const struct config *config, config_report *report, void *user)
{
    static const char scheme[] = "sqlite:";
    char path[PATH_MAX], message[2 * PATH_MAX + 128];

    if (strncmp(config->storage, scheme, sizeof scheme - 1) != 0)
        return 0;
    snprintf(path, sizeof path, "%s", config->storage + sizeof scheme - 1);
    if (!describe_directory_problem(dirname(path), message, sizeof message))
        return 0;
    const struct config_problem problem = {
        .file = config->path != NULL ? config->path : "",
        .key = "storage",
        .message = message,
    };
    if (report != NULL)
        report(&problem, user);
    return EP_ECONFIG;
}
