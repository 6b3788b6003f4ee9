/* SPDX-License-Identifier: MIT */
/* Limits of a stage: the kernel's, set in the process that runs the stage's code. */
#ifndef CONFIG_LIMITS_H
#define CONFIG_LIMITS_H

#include <sys/types.h>

#include "src/base/error.h"
#include "src/config/config.h"

/*
 * Limits memory, files and processes of the calling process and of those it starts. Returns 0, or an
 * errno and in *failed_key the key that failed. Safe between fork and exec.
 */
int config_limits_set(const struct limits_config *limits, const char **failed_key);

/*
 * Lets a process (0 = the caller) use limits->cpu_ms of CPU time from now on. Called before each event.
 * Does nothing if there is no such limit. 0 or an errno.
 */
int config_limits_renew_cpu(pid_t pid, const struct limits_config *limits);

/* Checks whether we may set these limits and whether the kernel would enforce them. 0, or EP_EACCESS with a
 * message that begins with the key. */
int config_limits_check(const struct limits_config *limits, uid_t runs_as, struct error *error);

#endif
