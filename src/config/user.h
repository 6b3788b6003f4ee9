/* SPDX-License-Identifier: MIT */
/* The user that an exec stage's program runs as. */
#ifndef CONFIG_USER_H
#define CONFIG_USER_H

#include <stdbool.h>
#include <sys/types.h>

#include "src/base/error.h"
#include "src/config/config.h"

struct config_user {
    bool changes; /* false: run as we are; then only uid is set */
    uid_t uid;
    gid_t gid;
    gid_t *groups; /* owned */
    int group_count;
    char *name, *home; /* owned; for the environment; NULL if the user has no account */
};

/*
 * Looks up the stage's user and group. Returns 0; EP_ENOENT if there is no such user or group;
 * EP_EACCESS if we may not become that user; EP_ENOMEM. The message begins with the key, and *out is not
 * set.
 */
int config_user_find(const struct stage_config *stage, struct config_user *out, struct error *error);
void config_user_free(struct config_user *user);

/*
 * Becomes the user, irrevocably. The kernel then forgets the parent death signal, so the caller must set
 * it again. 0 or an errno. Safe between fork and exec.
 */
int config_user_become(const struct config_user *user);

#endif
