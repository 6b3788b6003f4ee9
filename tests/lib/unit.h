/* SPDX-License-Identifier: MIT */
/* One CUnit suite per program: UNIT_MAIN("name", {"what it shows", function}, ...) runs it and exits 1 on any
 * failure. */
#ifndef TESTS_LIB_UNIT_H
#define TESTS_LIB_UNIT_H

#include <CUnit/Basic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct unit_case {
    const char *name;
    void (*run)(void);
};

/* Returns EXIT_FAILURE unless every case ran and passed. */
int unit_run(const char *suite_name, const struct unit_case *cases, size_t count);

#define UNIT_MAIN(suite_name, ...)                                          \
    int main(void)                                                          \
    {                                                                       \
        const struct unit_case cases[] = {__VA_ARGS__};                     \
        return unit_run(suite_name, cases, sizeof cases / sizeof cases[0]); \
    }

#endif
