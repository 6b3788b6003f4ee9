/* SPDX-License-Identifier: MIT */
/* As whom the program of an exec stage runs. */
#ifndef EXEC_USER_H
#define EXEC_USER_H

#include <stdbool.h>
#include <sys/types.h>

#include "src/config/config.h"
#include "src/base/error.h"

struct exec_user {
    bool changes; /* false: as we are, and the rest says nothing but uid */
    uid_t uid;
    gid_t gid;
    gid_t *groups; /* ours to free */
    int group_count;
    char *name, *home; /* for the environment; NULL where the user has no account. Ours to free */
};

/*
 * Looks the stage's user and group up. 0; EP_ENOENT when there is no such user or group, EP_EACCESS when we
 * may not become them, EP_ENOMEM: the words begin with the key, *out is not set.
 */
int exec_user_find(const struct stage_config *config, struct exec_user *out, struct error *error);
void exec_user_free(struct exec_user *user);

/*
 * Becomes the user for good. The parent's death signal must be asked for again after it: the kernel forgets
 * it. 0 or an errno. Safe between fork and exec.
 */
int exec_user_become(const struct exec_user *user);

#endif
