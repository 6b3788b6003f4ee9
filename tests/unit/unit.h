/* SPDX-License-Identifier: MIT */
/* One CUnit suite per program: UNIT_MAIN("name", {"what it shows", function}, ...) runs it and exits 1 on any
 * failure. */
#ifndef UNIT_H
#define UNIT_H

#include <CUnit/Basic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct unit_case {
    const char *name;
    void (*run)(void);
};

static inline int unit_run(const char *suite_name, const struct unit_case *cases, size_t count)
{
    if (CU_initialize_registry() != CUE_SUCCESS)
        return EXIT_FAILURE;
    CU_pSuite suite = CU_add_suite(suite_name, NULL, NULL);
    for (size_t i = 0; suite != NULL && i < count; i++)
        if (CU_add_test(suite, cases[i].name, cases[i].run) == NULL)
            suite = NULL;
    if (suite == NULL) {
        CU_cleanup_registry();
        return EXIT_FAILURE;
    }
    CU_basic_set_mode(CU_BRM_VERBOSE);
    CU_basic_run_tests();
    bool failed = CU_get_number_of_failures() > 0 || CU_get_number_of_tests_run() != count;
    CU_cleanup_registry();
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#define UNIT_MAIN(suite_name, ...)                                          \
    int main(void)                                                          \
    {                                                                       \
        const struct unit_case cases[] = {__VA_ARGS__};                     \
        return unit_run(suite_name, cases, sizeof cases / sizeof cases[0]); \
    }

#endif
