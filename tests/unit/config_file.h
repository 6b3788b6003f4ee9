/* SPDX-License-Identifier: MIT */
/* For tests of the configuration's reader: files to read, and what was said about them. */
#ifndef CONFIG_FILE_H
#define CONFIG_FILE_H

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/config/config.h"
#include "tests/unit/unit.h"

/* ---- a directory of our own, a file in it, and what was reported about it ---- */

static char directory[4096]; /* realpath wants as much */
static char path[5000];

struct seen {
    unsigned line;
    char key[200], message[1024];
};
static struct seen seen[1100];
static size_t seen_count;

static inline void on_problem(const struct config_problem *problem, void *user)
{
    CU_ASSERT_PTR_EQUAL(user, seen);
    CU_ASSERT_PTR_NOT_NULL(problem->message);
    CU_ASSERT_FATAL(seen_count < sizeof seen / sizeof seen[0]);
    struct seen *next = &seen[seen_count++];
    next->line = problem->line;
    snprintf(next->key, sizeof next->key, "%s", problem->key);
    snprintf(next->message, sizeof next->message, "%s", problem->message);
}

static inline const char *write_file(const char *name, const char *bytes, size_t length, mode_t mode)
{
    static char whole[5000];
    snprintf(whole, sizeof whole, "%s/%s", directory, name);
    FILE *file = fopen(whole, "w");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    CU_ASSERT_EQUAL(fwrite(bytes, 1, length, file), length);
    fclose(file);
    chmod(whole, mode);
    return whole;
}

static inline struct config *read_bytes(const char *bytes, size_t length)
{
    struct config *config = NULL;
    snprintf(path, sizeof path, "%s", write_file("quakes.yaml", bytes, length, 0644));
    seen_count = 0;
    int code = config_read(path, on_problem, seen, &config);
    CU_ASSERT_EQUAL(code, seen_count > 0 ? EP_ECONFIG : EP_OK);
    CU_ASSERT_EQUAL(config != NULL, seen_count == 0);
    return config;
}

static inline struct config *read_text(const char *text)
{
    return read_bytes(text, strlen(text));
}

static inline void show_all(void)
{
    for (size_t i = 0; i < seen_count; i++)
        fprintf(stderr, "\n  %u: %s: %s", seen[i].line, seen[i].key, seen[i].message);
}

/* A problem was reported at this line and key, with this text in its message. */
static inline bool was_seen(unsigned line, const char *key, const char *message)
{
    for (size_t i = 0; i < seen_count; i++)
        if (seen[i].line == line && strcmp(seen[i].key, key) == 0 && strstr(seen[i].message, message) != NULL)
            return true;
    fprintf(stderr, "\n  not reported: %u: %s: %s", line, key, message);
    show_all();
    return false;
}

/* The text has exactly one problem: this one. */
static inline bool only_problem(const char *text, unsigned line, const char *key, const char *message)
{
    struct config *config = read_text(text);
    config_close(&config);
    if (seen_count != 1)
        show_all();
    return was_seen(line, key, message) && seen_count == 1;
}

#define FILE_SOURCE "sources:\n- id: a\n  type: file\n  path: x\n"
#define HTTP_SOURCE "sources:\n- id: a\n  type: http\n  url: http://h/\n"
/* PATH is a variable that every environment has */
#define IDEFIX_SOURCE \
    "sources:\n- id: a\n  type: idefix\n  broker: tcp://h\n  account: u\n  token_env: PATH\n  domain: d\n"
#define STAGES "  stages:\n  - {name: s, exec: [cat]}\n"
#define STAGE "  stages:\n  - name: s\n"
/* one line in a file source (line 5), an http source (5), an idefix source (8), an exec stage (8), an http
 * stage (8), or at the top (7) */
#define IN_FILE(line) FILE_SOURCE line "\n" STAGES
#define IN_HTTP(line) HTTP_SOURCE line "\n" STAGES
#define IN_IDEFIX(line) IDEFIX_SOURCE line "\n" STAGES
#define IN_EXEC(line) FILE_SOURCE STAGE "    exec: [cat]\n" line "\n"
#define IN_POST(line) FILE_SOURCE STAGE "    url: http://h/\n" line "\n"
#define AT_TOP(line) FILE_SOURCE STAGES line "\n"

static inline void remove_directory(void)
{
    static const char *const names[] = {"quakes.yaml", "token",   "open",  "fifo",
                                        "empty",       "control", "large", "good"};
    char whole[5000];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(whole, sizeof whole, "%s/%s", directory, names[i]);
        unlink(whole);
    }
    rmdir(directory);
}

/* Runs the cases in a directory of their own. */
static inline int run_in_directory(const char *suite, const struct unit_case *cases, size_t count)
{
    const char *parent = getenv("TMPDIR");
    char made[2000];
    snprintf(made, sizeof made, "%s/eventpipe-config-XXXXXX", parent != NULL ? parent : "/tmp");
    if (mkdtemp(made) == NULL || realpath(made, directory) == NULL) {
        perror(made);
        return EXIT_FAILURE;
    }
    int code = unit_run(suite, cases, count);
    remove_directory();
    return code;
}

#endif
