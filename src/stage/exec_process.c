/* SPDX-License-Identifier: MIT */
/*
 * The process of an exec stage's program: how it starts and how it ends. Runs in the stage's worker, its
 * parent. Owns the pid until the process is reaped, its pidfd, and the worker's ends of two pipes.
 *
 * Invariants:
 *   1. The program never outlives its worker: it sets PR_SET_PDEATHSIG and then checks its parent once
 *      more.
 *   2. It begins with default signal dispositions, an empty signal mask, and only the descriptors 0, 1
 *      and 2; descriptor 2 is the worker's.
 *   3. A start failed if and only if the child reports an errno through the report pipe, which exec
 *      closes.
 *   4. no_new_privs is always set. The limits are set first, as the daemon's user; then the user changes;
 *      then the directory, so that the program has no more access to it than its user.
 *   5. Between fork and exec the child calls only async-signal-safe functions and allocates nothing:
 *      argv, environment and texts are made before the fork.
 * Nothing is fatal here; every failure is returned with a message.
 */
#include "src/stage/exec_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/slot.h" /* shm_now_ns */
#include "src/config/limits.h"
#include "src/config/user.h"

#define TERM_MS 1000 /* between SIGTERM and SIGKILL */

/* ---- the environment ---- */

struct environment {
    char **at; /* ends with NULL; the entries are borrowed */
    size_t count;
    char *own[7]; /* EVENTPIPE_..., USER, LOGNAME, HOME: freed by free_environment */
};

#define OWN_COUNT 4 /* EVENTPIPE_... */

static char *make_assignment(const char *name, const char *value)
{
    char *entry;
    return asprintf(&entry, "%s=%s", name, value) < 0 ? NULL : entry;
}

/* Exec stage: sets a variable in the environment for the program; a later one of the same name replaces an
 * earlier one. The worker calls it before the fork. */
static void put_variable(struct environment *environment, char *entry)
{
    size_t name = strcspn(entry, "=");

    for (size_t i = 0; i < environment->count; i++)
        if (strncmp(environment->at[i], entry, name) == 0 && environment->at[i][name] == '=') {
            environment->at[i] = entry;
            return;
        }
    environment->at[environment->count++] = entry;
    environment->at[environment->count] = NULL;
}

/* Exec stage: a worker frees the program's environment after the start. */
static void free_environment(struct environment *environment)
{
    for (size_t i = 0; i < sizeof environment->own / sizeof environment->own[0]; i++)
        free(environment->own[i]);
    free(environment->at);
}

/* Exec stage: a worker builds the environment of the stage's program: its own, then USER and HOME of
 * another user, then the configured variables, then EVENTPIPE_... It does so before the fork, because the
 * child must not allocate. */
static int build_environment(const struct stage_config *config, const struct stage_env *env,
                             const struct config_user *user, struct environment *out)
{
    size_t inherited = 0, own = user->name != NULL ? OWN_COUNT + 3 : OWN_COUNT;
    bool complete = true;

    *out = (struct environment){0};
    while (environ != NULL && environ[inherited] != NULL)
        inherited++;
    out->at = calloc(inherited + config->environment.count + own + 1, sizeof *out->at);
    char worker[16];
    snprintf(worker, sizeof worker, "%u", env->worker);
    out->own[0] = make_assignment("EVENTPIPE_INSTANCE", env->instance);
    out->own[1] = make_assignment("EVENTPIPE_SOURCE", env->source);
    out->own[2] = make_assignment("EVENTPIPE_STAGE", config->name);
    out->own[3] = make_assignment("EVENTPIPE_WORKER", worker);
    if (user->name != NULL) {
        out->own[4] = make_assignment("USER", user->name);
        out->own[5] = make_assignment("LOGNAME", user->name);
        out->own[6] = make_assignment("HOME", user->home);
    }
    for (size_t i = 0; i < own; i++)
        complete = complete && out->own[i] != NULL;
    if (out->at == NULL || !complete) {
        free_environment(out);
        return EP_ENOMEM;
    }
    for (size_t i = 0; i < inherited; i++)
        put_variable(out, environ[i]);
    for (size_t i = OWN_COUNT; i < own; i++)
        put_variable(out, out->own[i]);
    for (size_t i = 0; i < config->environment.count; i++)
        put_variable(out, config->environment.at[i]);
    for (size_t i = 0; i < OWN_COUNT; i++)
        put_variable(out, out->own[i]);
    return 0;
}

/* ---- the child, between fork and exec ---- */

enum step { STEP_SETUP = 1, STEP_LIMITS, STEP_USER, STEP_DIRECTORY, STEP_RUN };
struct report {
    int step, error;
    char limit[16]; /* which, where step says so */
};

struct start {
    const struct stage_config *config;
    const struct config_user *user;
    char **environment;
    pid_t parent;
    int input[2], output[2], report[2];
};

static void child_report(const struct start *start, const struct report *report) __attribute__((noreturn));
static void child_fail(const struct start *start, enum step step) __attribute__((noreturn));

static void child_report(const struct start *start, const struct report *report)
{
    ssize_t written = write(start->report[1], report, sizeof *report);
    _exit(written == (ssize_t)sizeof *report ? 127 : 126);
}

static void child_fail(const struct start *start, enum step step)
{
    const struct report report = {.step = (int)step, .error = errno};
    child_report(start, &report);
}

/* Exec stage, in the worker's child that becomes the program: makes the kernel kill the program when its
 * worker ends. Called again after a change of user, which clears the setting. */
static void child_bind(const struct start *start)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
        child_fail(start, STEP_SETUP);
    if (getppid() != start->parent)
        _exit(126); /* the worker crashed before the prctl: no process reads a report */
}

/* Exec stage, in the worker's child that becomes the program: makes its new user the owner of the pipes,
 * so that it can open /dev/stderr and the like. Files and terminals, such as a test's standard error, keep
 * their owner. */
static void child_give_pipes(const struct config_user *user)
{
    struct stat status;
    for (int fd = 0; fd <= 2; fd++)
        if (fstat(fd, &status) == 0 && S_ISFIFO(status.st_mode) && fchown(fd, user->uid, user->gid) != 0)
            break; /* not permitted: the program can still use them */
}

/* Exec stage, in the worker's child that becomes the program: sets the limits, then the user: a limit may
 * be above what the user could set. */
static void child_confine(const struct start *start)
{
    struct report report = {.step = STEP_LIMITS};
    const char *limit;

    report.error = config_limits_set(&start->config->limits, &limit);
    if (report.error != 0) {
        memcpy(report.limit, limit, strlen(limit) + 1);
        child_report(start, &report);
    }
    if (!start->user->changes)
        return;
    child_give_pipes(start->user);
    errno = config_user_become(start->user);
    if (errno != 0)
        child_fail(start, STEP_USER);
    child_bind(start);
}

static void run_child(const struct start *start) __attribute__((noreturn));

/* Exec stage: runs in the worker's child between fork and exec. Prepares descriptors, signals, limits,
 * user and directory, then executes the stage's program. Reports a failure to the worker through a pipe.
 * Only async-signal-safe calls are allowed here. */
static void run_child(const struct start *start)
{
    child_bind(start);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || dup2(start->input[0], 0) < 0 ||
        dup2(start->output[1], 1) < 0)
        child_fail(start, STEP_SETUP);
    /* A library may have opened a descriptor without O_CLOEXEC; the report pipe has it already. */
    if (close_range(3, ~0u, CLOSE_RANGE_CLOEXEC) != 0)
        child_fail(start, STEP_SETUP);
    for (int signo = 1; signo < NSIG; signo++)
        signal(signo, SIG_DFL); /* fails for KILL, STOP and the C library's own, which need no change */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    child_confine(start);
    if (start->config->directory != NULL && chdir(start->config->directory) != 0)
        child_fail(start, STEP_DIRECTORY);
    environ = start->environment; /* before execvp, so that it searches the stage's own PATH */
    execvp(start->config->exec.at[0], start->config->exec.at);
    child_fail(start, STEP_RUN);
}

/* ---- start ---- */

/* Exec stage: a worker closes both ends of a pipe that it did not hand on, after the start of the program. */
static void close_pipe(int pair[2])
{
    for (int i = 0; i < 2; i++)
        if (pair[i] >= 0)
            close(pair[i]);
    pair[0] = pair[1] = -1;
}

/* Exec stage: a worker opens a pipe with both ends above 2, so that dup2 in the child never overwrites one
 * of them. Returns 0 or a negative errno. */
static int open_pipe(int pair[2])
{
    if (pipe2(pair, O_CLOEXEC) != 0) {
        pair[0] = pair[1] = -1;
        return -errno;
    }
    for (int i = 0; i < 2; i++) {
        if (pair[i] > 2)
            continue;
        int lifted = fcntl(pair[i], F_DUPFD_CLOEXEC, 3);
        if (lifted < 0)
            return -errno; /* the caller closes the pair */
        close(pair[i]);
        pair[i] = lifted;
    }
    return 0;
}

static int set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 ? -errno : 0;
}

/* Exec stage: a worker writes the error message for a program that did not start, by the step that failed
 * in the child: limits, user, directory or exec. */
static int report_start_failure(const struct stage_config *config, const struct report *report,
                                struct error *error)
{
    const char *program = config->exec.at[0];
    const char *why = strerror(report->error);

    if (report->step == STEP_DIRECTORY)
        return base_error_set(error, EP_ESYSTEM, "cannot run %s: directory %s: %s", program,
                              config->directory, why);
    if (report->step == STEP_LIMITS)
        return base_error_set(error, EP_ESYSTEM, "cannot run %s: its limit of %s: %s", program, report->limit,
                              why);
    if (report->step == STEP_USER)
        return base_error_set(error, EP_ESYSTEM, "cannot run %s as another user: %s", program, why);
    if (report->step == STEP_SETUP)
        return base_error_set(error, EP_ESYSTEM, "cannot run %s: preparing its process: %s", program, why);
    const char *as = config->user != NULL ? config->user : "";
    return base_error_set(error, report->error == ENOENT ? EP_ENOENT : EP_ESYSTEM, "cannot run %s%s%s: %s",
                          program, as[0] != '\0' ? " as " : "", as, why);
}

/* Exec stage: a worker forks the child that becomes the stage's program. All signals are blocked around
 * fork, so that no handler of the worker runs in the child. */
static pid_t fork_child(const struct start *start)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = fork();
    if (pid == 0)
        run_child(start);
    int saved = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = saved;
    return pid;
}

static void reap_failed_child(pid_t pid)
{
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

/* Exec stage: a worker opens the pipes, forks, and waits until the program runs or the child reports why
 * it does not. The caller closes what is left of the pipes. */
static int launch_program(struct start *start, struct exec_process *out, struct error *error)
{
    const struct stage_config *config = start->config;
    int code = open_pipe(start->input);

    if (code == 0)
        code = open_pipe(start->output);
    if (code == 0)
        code = open_pipe(start->report);
    if (code == 0)
        code = set_nonblocking(start->input[1]);
    if (code == 0)
        code = set_nonblocking(start->output[0]);
    if (code != 0)
        return base_error_set(error, EP_ESYSTEM, "cannot run %s: pipe: %s", config->exec.at[0],
                              strerror(-code));

    pid_t pid = fork_child(start);
    if (pid < 0)
        return base_error_set(error, EP_ESYSTEM, "cannot run %s: fork: %s", config->exec.at[0],
                              strerror(errno));
    close(start->report[1]);
    start->report[1] = -1;

    struct report report;
    ssize_t got;
    do
        got = read(start->report[0], &report, sizeof report);
    while (got < 0 && errno == EINTR);
    if (got == (ssize_t)sizeof report) {
        reap_failed_child(pid);
        return report_start_failure(config, &report, error);
    }
    int handle = pidfd_open(pid, 0);
    if (handle < 0) {
        code = errno;
        kill(pid, SIGKILL);
        reap_failed_child(pid);
        return base_error_set(error, EP_ESYSTEM, "cannot run %s: pidfd: %s", config->exec.at[0],
                              strerror(code));
    }
    *out = (struct exec_process){.pid = pid,
                                 .handle = handle,
                                 .input = start->input[1],
                                 .output = start->output[0]};
    start->input[1] = start->output[0] = -1;
    return 0;
}

/* Exec stage: a worker starts the stage's program when it opens the stage. Returns when the program runs,
 * or an error with the reason. *out is set on success only. */
int stage_exec_process_start(const struct stage_config *config, const struct stage_env *env,
                             struct exec_process *out, struct error *error)
{
    struct environment environment;
    struct config_user user;

    if (config->exec.count == 0)
        return base_error_set(error, EP_EINVAL, "exec: no program is given");
    int code = config_user_find(config, &user, error);
    if (code != 0)
        return base_error_prefix(error, "cannot run %s", config->exec.at[0]);
    if (build_environment(config, env, &user, &environment) != 0) {
        config_user_free(&user);
        return base_error_set(error, EP_ENOMEM, "cannot run %s: out of memory", config->exec.at[0]);
    }
    struct start start = {
        .config = config,
        .user = &user,
        .environment = environment.at,
        .parent = getpid(),
        .input = {-1, -1},
        .output = {-1, -1},
        .report = {-1, -1},
    };
    code = launch_program(&start, out, error);
    close_pipe(start.input);
    close_pipe(start.output);
    close_pipe(start.report);
    free_environment(&environment);
    config_user_free(&user);
    return code;
}

/* ---- exit ---- */

/* Exec stage, in a worker: turns a status of waitpid into exit code or signal, for the crash record. */
static void decode_exit_status(int status, struct exec_exit *exit_status)
{
    if (WIFSIGNALED(status))
        *exit_status = (struct exec_exit){SHM_CAUSE_SIGNAL, WTERMSIG(status)};
    else
        *exit_status = (struct exec_exit){SHM_CAUSE_EXIT, WEXITSTATUS(status)};
}

/* Exec stage, in a worker: reaps the ended program and notes how it ended. Without it the program would
 * stay a zombie. */
static void reap_program(struct exec_process *process, struct exec_exit *exit_status)
{
    int status = 0;
    pid_t pid;

    do
        pid = waitpid(process->pid, &status, 0);
    while (pid < 0 && errno == EINTR);
    if (pid < 0)
        status = 0; /* SIGCHLD is ignored: the exit status is unknown */
    decode_exit_status(status, exit_status);
    process->pid = 0;
}

/* Reads and drops output of the program. Returns false at the end of its output. */
static bool discard_output(const struct exec_process *process)
{
    char bytes[4096];
    ssize_t got = read(process->output, bytes, sizeof bytes);
    return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

/* Exec stage: a worker waits up to wait_ms for the program to end, and drops its output, since a program
 * that blocks on a full pipe never ends. Returns 0 if it ended and is reaped, 1 if it still runs. */
int stage_exec_process_wait(struct exec_process *process, uint64_t wait_ms, struct exec_exit *exit_status)
{
    uint64_t begin = shm_now_ns();
    struct pollfd watched[2] = {{process->handle, POLLIN, 0}, {process->output, POLLIN, 0}};

    for (;;) {
        uint64_t spent_ms = (shm_now_ns() - begin) / 1000000;
        uint64_t left_ms = spent_ms >= wait_ms ? 0 : wait_ms - spent_ms;
        int ready = poll(watched, 2, left_ms > 60000 ? 60000 : (int)left_ms);
        if (ready > 0 && watched[0].revents != 0) {
            reap_program(process, exit_status);
            return 0;
        }
        if (left_ms == 0)
            return 1;
        if (ready > 0 && watched[1].revents != 0 && !discard_output(process))
            watched[1].fd = -1;
    }
}

void stage_exec_process_kill(struct exec_process *process, struct exec_exit *exit_status)
{
    kill(process->pid, SIGKILL);
    reap_program(process, exit_status);
}

/* Exec stage: a worker ends the program gracefully when it closes its stage: closes its stdin, waits
 * wait_ms, sends SIGTERM, and SIGKILL one second later. */
void stage_exec_process_end(struct exec_process *process, uint64_t wait_ms)
{
    struct exec_exit exit_status;

    if (process->pid == 0)
        return;
    if (process->input >= 0)
        close(process->input);
    process->input = -1;
    if (stage_exec_process_wait(process, wait_ms, &exit_status) == 0)
        return;
    kill(process->pid, SIGTERM);
    if (stage_exec_process_wait(process, TERM_MS, &exit_status) != 0)
        stage_exec_process_kill(process, &exit_status);
}

/* Exec stage: a worker closes its descriptors of a program that was reaped. */
void stage_exec_process_close(struct exec_process *process)
{
    if (process->input >= 0)
        close(process->input);
    if (process->output >= 0)
        close(process->output);
    if (process->handle >= 0)
        close(process->handle);
    *process = (struct exec_process){.pid = 0, .handle = -1, .input = -1, .output = -1};
}
