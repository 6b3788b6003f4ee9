/* SPDX-License-Identifier: MIT */
/* Writes configuration files, reads them, and keeps what was reported. */
#include "tests/lib/config_file.h"

#include <stdio.h>
#include <unistd.h>

/* ---- a directory of our own, a file in it, and what was reported about it ---- */

char config_directory[4096];
char config_path[5000];
struct config_seen config_seen[1100];
size_t config_seen_count;

void config_file_on_problem(const struct config_problem *problem, void *user)
{
    CU_ASSERT_PTR_EQUAL(user, config_seen);
    CU_ASSERT_PTR_NOT_NULL(problem->message);
    CU_ASSERT_FATAL(config_seen_count < sizeof config_seen / sizeof config_seen[0]);
    struct config_seen *next = &config_seen[config_seen_count++];
    next->line = problem->line;
    snprintf(next->key, sizeof next->key, "%s", problem->key);
    snprintf(next->message, sizeof next->message, "%s", problem->message);
}

const char *config_file_write(const char *name, const char *bytes, size_t length, mode_t mode)
{
    static char whole[5000];
    snprintf(whole, sizeof whole, "%s/%s", config_directory, name);
    FILE *file = fopen(whole, "w");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    CU_ASSERT_EQUAL(fwrite(bytes, 1, length, file), length);
    fclose(file);
    chmod(whole, mode);
    return whole;
}

struct config *config_file_read_bytes(const char *bytes, size_t length)
{
    struct config *config = NULL;
    snprintf(config_path, sizeof config_path, "%s", config_file_write("quakes.yaml", bytes, length, 0644));
    config_seen_count = 0;
    int code = config_read(config_path, config_file_on_problem, config_seen, &config);
    CU_ASSERT_EQUAL(code, config_seen_count > 0 ? EP_ECONFIG : EP_OK);
    CU_ASSERT_EQUAL(config != NULL, config_seen_count == 0);
    return config;
}

struct config *config_file_read(const char *text)
{
    return config_file_read_bytes(text, strlen(text));
}

void config_file_show_all(void)
{
    for (size_t i = 0; i < config_seen_count; i++)
        fprintf(stderr, "\n  %u: %s: %s", config_seen[i].line, config_seen[i].key, config_seen[i].message);
}

bool config_file_reported(unsigned line, const char *key, const char *message)
{
    for (size_t i = 0; i < config_seen_count; i++)
        if (config_seen[i].line == line && strcmp(config_seen[i].key, key) == 0 &&
            strstr(config_seen[i].message, message) != NULL)
            return true;
    fprintf(stderr, "\n  not reported: %u: %s: %s", line, key, message);
    config_file_show_all();
    return false;
}

bool config_file_only_problem(const char *text, unsigned line, const char *key, const char *message)
{
    struct config *config = config_file_read(text);
    config_close(&config);
    if (config_seen_count != 1)
        config_file_show_all();
    return config_file_reported(line, key, message) && config_seen_count == 1;
}

static void remove_directory(void)
{
    static const char *const names[] = {"quakes.yaml", "token",   "open",  "fifo",
                                        "empty",       "control", "large", "good"};
    char whole[5000];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(whole, sizeof whole, "%s/%s", config_directory, names[i]);
        unlink(whole);
    }
    rmdir(config_directory);
}

int config_file_run(const char *suite, const struct unit_case *cases, size_t count)
{
    const char *parent = getenv("TMPDIR");
    char made[2000];
    snprintf(made, sizeof made, "%s/eventpipe-config-XXXXXX", parent != NULL ? parent : "/tmp");
    if (mkdtemp(made) == NULL || realpath(made, config_directory) == NULL) {
        perror(made);
        return EXIT_FAILURE;
    }
    int code = unit_run(suite, cases, count);
    remove_directory();
    return code;
}
