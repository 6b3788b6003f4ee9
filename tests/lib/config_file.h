/* SPDX-License-Identifier: MIT */
/* For tests of the configuration's reader: files to read, and what was said about them. */
#ifndef TESTS_LIB_CONFIG_FILE_H
#define TESTS_LIB_CONFIG_FILE_H

#include <sys/stat.h>

#include "src/config/config.h"
#include "tests/lib/unit.h"

/* ---- a directory of our own, a file in it, and what was reported about it ---- */

extern char config_directory[4096]; /* realpath wants as much */
extern char config_path[5000];

struct config_seen {
    unsigned line;
    char key[200], message[1024];
};

extern struct config_seen config_seen[1100];
extern size_t config_seen_count; /* of the file read last */

/* Keeps a problem in config_seen, its user. */
void config_file_on_problem(const struct config_problem *problem, void *user);

/* Writes a file of the directory; returns its path, until the next call. */
const char *config_file_write(const char *name, const char *bytes, size_t length, mode_t mode);

/* Reads these bytes as quakes.yaml; NULL with problems in config_seen. */
struct config *config_file_read_bytes(const char *bytes, size_t length);
struct config *config_file_read(const char *text);

/* Prints all that was reported. */
void config_file_show_all(void);

/* A problem was reported at this line and key, with this text in its message. */
bool config_file_reported(unsigned line, const char *key, const char *message);

/* The text has exactly one problem: this one. */
bool config_file_only_problem(const char *text, unsigned line, const char *key, const char *message);

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

/* Runs the cases in a directory of their own. */
int config_file_run(const char *suite, const struct unit_case *cases, size_t count);

#endif
