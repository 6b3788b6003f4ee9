/* SPDX-License-Identifier: MIT */
/*
 * The supervisor in a process of its own, for the library. supervisor_fork and supervisor_wait run in
 * the caller's process, run_supervisor_process in the new one.
 *
 * Invariants
 *  1. The new process keeps the caller's descriptors and memory, because the caller's stages and clients are
 *     functions in them. It drops the caller's signal handlers.
 *  2. It has a process group of its own, so that Ctrl-C in a terminal reaches only the caller, which decides.
 *  3. It stops gracefully when the calling thread exits.
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

static void run_supervisor_process(const struct supervisor_options *options, pid_t parent, int result_fd)
    __attribute__((noreturn));

/* Runs in a process that the library's caller has forked: is the supervisor of one run, writes the
 * result to the pipe and exits. Exits at once if the caller has died since the fork. SIGTERM stops it
 * gracefully when the calling thread exits. */
static void run_supervisor_process(const struct supervisor_options *options, pid_t parent_pid, int result_fd)
{
    setpgid(0, 0);
    signal_reset_in_supervisor();
    __fpurge(stdout); /* the caller writes what it could not flush */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent_pid)
        _exit(1);
    base_log_set_name("supervisor");
    struct error error = {0};
    error.code = supervisor_run(options, &error);
    ssize_t ignored = write(result_fd, &error, sizeof error); /* fits into the pipe: never blocks */
    (void)ignored;
    _exit(error.code == 0 ? 0 : 1);
}

/*
 * Flushes stdout before the library forks a supervisor, so that no stage prints again what the caller has
 * printed.
 *
 * Only stdout: fflush(NULL) would wait for every stream that a thread of the caller's has locked, for example
 * while it reads a line. Other buffered output of the caller is written twice only if a stage uses the same
 * stream.
 */
static void flush_stdout(void)
{
    if (ftrylockfile(stdout) != 0)
        return;
    fflush_unlocked(stdout);
    funlockfile(stdout);
}

/* Forks a process that runs the supervisor, and returns its process ID and the read end of the pipe
 * with its result. Runs in the library caller's process. All signals are blocked during the fork, so
 * that the caller's handlers never run in the new process. Returns 0 or EP_ESYSTEM. */
int supervisor_fork(const struct supervisor_options *options, pid_t *pid, int *result_fd, struct error *error)
{
    int result_pipe[2];
    if (pipe2(result_pipe, O_CLOEXEC) != 0)
        return base_error_set(error, EP_ESYSTEM, "cannot create a pipe to the supervisor: %s",
                              strerror(errno));
    flush_stdout();
    /* The new process may get a SIGTERM at once: neither the caller's handler nor the default action may
     * run. */
    sigset_t all_signals, old_mask;
    sigfillset(&all_signals);
    pthread_sigmask(SIG_SETMASK, &all_signals, &old_mask);
    pid_t parent_pid = getpid(), child_pid = fork();
    if (child_pid == 0) {
        close(result_pipe[0]);
        run_supervisor_process(options, parent_pid, result_pipe[1]);
    }
    int reason = errno;
    pthread_sigmask(SIG_SETMASK, &old_mask, NULL);
    close(result_pipe[1]);
    if (child_pid < 0) {
        close(result_pipe[0]);
        return base_error_set(error, EP_ESYSTEM, "cannot fork the supervisor: %s", strerror(reason));
    }
    *pid = child_pid;
    *result_fd = result_pipe[0];
    return 0;
}

/* Waits until the forked supervisor has exited and closes the pipe. Returns what supervisor_run
 * returned there, with its message, or EP_ESYSTEM if it crashed. Runs in the library caller's process.
 * */
int supervisor_wait(pid_t pid, int result_fd, struct error *error)
{
    int wait_status;
    pid_t waited_pid;
    do
        waited_pid = waitpid(pid, &wait_status, 0);
    while (waited_pid < 0 && errno == EINTR);
    /* Its children may hold the other end a moment longer, so do not wait for the end of the pipe. */
    struct error reported_error;
    fcntl(result_fd, F_SETFL, O_NONBLOCK);
    ssize_t read_bytes = read(result_fd, &reported_error, sizeof reported_error);
    close(result_fd);
    if (read_bytes == (ssize_t)sizeof reported_error)
        return reported_error.code == 0
                   ? 0
                   : base_error_set(error, reported_error.code, "%s", reported_error.message);
    if (waited_pid < 0)
        return base_error_set(error, EP_ESYSTEM,
                              "cannot wait for the supervisor (has the program reaped it?): %s",
                              strerror(errno));
    if (WIFSIGNALED(wait_status))
        return base_error_set(error, EP_ESYSTEM, "the supervisor was killed by signal %d",
                              WTERMSIG(wait_status));
    return base_error_set(error, EP_ESYSTEM,
                          "the supervisor exited without a result, exit code %d: see its log",
                          WEXITSTATUS(wait_status));
}
