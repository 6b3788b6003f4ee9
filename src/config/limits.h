/* SPDX-License-Identifier: MIT */
/* What a stage may use at most: the kernel's limits, set in the process that runs the stage's code. */
#ifndef CONFIG_LIMITS_H
#define CONFIG_LIMITS_H

#include <sys/types.h>

#include "src/base/error.h"
#include "src/config/config.h"

/*
 * Sets memory, files and processes for the calling process and what it will start. 0 or an errno, *which is
 * then the key in question. Safe between fork and exec.
 */
int config_limits_set(const struct limits_config *limits, const char **which);

/*
 * Lets a process (0 = the caller) use limits->cpu_ms of CPU time from now on: before each event. Does nothing
 * when there is no such limit. 0 or an errno.
 */
int config_limits_renew_cpu(pid_t pid, const struct limits_config *limits);

/* Whether we may set these limits, and whether they would hold. 0 or EP_EACCESS, the message begins with the
 * key. */
int config_limits_check(const struct limits_config *limits, uid_t runs_as, struct error *error);

#endif
