/* SPDX-License-Identifier: MIT */
/*
 * Finds the instance that the command is about, and its control socket, store and segment. Runs in
 * eventpipe.
 *
 *   -c FILE      as the file says; a file with problems still names its instance, socket and storage
 *   -i INSTANCE  /etc/eventpipe/INSTANCE.yaml if it exists; else the default socket, and the store that the
 *                segment names
 *   neither      /etc/eventpipe/eventpipe.yaml if it exists; else the only instance that has a segment
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/slot.h"
#include "src/cli/cli.h"

#ifndef EVENTPIPED_CONFIG
#define EVENTPIPED_CONFIG "/etc/eventpipe/eventpipe.yaml"
#endif
#define CONFIG_FOLDER "/etc/eventpipe"
#define SEGMENT_FOLDER "/dev/shm"
#define SEGMENT_PREFIX "eventpipe-"

/* Called for each problem in the configuration file: keeps it. `eventpipe check` prints the problems, the
 * other commands only say how many there are. Those beyond CLI_PROBLEMS_MAX, or without memory, are
 * dropped. */
static void on_config_problem(const struct config_problem *problem, void *user)
{
    struct cli *cli = user;
    if (cli->problem_count == CLI_PROBLEMS_MAX)
        return;
    struct cli_problem *problems = reallocarray(cli->problems, cli->problem_count + 1, sizeof *problems);
    if (problems == NULL)
        return;
    cli->problems = problems;
    problems[cli->problem_count++] =
        (struct cli_problem){problem->line, strdup(problem->key != NULL ? problem->key : ""),
                             strdup(problem->message)};
}

/* Returns the value of an unindented `key: value` line of a configuration file, or NULL if there is none;
 * the caller frees it. `eventpipe` reads a file with problems this way, so that it still finds the
 * instance, its socket and its store. */
static char *read_plain_key(const char *path, const char *key)
{
    FILE *file = fopen(path, "re");
    char *line = NULL, *found_value = NULL;
    size_t line_capacity = 0;
    while (file != NULL && found_value == NULL && getline(&line, &line_capacity, file) > 0) {
        size_t key_bytes = strlen(key);
        if (strncmp(line, key, key_bytes) != 0 || line[key_bytes] != ':')
            continue;
        char *value = line + key_bytes + 1;
        value += strspn(value, " \t");
        bool is_quoted = *value == '"' || *value == '\'';
        char quote[2] = {*value, '\0'};
        value += is_quoted;
        size_t value_bytes = is_quoted ? strcspn(value, quote) : strcspn(value, "#\r\n");
        while (!is_quoted && value_bytes > 0 &&
               (value[value_bytes - 1] == ' ' || value[value_bytes - 1] == '\t'))
            value_bytes--;
        found_value = value_bytes > 0 ? strndup(value, value_bytes) : NULL;
    }
    free(line);
    if (file != NULL)
        fclose(file);
    return found_value;
}

static char *copy_text(const char *text)
{
    return text != NULL ? strdup(text) : NULL;
}

/* Reads the configuration file for a command of `eventpipe`. If the file has problems, cli->config stays
 * NULL, and only the instance, the control socket and the store are read. Returns 0, or CONTROL_USAGE with
 * a message. */
static int read_config_file(struct cli *cli, const char *path, struct error *error)
{
    cli->config_path = strdup(path);
    if (access(path, R_OK) != 0)
        return base_error_set(error, CONTROL_USAGE, "cannot read the configuration %s: %s", path,
                              strerror(errno));
    char *instance;
    if (config_read(path, on_config_problem, cli, &cli->config) == EP_OK) {
        instance = copy_text(cli->config->instance);
        cli->control_path = copy_text(cli->config->control);
        cli->store_url = copy_text(cli->config->storage);
    } else {
        cli->config = NULL;
        instance = read_plain_key(path, "instance");
        cli->control_path = read_plain_key(path, "control");
        cli->store_url = read_plain_key(path, "storage");
    }
    if (instance == NULL || !config_is_name_valid(instance)) {
        free(instance);
        return base_error_set(error, CONTROL_USAGE, "%s names no valid instance (see eventpipe -c %s check)",
                              path, path);
    }
    snprintf(cli->instance, sizeof cli->instance, "%s", instance);
    free(instance);
    return 0;
}

/* Sets the instance of `eventpipe -i NAME`: reads /etc/eventpipe/NAME.yaml if that file names the same
 * instance, else keeps the name alone, and the shared memory then tells where the store is. Returns 0, or
 * CONTROL_USAGE with a message. */
static int find_instance_by_name(struct cli *cli, const char *name, struct error *error)
{
    char path[sizeof CONFIG_FOLDER + SHM_NAME_BYTES + 8];
    if (!config_is_name_valid(name))
        return base_error_set(
            error, CONTROL_USAGE,
            "-i: \"%s\" cannot be the name of an instance; expected letters, digits, \".\", \"_\" and \"-\"",
            name);
    snprintf(path, sizeof path, CONFIG_FOLDER "/%s.yaml", name);
    char *instance = read_plain_key(path, "instance");
    bool is_own_file = instance != NULL && strcmp(instance, name) == 0;
    free(instance);
    if (is_own_file)
        return read_config_file(cli, path, error);
    snprintf(cli->instance, sizeof cli->instance, "%s", name);
    return 0;
}

/* Names of instances that have a segment. */
struct instance_names {
    char names[512];
    char last_name[SHM_NAME_BYTES];
    unsigned count;
};

/* Adds the name of an instance to a list. If several instances are possible, `eventpipe` shows the list in
 * the message that asks for -i. */
static void add_instance_name(struct instance_names *instances, const char *name)
{
    size_t used_bytes = strlen(instances->names);
    snprintf(instances->names + used_bytes, sizeof instances->names - used_bytes, "%s%s",
             instances->count == 0 ? "" : ", ", name);
    snprintf(instances->last_name, sizeof instances->last_name, "%s", name);
    instances->count++;
}

/* Lists the instances that have shared memory on this machine: in `running` those with a daemon, in
 * `crashed` those that a killed daemon left. `eventpipe` calls it if the user gave neither -c nor -i. */
static void list_segments(struct instance_names *running, struct instance_names *crashed)
{
    DIR *folder = opendir(SEGMENT_FOLDER);
    for (struct dirent *folder_entry; folder != NULL && (folder_entry = readdir(folder)) != NULL;) {
        const char *name = folder_entry->d_name + sizeof SEGMENT_PREFIX - 1;
        struct segment segment;
        if (strncmp(folder_entry->d_name, SEGMENT_PREFIX, sizeof SEGMENT_PREFIX - 1) != 0 ||
            !config_is_name_valid(name))
            continue;
        int code = segment_attach(name, &segment);
        bool is_running = code == -EAGAIN || code == -EPROTO || (code == 0 && segment_owner_lives(&segment));
        if (code == 0)
            segment_close(&segment);
        if (code == 0 || is_running)
            add_instance_name(is_running ? running : crashed, name);
    }
    if (folder != NULL)
        closedir(folder);
}

/* Chooses the instance if the user of `eventpipe` gave neither -c nor -i: the one of
 * /etc/eventpipe/eventpipe.yaml, else the only one that runs, else the only one whose shared memory a
 * killed daemon left. Returns 0, or an exit status with a message. */
static int choose_default_instance(struct cli *cli, struct error *error)
{
    struct instance_names running = {0}, crashed = {0};
    if (access(EVENTPIPED_CONFIG, F_OK) == 0)
        return read_config_file(cli, EVENTPIPED_CONFIG, error);
    list_segments(&running, &crashed);
    const struct instance_names *candidates = running.count > 0 ? &running : &crashed;
    if (candidates->count == 1)
        return find_instance_by_name(cli, candidates->last_name, error);
    if (candidates->count > 1)
        return base_error_set(error, CONTROL_USAGE, "there are several instances (%s): choose one with -i",
                              candidates->names);
    return base_error_set(error, CONTROL_DOWN,
                          "no instance is running, and there is no %s: choose one with -i or -c",
                          EVENTPIPED_CONFIG);
}

/* Attaches the instance's shared memory read-only, for any command of `eventpipe`. `eventpipe status` calls
 * it again before each snapshot, because the daemon may have started or ended meanwhile. Returns 0 or a
 * negative errno, and keeps it in cli->attach_error. */
int cli_instance_attach(struct cli *cli)
{
    if (cli->segment.header != NULL)
        segment_close(&cli->segment);
    cli->segment = (struct segment){.fd = -1};
    cli->attach_error = segment_attach(cli->instance, &cli->segment);
    cli->daemon_alive = cli->attach_error == 0 && segment_owner_lives(&cli->segment);
    if (cli->attach_error != 0)
        cli->segment = (struct segment){.fd = -1};
    if (cli->daemon_alive)
        shm_clock_follow(cli->segment.header); /* so that ages are by the daemon's clock */
    return cli->attach_error;
}

/* Finds the instance that the user means by -c, -i or the defaults, attaches its shared memory, and sets
 * the paths of control socket and store. Every command of `eventpipe` begins with it. Returns 0, or an exit
 * status with a message. */
int cli_instance_find(struct cli *cli, struct error *error)
{
    cli->segment = (struct segment){.fd = -1};
    int code;
    if (cli_has_option(cli, CLI_OPTION_CONFIG))
        code = read_config_file(cli, cli->values[CLI_OPTION_CONFIG], error);
    else if (cli_has_option(cli, CLI_OPTION_INSTANCE))
        code = find_instance_by_name(cli, cli->values[CLI_OPTION_INSTANCE], error);
    else
        code = choose_default_instance(cli, error);
    if (code != 0)
        return code;
    cli_instance_attach(cli);
    if (cli->store_url == NULL && cli->segment.header != NULL)
        cli->store_url = strdup(cli->segment.header->store_url);
    char path[64 + SHM_NAME_BYTES];
    snprintf(path, sizeof path, "/run/eventpipe/%s.sock", cli->instance);
    if (cli->control_path == NULL)
        cli->control_path = strdup(path);
    return cli->control_path == NULL ? base_error_set(error, CONTROL_FAILED, "out of memory") : 0;
}

/* Detaches the shared memory and frees the configuration, the paths, the arguments and the output buffer.
 * `eventpipe` calls it once, at its end. */
void cli_instance_close(struct cli *cli)
{
    if (cli->segment.header != NULL)
        segment_close(&cli->segment);
    config_close(&cli->config);
    for (size_t i = 0; i < cli->problem_count; i++) {
        free(cli->problems[i].key);
        free(cli->problems[i].message);
    }
    free(cli->problems);
    free(cli->config_path);
    free(cli->control_path);
    free(cli->store_url);
    free(cli->args);
    base_text_free(&cli->out);
}
