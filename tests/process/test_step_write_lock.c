/* SPDX-License-Identifier: MIT */
/*
 * Whoever holds the write lock may be killed at any instruction: the next gets in all the same. A holder
 * under ptrace enters, or leaves, or waits for its turn, and is killed after k instructions, for every k
 * until it is through; another process waits behind it for real, or comes afterwards. That one must get in
 * by itself and not by its time-out, also when the kill came between the mutex let go and the system call
 * that wakes the next.
 */
#include "tests/lib/step_rig.h"

#include "shm/write_lock.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#define TIMEOUT_MS 60000 /* a waiter's; it is in within a slice of it, on any machine */
#define LINE_UPS 100     /* tries */
#define MOST_INSTRUCTIONS 20000
#define FAULTS_ENOUGH 2

static pthread_mutex_t *write_lock;
static uint32_t faults;

static void fault(const char *what, uint32_t k, const char *message)
{
    fprintf(stderr, "FAULT in %s, killed after %u: %s\n", what, k, message);
    faults++;
}

/* --- what is killed */

static void enters(void *user)
{
    (void)user;
    step_mark();
    write_lock_acquire(write_lock, TIMEOUT_MS);
    step_mark();
}

static void leaves(void *user)
{
    (void)user;
    if (write_lock_acquire(write_lock, TIMEOUT_MS) != 0)
        _exit(EXIT_FAILURE);
    step_mark();
    write_lock_release(write_lock);
    step_mark();
}

static void passes(void *user)
{
    (void)user;
    step_mark();
    write_lock_acquire(write_lock, TIMEOUT_MS);
    write_lock_release(write_lock);
    step_mark();
}

/* --- who waits */

struct waiter {
    pid_t pid;
    int answers;
};

static struct waiter waiter_start(void)
{
    struct waiter waiter = {-1, -1};
    int answers[2];
    char byte;
    if (pipe(answers) != 0 || (waiter.pid = fork()) < 0) {
        perror("a waiter");
        exit(EXIT_FAILURE);
    }
    if (waiter.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (write(answers[1], "b", 1) != 1)
            _exit(EXIT_FAILURE);
        int result = write_lock_acquire(write_lock, TIMEOUT_MS);
        if (result == 0)
            write_lock_release(write_lock);
        _exit(write(answers[1], result == 0 ? "i" : "o", 1) != 1);
    }
    close(answers[1]);
    waiter.answers = answers[0];
    if (read(waiter.answers, &byte, 1) != 1)
        exit(EXIT_FAILURE);
    return waiter;
}

static bool waiter_got_in(struct waiter *waiter)
{
    char byte = 'o';
    struct pollfd wait = {waiter->answers, POLLIN, 0};
    bool in = poll(&wait, 1, STEP_PATIENCE_MS) == 1 && read(waiter->answers, &byte, 1) == 1 && byte == 'i';
    step_kill(waiter->pid);
    close(waiter->answers);
    return in;
}

/* --- the runs */

static void fresh_write_lock(void)
{
    memset(write_lock, 0, sizeof(pthread_mutex_t));
    if (write_lock_init(write_lock) != 0)
        exit(EXIT_FAILURE);
}

/* Whoever comes now, and comes again, finds it open. */
static void check_open(const char *what, uint32_t k)
{
    for (int i = 0; i < 2; i++) {
        if (write_lock_acquire(write_lock, TIMEOUT_MS) != 0)
            fault(what, k, "it stays held for who comes afterwards");
        write_lock_release(write_lock);
    }
}

struct trial {
    const char *what;
    void (*body)(void *user);
    bool waits; /* another process waits while it is killed */
};

static enum step_stop one_kill(const struct trial *trial, uint32_t k)
{
    struct waiter waiter = {-1, -1};
    fresh_write_lock();
    pid_t pid = step_fork(trial->body, NULL);
    if (trial->waits) {
        waiter = waiter_start();
        if (!step_asleep(waiter.pid))
            fault(trial->what, k, "nobody waits"); /* the rig's own failing */
    }
    enum step_stop stop = pid > 0 ? step_on(pid, k) : STEP_LOST;
    if (stop == STEP_LOST)
        fault(trial->what, k, "the process was lost");
    step_kill(pid);
    if (trial->waits && !waiter_got_in(&waiter))
        fault(trial->what, k, "who waited did not get in");
    check_open(trial->what, k);
    return stop;
}

/* Steps on until it sleeps in a system call, which is under way then. */
static bool step_to_sleep(pid_t pid)
{
    int status;
    for (uint32_t i = 0; i < MOST_INSTRUCTIONS; i++) {
        pid_t stopped = 0;
        if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0)
            return false;
        while ((stopped = waitpid(pid, &status, WNOHANG)) == 0)
            if (step_state(pid) == 'S')
                return true;
        if (stopped < 0 || !WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP)
            return false;
    }
    return false;
}

/* We hold the lock; one process sleeps until its turn comes, another behind it. False: on a busy machine the
 * first may need longer for its steps than it wants to sleep. */
static bool line_up(pid_t *pid, struct waiter *waiter)
{
    fresh_write_lock();
    if (write_lock_acquire(write_lock, TIMEOUT_MS) != 0)
        return false;
    *pid = step_fork(passes, NULL);
    bool sleeps = *pid > 0 && step_to_sleep(*pid);
    *waiter = waiter_start();
    if (sleeps && step_asleep(waiter->pid))
        return true;
    step_kill(*pid);
    step_kill(waiter->pid);
    close(waiter->answers);
    return false;
}

/* We leave, and the first in line is killed k instructions later. */
static enum step_stop one_kill_in_line(const char *what, uint32_t k)
{
    pid_t pid;
    struct waiter waiter;
    for (int tries = 1; !line_up(&pid, &waiter); tries++)
        if (tries == LINE_UPS) {
            fault(what, k, "nobody waits"); /* the rig's own failing */
            return STEP_LOST;
        }
    write_lock_release(write_lock);
    enum step_stop stop = k > 0 ? step_wait(pid) : STEP_HALTED;
    if (stop == STEP_HALTED && k > 1)
        stop = step_on(pid, k - 1);
    step_kill(pid);
    if (stop == STEP_LOST)
        fault(what, k, "the process was lost");
    if (!waiter_got_in(&waiter))
        fault(what, k, "who waited behind it did not get in");
    check_open(what, k);
    return stop;
}

int main(void)
{
    static const struct trial trials[] = {
        {"entering", enters, false},
        {"leaving", leaves, false},
        {"leaving while one waits", leaves, true},
        {"entering and leaving", passes, false},
    };
    uint32_t kills = 0;
    step_or_skip();
    write_lock =
        mmap(NULL, sizeof(pthread_mutex_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (write_lock == MAP_FAILED)
        return EXIT_FAILURE;
    for (size_t i = 0; i < sizeof trials / sizeof trials[0]; i++) {
        uint32_t k = 0;
        while (faults < FAULTS_ENOUGH && k < MOST_INSTRUCTIONS && one_kill(&trials[i], k) == STEP_HALTED)
            k++;
        printf("%-32s %5u kills\n", trials[i].what, k);
        fflush(stdout);
        kills += k;
    }
    uint32_t k = 0;
    while (faults < FAULTS_ENOUGH && k < MOST_INSTRUCTIONS && one_kill_in_line("in line", k) == STEP_HALTED)
        k++;
    kills += k;
    printf("%-32s %5u kills\n%u kills, %u faults\n", "in line", k, kills, faults);
    return faults == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
