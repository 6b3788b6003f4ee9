/* SPDX-License-Identifier: MIT */
/* A group of answers as bytes that another process of the same program can read: pure. */
#ifndef GROUP_PACK_H
#define GROUP_PACK_H

#include "src/store/store.h"

/* Writes it to `to` (8-aligned) and returns how many bytes that takes; 0: it does not fit. */
size_t group_pack(const struct store_group *group, char *to, size_t room);
/* From bytes that group_pack wrote (8-aligned): into `group`, its answers into `answers`. The texts stay
 * where they are, in the bytes. False: bytes of another make, or more answers than room. */
bool group_unpack(char *bytes, size_t count, struct store_group *group, struct store_answer *answers,
                  size_t room);

#endif
