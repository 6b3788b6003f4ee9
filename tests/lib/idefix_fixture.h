/* SPDX-License-Identifier: MIT */
/*
 * A broker and a backend of a test's own: mosquitto on a free port, with its files in the test's directory,
 * and the child process of idefix_backend.h. Both exit with the test.
 */
#ifndef TESTS_LIB_IDEFIX_FIXTURE_H
#define TESTS_LIB_IDEFIX_FIXTURE_H

#include <stdio.h>
#include <unistd.h>

#include "src/eventpipe.h"
#include "tests/lib/idefix_backend.h"
#include "tests/lib/unit.h"
#include "tests/lib/until.h"

struct idefix_fixture {
    char directory[200];
    int port, tls_port, wrong_port, closed_port;
    pid_t broker, backend;
    bool tls;
};

extern struct idefix_fixture idefix_fixture;

/* A TCP port that nobody listens on. */
int idefix_fixture_free_port(void);

/* Kills the process, if there is one, and waits for it. */
void idefix_fixture_stop(pid_t *pid);

/* ---- a test's beginning and end */
/* Prepares all of it and starts nothing; false if there is no mosquitto(8). */
bool idefix_fixture_open(void);

/* Broker and backend run, and do what they should. */
void idefix_fixture_begin(void);

/* Stops both and removes their files. */
void idefix_fixture_close(void);

/* As UNIT_MAIN, with the fixture around the suite; skipped where there is no mosquitto. */
#define IDEFIX_MAIN(suite_name, ...)                                              \
    int main(void)                                                                \
    {                                                                             \
        const struct unit_case cases[] = {__VA_ARGS__};                           \
        if (!idefix_fixture_open()) {                                             \
            printf("skipped: no mosquitto(8) is installed\n");                    \
            return 77;                                                            \
        }                                                                         \
        int result = unit_run(suite_name, cases, sizeof cases / sizeof cases[0]); \
        idefix_fixture_close();                                                   \
        return result;                                                            \
    }

/* A URL, until the eighth call after this. */
const char *idefix_fixture_url(const char *scheme, const char *host, int port);

/* The client of most tests; params' own members win. */
ep_idefix *idefix_fixture_client(struct ep_idefix_params params);

/* One events_get; the page is freed. Returns its code. */
int idefix_fixture_get(ep_idefix *client, uint64_t wait_ms, size_t *count);

/* How many entries a folder has. */
size_t idefix_fixture_entries(const char *path);

/* Whether the client's message has this text; prints the message if not. */
bool idefix_fixture_says(ep_idefix *client, const char *errbuf);

#endif
