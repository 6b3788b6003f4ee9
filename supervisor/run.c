/* SPDX-License-Identifier: MIT */
/*
 * The supervisor in a process of its own, for the library: forked from the caller, which waits for it. The
 * new process keeps the caller's descriptors and memory (its stages and clients are functions of the
 * caller's) and gives up its signal handlers. It has a process group of its own, so that a terminal's Ctrl-C
 * reaches the caller alone, which decides; and it stops gracefully when the caller exits.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/base/log.h"
#include "supervisor/signal.h"
#include "supervisor/supervisor.h"

static void run_here(const struct supervisor_options *options, pid_t parent, int result_fd)
    __attribute__((noreturn));

static void run_here(const struct supervisor_options *options, pid_t parent, int result_fd)
{
    setpgid(0, 0);
    signal_forked();
    __fpurge(stdout); /* what could not be flushed stays the caller's */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(1);
    base_log_name("supervisor");
    struct error error = {0};
    error.code = supervisor_run(options, &error);
    ssize_t ignored = write(result_fd, &error, sizeof error); /* smaller than a pipe: never waits */
    (void)ignored;
    _exit(error.code == 0 ? 0 : 1);
}

/*
 * What the caller has printed is not to be printed again by a stage. Only stdout: fflush(NULL) would wait for
 * every stream that a thread of the caller's has locked, by reading a line from it, say; and what waits in a
 * stream of the caller's own is written by nobody else but a stage that uses this stream.
 */
static void flush_stdout(void)
{
    if (ftrylockfile(stdout) != 0)
        return;
    fflush_unlocked(stdout);
    funlockfile(stdout);
}

int supervisor_fork(const struct supervisor_options *options, pid_t *pid, int *result_fd, struct error *error)
{
    int result[2];
    if (pipe2(result, O_CLOEXEC) != 0)
        return base_error_set(error, EP_ESYSTEM, "cannot make a pipe: %s", strerror(errno));
    flush_stdout();
    /* A stop may come as soon as the new process exists: neither the caller's handler nor the default may
     * have it. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        close(result[0]);
        run_here(options, parent, result[1]);
    }
    int reason = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(result[1]);
    if (child < 0) {
        close(result[0]);
        return base_error_set(error, EP_ESYSTEM, "cannot start a process: %s", strerror(reason));
    }
    *pid = child;
    *result_fd = result[0];
    return 0;
}

int supervisor_wait(pid_t pid, int result_fd, struct error *error)
{
    int status;
    pid_t ended;
    do
        ended = waitpid(pid, &status, 0);
    while (ended < 0 && errno == EINTR);
    /* Its children may hold the other end for a moment longer: what it had to say is in the pipe by now. */
    struct error reported;
    fcntl(result_fd, F_SETFL, O_NONBLOCK);
    ssize_t got = read(result_fd, &reported, sizeof reported);
    close(result_fd);
    if (got == (ssize_t)sizeof reported)
        return reported.code == 0 ? 0 : base_error_set(error, reported.code, "%s", reported.message);
    if (ended < 0)
        return base_error_set(error, EP_ESYSTEM, "the supervisor was waited for by somebody else: %s",
                              strerror(errno));
    if (WIFSIGNALED(status))
        return base_error_set(error, EP_ESYSTEM, "the supervisor was killed by signal %d", WTERMSIG(status));
    return base_error_set(error, EP_ESYSTEM, "the supervisor ended without a word, exit code %d",
                          WEXITSTATUS(status));
}
