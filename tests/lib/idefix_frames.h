/* SPDX-License-Identifier: MIT */
/* For tests of Idefix's frames: the captured ones (where ../shared is there), and short ways to make and read
 * others. */
#ifndef TESTS_LIB_IDEFIX_FRAMES_H
#define TESTS_LIB_IDEFIX_FRAMES_H

#include <stdio.h>

#include "src/idefix/frame.h"
#include "tests/lib/unit.h"

#define FRAME_LIMIT ((size_t)1 << 20)

struct captured {
    char session[16], direction, flags[8];
    char *body;
    size_t bytes;
};

struct json_span frames_span(const char *text);

/* The next frame of the file; false at its end. */
bool frames_captured_next(FILE *file, struct captured *frame);

/* NULL where the frames are not at hand. */
FILE *frames_captured_open(void);

/* The data of a message as JSON, to be freed. */
char *frames_data_json(const struct idefix_message *message);

/* What the pointer leads to must read exactly like this; NULL: there is nothing. */
void frames_expect_member(const char *json, const char *pointer, const char *expected);

/* How many members the object at the pointer has. */
size_t frames_member_count(const char *json, const char *pointer);

#endif
