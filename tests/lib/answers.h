/* SPDX-License-Identifier: MIT */
/* For tests of the control protocol: a store with one prepared source, and a request carried out with its
 * whole answer. */
#ifndef TESTS_LIB_ANSWERS_H
#define TESTS_LIB_ANSWERS_H

#include <cjson/cJSON.h>

#include "src/control/control.h"
#include "tests/lib/unit.h"

struct answers {
    cJSON *lines[4096]; /* data lines */
    size_t count;
    int code; /* of the last line, or what control_ask returned */
    struct error error;
};

/* Keeps a data line; the callback of control_ask. */
int answers_take(const char *line, size_t bytes, void *user);
void answers_clear(struct answers *answers);

/* Serves in a child process, which opens the store for itself as the keeper does, and asks here. Returns what
 * it changed. */
uint64_t answers_ask(const struct store_options *options, const struct config *config, const char *request,
                     const char *body, size_t body_bytes, struct answers *answers);

/* A member of a data line; a text in parentheses, or -1, if there is none. */
const char *answers_text(const struct answers *answers, size_t line, const char *member);
double answers_number(const struct answers *answers, size_t line, const char *member);

#endif
