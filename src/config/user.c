/* SPDX-License-Identifier: MIT */
/*
 * The user that an exec stage's program runs as. The look-up runs in the supervisor before it starts
 * anything, and in each worker before it forks (it allocates and may ask a directory service). The
 * change runs in the new process, between fork and exec. Owns the contents of a struct config_user.
 *
 * Invariants
 *  1. With a user, none of our own groups stays: the supplementary groups are the user's (with a group
 *     alone, none).
 *  2. Real, effective and saved IDs change together, so there is no way back.
 *  3. A process that already is the user needs no rights to run as that user.
 */
#include "src/config/user.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ID_DIGITS_MAX 10 /* of a 32-bit ID */
#define GROUPS_MAX 65536 /* the kernel's own limit */

/* Reads a user or group ID such as "1000". Returns false if the text is no ID, or is the largest 32-bit
 * number, which means "none" to the kernel. In the configuration, a stage's `user` and `group` may be
 * numbers. */
static bool read_numeric_id(const char *text, uint32_t *id)
{
    size_t digit_count = strlen(text);

    if (digit_count == 0 || digit_count > ID_DIGITS_MAX || strspn(text, "0123456789") != digit_count)
        return false;
    unsigned long long number = strtoull(text, NULL, 10);
    *id = (uint32_t)number;
    return number < UINT32_MAX;
}

/* Looks up the `user` that the configuration gives an exec stage, by name or number, and copies its IDs,
 * name and home directory into *user. Returns 0, EP_ENOMEM, or EP_ENOENT with a message if there is no such
 * user. */
static int look_up_user(const struct stage_config *stage, struct config_user *user, struct error *error)
{
    uint32_t id = 0;

    errno = 0;
    const struct passwd *account = getpwnam(stage->user);
    if (account == NULL && read_numeric_id(stage->user, &id))
        account = getpwuid(id);
    else if (account == NULL)
        return base_error_set(error, EP_ENOENT, "user: there is no user \"%.80s\"%s%s", stage->user,
                              errno != 0 ? ": " : "", errno != 0 ? strerror(errno) : "");
    if (account == NULL && stage->group == NULL)
        return base_error_set(error, EP_ENOENT,
                              "user: there is no account with the number %.80s: also give the `group`",
                              stage->user);
    user->uid = account != NULL ? account->pw_uid : id;
    user->gid = account != NULL ? account->pw_gid : 0;
    if (account == NULL)
        return 0;
    user->name = strdup(account->pw_name);
    user->home = strdup(account->pw_dir);
    return user->name == NULL || user->home == NULL ? base_error_set(error, EP_ENOMEM, "user: out of memory")
                                                    : 0;
}

/* Looks up the `group` that the configuration gives an exec stage, by name or number, and sets user->gid.
 * Returns 0, or EP_ENOENT with a message if there is no such group. */
static int look_up_group(const struct stage_config *stage, struct config_user *user, struct error *error)
{
    uint32_t id = 0;
    const struct group *group = getgrnam(stage->group);

    if (group == NULL && !read_numeric_id(stage->group, &id))
        return base_error_set(error, EP_ENOENT, "group: there is no group \"%.80s\"", stage->group);
    user->gid = group != NULL ? group->gr_gid : id;
    return 0;
}

/* Lists all groups of the user that the configuration gives an exec stage in user->groups; for a number
 * without an account, only its group. The program gets exactly these groups and none of the daemon's.
 * Returns 0 or a code with a message. */
static int list_user_groups(struct config_user *user, struct error *error)
{
    int group_capacity = 64;

    for (;;) {
        gid_t *groups = reallocarray(user->groups, (size_t)group_capacity, sizeof *groups);
        if (groups == NULL)
            return base_error_set(error, EP_ENOMEM, "group: out of memory");
        int group_count = group_capacity;
        user->groups = groups;
        groups[0] = user->gid;
        user->group_count = 1;
        if (user->name == NULL)
            return 0;
        if (getgrouplist(user->name, user->gid, groups, &group_count) >= 0) {
            user->group_count = group_count;
            return 0;
        }
        if (group_capacity >= GROUPS_MAX)
            return base_error_set(error, EP_EINVAL,
                                  "user: \"%.80s\" is in more than 65536 groups, the kernel's limit",
                                  user->name);
        group_capacity *= 2;
    }
}

/* Looks up the user and group that a stage runs as by its configuration. Returns 0, or a code with a
 * message that begins with the key. The supervisor calls it before it forks, to report a wrong user at
 * once; a worker calls it before it starts the program of an exec stage. The caller frees *out with
 * config_user_free. */
int config_user_find(const struct stage_config *stage, struct config_user *out, struct error *error)
{
    struct config_user user = {.uid = geteuid(), .gid = getegid()};
    int code = 0;

    if (stage->user != NULL)
        code = look_up_user(stage, &user, error);
    if (code == 0 && stage->group != NULL)
        code = look_up_group(stage, &user, error);
    user.changes = user.uid != geteuid() || user.gid != getegid();
    if (code == 0 && user.changes && geteuid() != 0)
        code = base_error_set(
            error, EP_EACCESS,
            "%s: only a daemon that runs as root can run a stage as \"%.80s\"; this one runs as "
            "user ID %u",
            user.uid != geteuid() ? "user" : "group",
            user.uid != geteuid() || stage->group == NULL ? stage->user : stage->group, (unsigned)geteuid());
    if (code == 0 && user.changes)
        code = list_user_groups(&user, error);
    if (code == 0)
        *out = user;
    else
        config_user_free(&user);
    return code;
}

/* Frees what config_user_find allocated. The supervisor calls it after its check, a worker once the
 * program of its exec stage has started. */
void config_user_free(struct config_user *user)
{
    free(user->groups);
    free(user->name);
    free(user->home);
    *user = (struct config_user){.changes = false};
}

/* Changes this process to the user that the configuration gives an exec stage, for good: groups, group,
 * then user. Returns 0 or an errno. The program's new process calls it between fork and exec, so it makes
 * only async-signal-safe calls. */
int config_user_become(const struct config_user *user)
{
    if (!user->changes)
        return 0;
    bool has_changed = setgroups((size_t)user->group_count, user->groups) == 0 &&
                       setresgid(user->gid, user->gid, user->gid) == 0 &&
                       setresuid(user->uid, user->uid, user->uid) == 0;
    return has_changed ? 0 : errno;
}
