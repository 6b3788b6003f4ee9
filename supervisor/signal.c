/* SPDX-License-Identifier: MIT */
/*
 * Signals of the supervisor. They are blocked, and read from a signalfd in the loop; no handler runs.
 * The caller's mask and its dispositions of SIGPIPE and SIGCHLD are restored at the end: SIGPIPE is
 * ignored, because clients and the log's reader may disconnect.
 */
#include "supervisor/signal.h"

#include <errno.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "src/base/log.h"
#include "supervisor/phase.h"
#include "supervisor/recover.h"
#include "supervisor/state.h"

/* Returns the set of the signals that the supervisor blocks and reads in its loop: SIGCHLD, SIGTERM,
 * SIGINT, SIGHUP, SIGUSR1. */
static sigset_t make_handled_signal_set(void)
{
    static const int handled[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR1};
    sigset_t handled_signals;
    sigemptyset(&handled_signals);
    for (size_t i = 0; i < sizeof handled / sizeof handled[0]; i++)
        sigaddset(&handled_signals, handled[i]);
    return handled_signals;
}

/* Blocks the supervisor's signals and opens a descriptor from which its loop reads them, so that no
 * signal handler runs. The supervisor calls it at its start, before it forks. Returns 0 or -errno. */
int signal_open(struct supervisor *supervisor)
{
    sigset_t handled_signals = make_handled_signal_set();
    supervisor->signal_fd = signalfd(-1, &handled_signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (supervisor->signal_fd < 0)
        return -errno;
    sigprocmask(SIG_BLOCK, &handled_signals, &supervisor->old_mask);
    const struct sigaction ignore_action = {.sa_handler = SIG_IGN}, default_action = {.sa_handler = SIG_DFL};
    sigaction(SIGPIPE, &ignore_action, &supervisor->old_pipe);
    /* If our parent left SIGCHLD ignored, the kernel would reap our children, and we would see no exit. */
    sigaction(SIGCHLD, &default_action, &supervisor->old_child);
    return 0;
}

/* Drops signals that are still pending, and restores the signal mask and dispositions that the
 * supervisor found at its start. The supervisor calls it at its end. */
void signal_restore(struct supervisor *supervisor)
{
    if (supervisor->signal_fd < 0)
        return;
    struct signalfd_siginfo info; /* pending signals were meant for us, not for the caller's handlers */
    while (read(supervisor->signal_fd, &info, sizeof info) > 0)
        continue;
    close(supervisor->signal_fd);
    supervisor->signal_fd = -1;
    sigaction(SIGPIPE, &supervisor->old_pipe, NULL);
    sigaction(SIGCHLD, &supervisor->old_child, NULL);
    sigprocmask(SIG_SETMASK, &supervisor->old_mask, NULL);
}

static void reset_dispositions(void)
{
    const struct sigaction default_action = {.sa_handler = SIG_DFL};
    for (int number = 1; number < NSIG; number++)
        sigaction(number, &default_action, NULL); /* those that cannot be set are at their default */
}

/* Sets all signals to their default action and unblocks them. A newly forked worker, producer or keeper
 * calls it; otherwise it would inherit the signals that the supervisor blocks. */
void signal_reset_in_child(void)
{
    reset_dispositions();
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

void signal_reset_in_supervisor(void)
{
    reset_dispositions();
    sigset_t handled_signals = make_handled_signal_set();
    sigprocmask(SIG_SETMASK, &handled_signals, NULL);
}

/* Does what a signal asks of the supervisor: SIGCHLD = recover exited processes, SIGTERM and SIGINT =
 * stop, a second one = kill all, SIGUSR1 = drain. SIGHUP is refused, because the configuration is read
 * at the start only. */
static void act_on_signal(struct supervisor *supervisor, uint32_t number)
{
    switch (number) {
    case SIGCHLD:
        recover_children(supervisor);
        break;
    case SIGTERM:
    case SIGINT:
        base_log_info("stop-requested signal=%s", number == SIGTERM ? "TERM" : "INT");
        if (supervisor_phase(supervisor) < SHM_PHASE_STOPPING)
            phase_stop(supervisor);
        else
            phase_stop_now(supervisor);
        break;
    case SIGUSR1:
        base_log_info("drain-requested signal=USR1");
        phase_drain(supervisor);
        break;
    default:
        base_log_warning(
            "reload-refused signal=HUP reason=\"the configuration is read at start only; restart to "
            "change it\"");
    }
}

void signal_read(struct supervisor *supervisor)
{
    struct signalfd_siginfo info;
    while (read(supervisor->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
        act_on_signal(supervisor, info.ssi_signo);
}
