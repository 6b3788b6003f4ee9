/* SPDX-License-Identifier: MIT */
/* As whom the program of an exec stage runs. */
#ifndef CONFIG_USER_H
#define CONFIG_USER_H

#include <stdbool.h>
#include <sys/types.h>

#include "src/base/error.h"
#include "src/config/config.h"

struct config_user {
    bool changes; /* false: as we are, and the rest says nothing but uid */
    uid_t uid;
    gid_t gid;
    gid_t *groups; /* ours to free */
    int group_count;
    char *name, *home; /* for the environment; NULL where the user has no account. Ours to free */
};

/*
 * Looks the stage's user and group up. 0; EP_ENOENT when there is no such user or group, EP_EACCESS when we
 * may not become them, EP_ENOMEM: the message begins with the key, *out is not set.
 */
int config_user_find(const struct stage_config *config, struct config_user *out, struct error *error);
void config_user_free(struct config_user *user);

/*
 * Becomes the user for good. The parent's death signal must be asked for again after it: the kernel forgets
 * it. 0 or an errno. Safe between fork and exec.
 */
int config_user_become(const struct config_user *user);

#endif
