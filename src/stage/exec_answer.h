/* SPDX-License-Identifier: MIT */
/* An exec stage's answer: one line of JSON, read into the call. Pure. */
#ifndef EXEC_ANSWER_H
#define EXEC_ANSWER_H

#include "src/stage/stage.h"

/*
 * Reads a line (without its line feed) into the second part of the call. 0; EP_EGARBAGE with words when it is
 * no answer, then the call is as it was; EP_ENOMEM likewise.
 */
int exec_answer_read(const char *line, size_t bytes, struct ep_call *call, char *words, size_t words_bytes);

/* Shows what came: cleaned, cut to fit, within backquotes. */
void exec_answer_show(const char *bytes, size_t count, char *buffer, size_t size);

#endif
