/* SPDX-License-Identifier: MIT */
/*
 * What a trial leaves running, and the end of it. Whatever descends from the trial's process comes back to it
 * when its parent ends, whatever group or session it made for itself: the process is their reaper. Runs in
 * `eventpipe chaos`.
 *
 * Invariant: a signal goes only to children of ours that we have not reaped: their pids cannot be others'.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/slot.h"
#include "src/cli/chaos/chaos.h"

#define END_PATIENCE_MS 60000

struct process {
    pid_t pid, parent;
    bool ours;
    char name[32];
};
struct processes {
    struct process *at;
    size_t count;
};

static bool read_process(const char *number, struct process *out)
{
    char path[64], text[512], state;
    snprintf(path, sizeof path, "/proc/%.20s/stat", number);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t bytes = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
        close(fd);
    if (bytes <= 0)
        return false;
    text[bytes] = '\0';
    const char *open = strchr(text, '('), *closing = strrchr(text, ')');
    if (open == NULL || closing == NULL || sscanf(closing + 1, " %c %d", &state, &out->parent) != 2)
        return false;
    out->pid = (pid_t)atoi(number);
    out->ours = false;
    snprintf(out->name, sizeof out->name, "%.*s", (int)(closing - open - 1), open + 1);
    return state != 'Z' && state != 'X';
}

static struct processes read_all(void)
{
    struct processes all = {0};
    DIR *folder = opendir("/proc");
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        struct process found;
        if (!isdigit((unsigned char)entry->d_name[0]) || !read_process(entry->d_name, &found))
            continue;
        struct process *at = reallocarray(all.at, all.count + 1, sizeof *at);
        if (at == NULL)
            break;
        all.at = at;
        all.at[all.count++] = found;
    }
    if (folder != NULL)
        closedir(folder);
    return all;
}

/* Marks all that descends from us. */
static void mark(struct processes *all)
{
    pid_t self = getpid();
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < all->count; i++)
            for (size_t j = 0; !all->at[i].ours && j < all->count; j++)
                if (all->at[i].parent == self || (all->at[j].ours && all->at[i].parent == all->at[j].pid))
                    all->at[i].ours = more = true;
    }
}

static void reap(void)
{
    while (waitpid(-1, NULL, WNOHANG) > 0)
        continue;
}

void chaos_left_look(struct chaos *chaos, uint64_t patience_ms)
{
    uint64_t until = shm_now_ns() + patience_ms * UINT64_C(1000000);
    for (bool last = false;;) {
        reap();
        struct processes all = read_all();
        mark(&all);
        chaos->left_running = 0;
        size_t used = 0;
        for (size_t i = 0; i < all.count; i++) {
            if (!all.at[i].ours)
                continue;
            chaos->left_running++;
            if (used < sizeof chaos->left_words - 1)
                used += (size_t)snprintf(chaos->left_words + used, sizeof chaos->left_words - used,
                                         "%s%s (%d)", used > 0 ? ", " : "", all.at[i].name, all.at[i].pid);
        }
        free(all.at);
        if (chaos->left_running == 0 || last)
            return;
        chaos_sleep(20);
        last = shm_now_ns() > until || chaos_interrupted();
    }
}

void chaos_left_kill(void)
{
    uint64_t until = shm_now_ns() + END_PATIENCE_MS * UINT64_C(1000000);
    for (;;) {
        reap();
        if (waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD)
            return;
        struct processes all = read_all();
        for (size_t i = 0; i < all.count; i++)
            if (all.at[i].parent == getpid())
                kill(all.at[i].pid, SIGKILL);
        free(all.at);
        if (shm_now_ns() > until)
            return;
        usleep(2000);
    }
}
