/* SPDX-License-Identifier: MIT */
/*
 * What exited children leave behind: programs and whatever they started. Run by the supervisor, which is
 * their subreaper: an orphan becomes its child. So what is a child of ours and has no slot is an orphan, and
 * is killed; it leaves its own children to us in turn, until none is left. A process of a living worker is
 * never touched: its parent is the worker.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "src/base/log.h"
#include "supervisor/family.h"

int orphan_adopt(void)
{
    return prctl(PR_SET_CHILD_SUBREAPER, 1) == 0 ? 0 : EP_ESYSTEM;
}

static bool has_slot(const struct supervisor *supervisor, pid_t pid)
{
    for (uint32_t i = 0; i < supervisor->child_count; i++)
        if (supervisor->children[i].pid == pid)
            return true;
    return false;
}

static uint32_t kill_one(const struct supervisor *supervisor, pid_t pid)
{
    if (pid <= 1 || has_slot(supervisor, pid))
        return 0;
    base_log_debug("kill-orphan pid=%d", (int)pid);
    kill(pid, SIGKILL); /* a zombie by now: no harm, it is reaped with the others */
    return 1;
}

/* Whether /proc could not be looked at just now: without descriptors or memory. Where there is none at all,
 * there is nothing to wait for. */
static bool for_now(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM;
}

/* Kernels without the list of children in /proc: looks at every process. */
static bool scan_all(const struct supervisor *supervisor)
{
    uint32_t found = 0;
    DIR *proc = opendir("/proc");
    if (proc == NULL)
        return for_now(errno);
    bool unknown = false;
    for (struct dirent *entry; (entry = readdir(proc)) != NULL;) {
        char path[sizeof entry->d_name + 16], stat[512];
        long pid = strtol(entry->d_name, NULL, 10);
        if (pid <= 1)
            continue;
        snprintf(path, sizeof path, "/proc/%ld/stat", pid);
        FILE *file = fopen(path, "re");
        if (file == NULL) {
            unknown |= for_now(errno);
            continue;
        }
        size_t bytes = fread(stat, 1, sizeof stat - 1, file);
        fclose(file);
        stat[bytes] = '\0';
        const char *name_end = strrchr(stat, ')');
        char state;
        int parent;
        if (name_end != NULL && sscanf(name_end + 1, " %c %d", &state, &parent) == 2 &&
            parent == supervisor->pid)
            found += kill_one(supervisor, (pid_t)pid);
    }
    closedir(proc);
    return found > 0 || unknown;
}

bool orphan_kill(struct supervisor *supervisor)
{
    FILE *file = fopen("/proc/thread-self/children", "re");
    if (file == NULL)
        return scan_all(supervisor);
    uint32_t found = 0;
    for (int pid; fscanf(file, "%d", &pid) == 1;)
        found += kill_one(supervisor, pid);
    fclose(file);
    return found > 0;
}
