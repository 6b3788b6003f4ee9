/* SPDX-License-Identifier: MIT */
/* One member of a group commit as bytes that another process of the same program can read: pure. */
#ifndef PROCESS_GROUP_CODEC_H
#define PROCESS_GROUP_CODEC_H

#include "src/store/store.h"

/* Writes it to `to` (8-aligned). Returns how many bytes it takes; 0: it does not fit. */
size_t process_group_codec_encode(const struct store_group_member *member, char *buffer, size_t buffer_bytes);
/* Reads bytes that process_group_codec_encode wrote (8-aligned) into `member`, its answers into `answers`.
 * The texts stay in the bytes. False: malformed bytes, or more answers than room. */
bool process_group_codec_decode(char *bytes, size_t count, struct store_group_member *member,
                                struct store_answer *answers, size_t room);

#endif
