/* SPDX-License-Identifier: MIT */
/*
 * Orphans: programs that exited children left running, and what those started. Run by the supervisor,
 * which is their subreaper: the kernel makes an orphan its child.
 *
 * Invariants
 *  1. A child without a slot is an orphan, and is killed. Its own children then become ours, and are
 *     killed in the next call, until none is left.
 *  2. A process of a running worker is never killed: its parent is the worker.
 *
 * Nothing here is fatal: without /proc orphans are not found, and the instance runs on.
 */
#include "supervisor/orphan.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "src/base/log.h"
#include "supervisor/state.h"

int orphan_adopt(void)
{
    return prctl(PR_SET_CHILD_SUBREAPER, 1) == 0 ? 0 : EP_ESYSTEM;
}

void orphan_disown(void)
{
    prctl(PR_SET_CHILD_SUBREAPER, 0);
}

/* Whether this child of the supervisor is a worker, producer or keeper that it has forked. Any other child
 * is an orphan that an exited process left. */
static bool has_process_slot(const struct supervisor *supervisor, pid_t pid)
{
    for (uint32_t i = 0; i < supervisor->child_count; i++)
        if (supervisor->children[i].pid == pid)
            return true;
    return false;
}

/* Kills this child of the supervisor if it is an orphan, a program that an exited process left running.
 * Returns how many it killed (0 or 1), so that the two functions that search for orphans can add it up. */
static uint32_t kill_if_orphan(const struct supervisor *supervisor, pid_t pid)
{
    if (pid <= 1 || has_process_slot(supervisor, pid))
        return 0;
    base_log_debug("kill-orphan pid=%d", (int)pid);
    kill(pid, SIGKILL); /* it may be a zombie already, which is harmless */
    return 1;
}

/* Whether the supervisor could not read /proc only for lack of descriptors or memory, so that a later try
 * may succeed. */
static bool is_temporary_error(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM;
}

/* Kills the supervisor's orphans on kernels that do not list a process's children in /proc: reads the
 * parent of every process. Returns true if it must be called again. orphan_kill calls it. */
static bool kill_orphans_by_scan(const struct supervisor *supervisor)
{
    uint32_t killed_count = 0;
    DIR *proc_directory = opendir("/proc");
    if (proc_directory == NULL)
        return is_temporary_error(errno);
    bool must_retry = false;
    for (struct dirent *proc_entry; (proc_entry = readdir(proc_directory)) != NULL;) {
        char path[sizeof proc_entry->d_name + 16], stat_text[512];
        long pid = strtol(proc_entry->d_name, NULL, 10);
        if (pid <= 1)
            continue;
        snprintf(path, sizeof path, "/proc/%ld/stat", pid);
        FILE *file = fopen(path, "re");
        if (file == NULL) {
            must_retry |= is_temporary_error(errno);
            continue;
        }
        size_t stat_bytes = fread(stat_text, 1, sizeof stat_text - 1, file);
        fclose(file);
        stat_text[stat_bytes] = '\0';
        const char *name_end = strrchr(stat_text, ')');
        char process_state;
        int parent_pid;
        if (name_end != NULL && sscanf(name_end + 1, " %c %d", &process_state, &parent_pid) == 2 &&
            parent_pid == supervisor->pid)
            killed_count += kill_if_orphan(supervisor, (pid_t)pid);
    }
    closedir(proc_directory);
    return killed_count > 0 || must_retry;
}

/* Kills every orphan of the supervisor: a child without a process slot, such as a program that an exited
 * worker left running. The supervisor calls it after an exit, and once a turn while there may be orphans.
 * Returns true if it must be called again: the children of those it killed become children of the
 * supervisor, too, or /proc could not be read. */
bool orphan_kill(struct supervisor *supervisor)
{
    FILE *file = fopen("/proc/thread-self/children", "re");
    if (file == NULL)
        return kill_orphans_by_scan(supervisor);
    uint32_t killed_count = 0;
    for (int pid; fscanf(file, "%d", &pid) == 1;)
        killed_count += kill_if_orphan(supervisor, pid);
    fclose(file);
    return killed_count > 0;
}
