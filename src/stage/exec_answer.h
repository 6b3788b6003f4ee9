/* SPDX-License-Identifier: MIT */
/* An exec stage's answer: one line of JSON, read into the call. Pure. */
#ifndef STAGE_EXEC_ANSWER_H
#define STAGE_EXEC_ANSWER_H

#include "src/stage/stage.h"

/*
 * Reads an answer line (without its line feed) into the second part of the call. 0; EP_EPROTO with a message
 * if the answer is malformed, or EP_ENOMEM: then the call is unchanged.
 */
int stage_exec_answer_read(const char *line, size_t bytes, struct ep_call *call, char *errbuf,
                           size_t errbuf_size);

/* Writes the bytes for a message: cleaned, cut to fit, within backquotes. */
void stage_exec_answer_quote(const char *bytes, size_t count, char *buffer, size_t size);

#endif
