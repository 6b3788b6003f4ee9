/* SPDX-License-Identifier: MIT */
/* For tests of the store that look behind it: the file it stands in, whichever implementation runs. */
#ifndef TESTS_LIB_STORE_FILES_H
#define TESTS_LIB_STORE_FILES_H

#include "tests/lib/store_fixture.h"

/* The path of the file. */
const char *store_files_path(void);

/* Does something to the file behind the store's back. */
void store_files_meddle(const char *sql);

#endif
