/* SPDX-License-Identifier: MIT */
/*
 * Limits of a stage, set with setrlimit. Runs in programs between fork and exec, in workers, and in the
 * supervisor, which checks before it starts anything whether the limits can be set. Owns nothing.
 *
 * Invariants
 *  1. The CPU limit is per event, not per process: before each event it is set again, counted from the
 *     time used so far. So the sum of its work does not kill a process that lives for weeks. The hard
 *     limit stays, since an unprivileged process could not raise it again: an overrun gets SIGXCPU once
 *     a second, and a program that ignores it is left to the stage's timeout.
 *  2. The other limits are set once, soft and hard, so the limited process cannot raise them again.
 */
#include "src/config/limits.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* Sets one limit that the configuration gives a stage, soft and hard, on this process, which runs the
 * stage's code; 0 means no limit. Returns 0 or an errno. */
static int set_resource_limit(__rlimit_resource_t resource, uint64_t limit_value)
{
    const struct rlimit limit = {limit_value, limit_value};
    return limit_value == 0 || setrlimit(resource, &limit) == 0 ? 0 : errno;
}

/* Sets the limits of memory, files and processes that the configuration gives a stage on this process and
 * its future children, for good. Returns 0, or an errno with *failed_key as the key that failed. A worker
 * calls it for itself; for an exec stage, the program's process calls it between fork and exec. */
int config_limits_set(const struct limits_config *limits, const char **failed_key)
{
    int code = set_resource_limit(RLIMIT_AS, limits->memory_bytes);
    *failed_key = "memory";
    if (code != 0)
        return code;
    code = set_resource_limit(RLIMIT_NOFILE, limits->files);
    *failed_key = "files";
    if (code != 0)
        return code;
    *failed_key = "processes";
    return set_resource_limit(RLIMIT_NPROC, limits->processes);
}

/* Lets process `pid` (0 = this one) use the CPU limit that the configuration gives a stage once more,
 * counted from the CPU time it has used so far. Returns 0 or an errno. A worker calls it before each event,
 * so that the limit holds for one event and not for the life of the process. */
int config_limits_renew_cpu(pid_t pid, const struct limits_config *limits)
{
    clockid_t clock;
    struct timespec cpu_used;
    struct rlimit limit;

    if (limits->cpu_ms == 0)
        return 0;
    int code = clock_getcpuclockid(pid, &clock);
    if (code != 0)
        return code;
    if (clock_gettime(clock, &cpu_used) != 0 || prlimit(pid, RLIMIT_CPU, NULL, &limit) != 0)
        return errno;
    limit.rlim_cur = (rlim_t)cpu_used.tv_sec + (cpu_used.tv_nsec > 0) + limits->cpu_ms / 1000;
    if (limit.rlim_cur > limit.rlim_max)
        limit.rlim_cur = limit.rlim_max;
    return prlimit(pid, RLIMIT_CPU, &limit, NULL) == 0 ? 0 : errno;
}

/* Checks that a limit of a stage in the configuration is not above the daemon's own hard limit, which only
 * root may exceed. Returns 0, or EP_EACCESS with a message that begins with the key. */
static int check_against_hard_limit(const char *key, __rlimit_resource_t resource, uint64_t limit_value,
                                    struct error *error)
{
    struct rlimit own_limit;

    if (limit_value == 0 || geteuid() == 0 || getrlimit(resource, &own_limit) != 0 ||
        limit_value <= own_limit.rlim_max)
        return 0;
    return base_error_set(error, EP_EACCESS,
                          "%s: expected at most %" PRIu64
                          ", the daemon's own limit, which only root may exceed; "
                          "found %" PRIu64,
                          key, (uint64_t)own_limit.rlim_max, limit_value);
}

/* Checks whether this process may set the limits that the configuration gives a stage, which runs as user
 * `runs_as`. Returns 0, or EP_EACCESS with a message that begins with the key. The supervisor calls it
 * before it forks; otherwise the stage's workers would fail one after the other. */
int config_limits_check(const struct limits_config *limits, uid_t runs_as, struct error *error)
{
    if (limits->processes > 0 && runs_as == 0)
        return base_error_set(
            error, EP_EACCESS,
            "processes: this limit does not bind root, and the stage would run as root: give "
            "the stage a user (exec stages), or leave the limit out");
    int code = check_against_hard_limit("memory", RLIMIT_AS, limits->memory_bytes, error);
    if (code == 0)
        code = check_against_hard_limit("files", RLIMIT_NOFILE, limits->files, error);
    if (code == 0)
        code = check_against_hard_limit("processes", RLIMIT_NPROC, limits->processes, error);
    return code;
}
