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
    char *owned[7]; /* EVENTPIPE_..., USER, LOGNAME, HOME: freed by free_environment */
};

#define OWN_COUNT 4 /* EVENTPIPE_... */

static char *make_variable(const char *name, const char *value)
{
    char *entry;
    return asprintf(&entry, "%s=%s", name, value) < 0 ? NULL : entry;
}

/* Sets a variable, given as NAME=VALUE, in the environment of the stage's program, in place of an earlier
 * one of the same name. The array has room for it. The worker calls it before the fork. */
static void set_variable(struct environment *environment, char *assignment)
{
    size_t name_bytes = strcspn(assignment, "=");

    for (size_t i = 0; i < environment->count; i++)
        if (strncmp(environment->at[i], assignment, name_bytes) == 0 &&
            environment->at[i][name_bytes] == '=') {
            environment->at[i] = assignment;
            return;
        }
    environment->at[environment->count++] = assignment;
    environment->at[environment->count] = NULL;
}

/* Frees the environment that was built for the stage's program. The worker calls it after the start, when
 * the program has its own copy. */
static void free_environment(struct environment *environment)
{
    for (size_t i = 0; i < sizeof environment->owned / sizeof environment->owned[0]; i++)
        free(environment->owned[i]);
    free(environment->at);
}

/* Builds the environment of the stage's program: the worker's own, then USER, LOGNAME and HOME if it
 * runs as another user, then the configured variables, then EVENTPIPE_... Returns 0 or EP_ENOMEM. The
 * worker does this before the fork, because the child must not allocate. */
static int build_environment(const struct stage_config *config, const struct stage_env *env,
                             const struct config_user *user, struct environment *out)
{
    size_t inherited_count = 0, own_count = user->name != NULL ? OWN_COUNT + 3 : OWN_COUNT;
    bool has_all_variables = true;

    *out = (struct environment){0};
    while (environ != NULL && environ[inherited_count] != NULL)
        inherited_count++;
    out->at = calloc(inherited_count + config->environment.count + own_count + 1, sizeof *out->at);
    char worker_number[16];
    snprintf(worker_number, sizeof worker_number, "%u", env->worker);
    out->owned[0] = make_variable("EVENTPIPE_INSTANCE", env->instance);
    out->owned[1] = make_variable("EVENTPIPE_SOURCE", env->source);
    out->owned[2] = make_variable("EVENTPIPE_STAGE", config->name);
    out->owned[3] = make_variable("EVENTPIPE_WORKER", worker_number);
    if (user->name != NULL) {
        out->owned[4] = make_variable("USER", user->name);
        out->owned[5] = make_variable("LOGNAME", user->name);
        out->owned[6] = make_variable("HOME", user->home);
    }
    for (size_t i = 0; i < own_count; i++)
        has_all_variables = has_all_variables && out->owned[i] != NULL;
    if (out->at == NULL || !has_all_variables) {
        free_environment(out);
        return EP_ENOMEM;
    }
    for (size_t i = 0; i < inherited_count; i++)
        set_variable(out, environ[i]);
    for (size_t i = OWN_COUNT; i < own_count; i++)
        set_variable(out, out->owned[i]);
    for (size_t i = 0; i < config->environment.count; i++)
        set_variable(out, config->environment.at[i]);
    for (size_t i = 0; i < OWN_COUNT; i++)
        set_variable(out, out->owned[i]);
    return 0;
}

/* ---- the child, between fork and exec ---- */

enum step { STEP_SETUP = 1, STEP_LIMITS, STEP_USER, STEP_DIRECTORY, STEP_RUN };
struct report {
    int step, error;
    char limit[16]; /* which, where step says so */
};

struct start_plan {
    const struct stage_config *config;
    const struct config_user *user;
    char **environment;
    pid_t parent;
    int input[2], output[2], report[2];
};

static void exit_with_report(const struct start_plan *plan, const struct report *report)
    __attribute__((noreturn));
static void exit_with_failed_step(const struct start_plan *plan, enum step step) __attribute__((noreturn));

static void exit_with_report(const struct start_plan *plan, const struct report *report)
{
    ssize_t written = write(plan->report[1], report, sizeof *report);
    _exit(written == (ssize_t)sizeof *report ? 127 : 126);
}

static void exit_with_failed_step(const struct start_plan *plan, enum step step)
{
    const struct report report = {.step = (int)step, .error = errno};
    exit_with_report(plan, &report);
}

/* Makes the kernel kill the stage's program when its worker ends, so that no program outlives its worker.
 * Called again after a change of user, which clears the setting. Runs in the worker's child that becomes
 * the program. */
static void ask_to_die_with_worker(const struct start_plan *plan)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
        exit_with_failed_step(plan, STEP_SETUP);
    if (getppid() != plan->parent)
        _exit(126); /* the worker crashed before the prctl: no process reads a report */
}

/* Makes the new user of the stage's program the owner of the pipes on descriptors 0 to 2, so that the
 * program can open /dev/stderr. Files and terminals keep their owner. Runs in the worker's child that
 * becomes the program. */
static void give_pipes_to_user(const struct config_user *user)
{
    struct stat status;
    for (int fd = 0; fd <= 2; fd++)
        if (fstat(fd, &status) == 0 && S_ISFIFO(status.st_mode) && fchown(fd, user->uid, user->gid) != 0)
            break; /* not permitted: the program can still use them */
}

/* Sets the limits of the stage's program and then its user: that user might not be allowed to set a limit
 * so high. A failure is reported to the worker, and the child exits. Runs in the worker's child that
 * becomes the program. */
static void set_limits_and_user(const struct start_plan *plan)
{
    struct report report = {.step = STEP_LIMITS};
    const char *limit;

    report.error = config_limits_set(&plan->config->limits, &limit);
    if (report.error != 0) {
        memcpy(report.limit, limit, strlen(limit) + 1);
        exit_with_report(plan, &report);
    }
    if (!plan->user->changes)
        return;
    give_pipes_to_user(plan->user);
    errno = config_user_become(plan->user);
    if (errno != 0)
        exit_with_failed_step(plan, STEP_USER);
    ask_to_die_with_worker(plan);
}

static void run_child(const struct start_plan *plan) __attribute__((noreturn));

/* Prepares descriptors, signals, limits, user and directory, then executes the stage's program. Reports
 * a failure to the worker through the report pipe and exits. Runs in the worker's child between fork and
 * exec, where only async-signal-safe calls are allowed. */
static void run_child(const struct start_plan *plan)
{
    ask_to_die_with_worker(plan);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || dup2(plan->input[0], 0) < 0 ||
        dup2(plan->output[1], 1) < 0)
        exit_with_failed_step(plan, STEP_SETUP);
    /* A library may have opened a descriptor without O_CLOEXEC; the report pipe has it already. */
    if (close_range(3, ~0u, CLOSE_RANGE_CLOEXEC) != 0)
        exit_with_failed_step(plan, STEP_SETUP);
    for (int signo = 1; signo < NSIG; signo++)
        signal(signo, SIG_DFL); /* fails for KILL, STOP and the C library's own, which need no change */
    sigset_t empty_mask;
    sigemptyset(&empty_mask);
    sigprocmask(SIG_SETMASK, &empty_mask, NULL);
    set_limits_and_user(plan);
    if (plan->config->directory != NULL && chdir(plan->config->directory) != 0)
        exit_with_failed_step(plan, STEP_DIRECTORY);
    environ = plan->environment; /* before execvp, so that it searches the stage's own PATH */
    execvp(plan->config->exec.at[0], plan->config->exec.at);
    exit_with_failed_step(plan, STEP_RUN);
}

/* ---- start ---- */

/* Closes those ends of a pipe to the stage's program that are still open and marks them as closed (-1).
 * The worker calls it after the start of the program; the ends that are still in use were taken out
 * before. */
static void close_pipe(int pipe_ends[2])
{
    for (int i = 0; i < 2; i++)
        if (pipe_ends[i] >= 0)
            close(pipe_ends[i]);
    pipe_ends[0] = pipe_ends[1] = -1;
}

/* Opens a pipe to the stage's program with both ends above descriptor 2, so that dup2 in the child never
 * overwrites one of them. Returns 0 or a negative errno; the caller closes the ends in either case. The
 * worker calls it before the fork. */
static int open_pipe(int pipe_ends[2])
{
    if (pipe2(pipe_ends, O_CLOEXEC) != 0) {
        pipe_ends[0] = pipe_ends[1] = -1;
        return -errno;
    }
    for (int i = 0; i < 2; i++) {
        if (pipe_ends[i] > 2)
            continue;
        int new_fd = fcntl(pipe_ends[i], F_DUPFD_CLOEXEC, 3);
        if (new_fd < 0)
            return -errno; /* the caller closes both ends */
        close(pipe_ends[i]);
        pipe_ends[i] = new_fd;
    }
    return 0;
}

static int set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 ? -errno : 0;
}

/* Writes the error message for a stage's program that did not start, according to the step that failed in
 * the child: setup, limits, user, directory or exec. Returns the error code. The worker returns this
 * message as its failed start. */
static int report_start_failure(const struct stage_config *config, const struct report *report,
                                struct error *error)
{
    const char *program = config->exec.at[0];
    const char *reason = strerror(report->error);

    if (report->step == STEP_DIRECTORY)
        return base_error_set(error, EP_ESYSTEM, "cannot run %s: directory %s: %s", program,
                              config->directory, reason);
    if (report->step == STEP_LIMITS)
        return base_error_set(error, EP_ESYSTEM, "cannot run %s: cannot set its limit of %s: %s", program,
                              report->limit, reason);
    if (report->step == STEP_USER)
        return base_error_set(error, EP_ESYSTEM, "cannot run %s as user %s: cannot change to this user: %s",
                              program, config->user != NULL ? config->user : "?", reason);
    if (report->step == STEP_SETUP)
        return base_error_set(error, EP_ESYSTEM, "cannot run %s: cannot prepare its process: %s", program,
                              reason);
    const char *user_name = config->user != NULL ? config->user : "";
    return base_error_set(error, report->error == ENOENT ? EP_ENOENT : EP_ESYSTEM, "cannot run %s%s%s: %s",
                          program, user_name[0] != '\0' ? " as " : "", user_name, reason);
}

/* Forks the child that becomes the stage's program. Returns its pid, or -1 with errno. All signals are
 * blocked around the fork, so that no handler of the worker runs in the child. */
static pid_t fork_child(const struct start_plan *plan)
{
    sigset_t full_mask, old_mask;

    sigfillset(&full_mask);
    pthread_sigmask(SIG_SETMASK, &full_mask, &old_mask);
    pid_t pid = fork();
    if (pid == 0)
        run_child(plan);
    int fork_errno = errno;
    pthread_sigmask(SIG_SETMASK, &old_mask, NULL);
    errno = fork_errno;
    return pid;
}

static void reap_failed_child(pid_t pid)
{
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

/* Opens the pipes, forks, and waits until the stage's program runs or the child reports why it does not.
 * Returns 0 and sets *out, or an error code with a message. The caller closes the pipe ends that remain in
 * the plan. Runs in a starting worker. */
static int launch_program(struct start_plan *plan, struct exec_process *out, struct error *error)
{
    const struct stage_config *config = plan->config;
    int code = open_pipe(plan->input);

    if (code == 0)
        code = open_pipe(plan->output);
    if (code == 0)
        code = open_pipe(plan->report);
    if (code == 0)
        code = set_nonblocking(plan->input[1]);
    if (code == 0)
        code = set_nonblocking(plan->output[0]);
    if (code != 0)
        return base_error_set(error, EP_ESYSTEM, "cannot run %s: cannot create a pipe: %s",
                              config->exec.at[0], strerror(-code));

    pid_t pid = fork_child(plan);
    if (pid < 0)
        return base_error_set(error, EP_ESYSTEM, "cannot run %s: cannot fork: %s", config->exec.at[0],
                              strerror(errno));
    close(plan->report[1]);
    plan->report[1] = -1;

    struct report report;
    ssize_t read_bytes;
    do
        read_bytes = read(plan->report[0], &report, sizeof report);
    while (read_bytes < 0 && errno == EINTR);
    if (read_bytes == (ssize_t)sizeof report) {
        reap_failed_child(pid);
        return report_start_failure(config, &report, error);
    }
    int pidfd = pidfd_open(pid, 0);
    if (pidfd < 0) {
        code = errno;
        kill(pid, SIGKILL);
        reap_failed_child(pid);
        return base_error_set(error, EP_ESYSTEM, "cannot run %s: cannot watch its process (pidfd_open): %s",
                              config->exec.at[0], strerror(code));
    }
    *out = (struct exec_process){.pid = pid,
                                 .pidfd = pidfd,
                                 .stdin_fd = plan->input[1],
                                 .stdout_fd = plan->output[0]};
    plan->input[1] = plan->output[0] = -1;
    return 0;
}

/* Starts the stage's program and returns when it runs. Returns 0 and sets *out, or an error code with
 * the reason, such as "cannot run /opt/x: No such file or directory". A worker calls it when it opens
 * its stage. */
int stage_exec_process_start(const struct stage_config *config, const struct stage_env *env,
                             struct exec_process *out, struct error *error)
{
    struct environment environment;
    struct config_user user;

    if (config->exec.count == 0)
        return base_error_set(error, EP_EINVAL, "no program is given: set `exec`");
    int code = config_user_find(config, &user, error);
    if (code != 0)
        return base_error_prefix(error, "cannot run %s", config->exec.at[0]);
    if (build_environment(config, env, &user, &environment) != 0) {
        config_user_free(&user);
        return base_error_set(error, EP_ENOMEM, "cannot run %s: out of memory", config->exec.at[0]);
    }
    struct start_plan plan = {
        .config = config,
        .user = &user,
        .environment = environment.at,
        .parent = getpid(),
        .input = {-1, -1},
        .output = {-1, -1},
        .report = {-1, -1},
    };
    code = launch_program(&plan, out, error);
    close_pipe(plan.input);
    close_pipe(plan.output);
    close_pipe(plan.report);
    free_environment(&environment);
    config_user_free(&user);
    return code;
}

/* ---- exit ---- */

/* Converts waitpid's status of the stage's program into an exit code or signal, for the crash record. Runs
 * in the worker. */
static void decode_exit_status(int wait_status, struct exec_exit *exit_status)
{
    if (WIFSIGNALED(wait_status))
        *exit_status = (struct exec_exit){.kind = SHM_CAUSE_SIGNAL, .code = WTERMSIG(wait_status)};
    else
        *exit_status = (struct exec_exit){.kind = SHM_CAUSE_EXIT, .code = WEXITSTATUS(wait_status)};
}

/* Reaps the stage's program after its end and records how it ended; unreaped, it would stay a zombie. If
 * its status is lost because SIGCHLD is ignored, it counts as exit code 0. Runs in a worker. */
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

/* Reads and drops output of the stage's program. Returns false at the end of its output. */
static bool discard_output(const struct exec_process *process)
{
    char bytes[4096];
    ssize_t read_bytes = read(process->stdout_fd, bytes, sizeof bytes);
    return read_bytes > 0 || (read_bytes < 0 && (errno == EAGAIN || errno == EINTR));
}

/* Waits up to wait_ms for the stage's program to end, and drops its output, since a program that blocks on
 * a full pipe never ends. Returns 0 if it has ended and is reaped, 1 if it still runs. Runs in a worker.
 * */
int stage_exec_process_wait(struct exec_process *process, uint64_t wait_ms, struct exec_exit *exit_status)
{
    uint64_t begin_ns = shm_now_ns();
    struct pollfd watched[2] = {{process->pidfd, POLLIN, 0}, {process->stdout_fd, POLLIN, 0}};

    for (;;) {
        uint64_t elapsed_ms = (shm_now_ns() - begin_ns) / 1000000;
        uint64_t remaining_ms = elapsed_ms >= wait_ms ? 0 : wait_ms - elapsed_ms;
        int ready = poll(watched, 2, remaining_ms > 60000 ? 60000 : (int)remaining_ms);
        if (ready > 0 && watched[0].revents != 0) {
            reap_program(process, exit_status);
            return 0;
        }
        if (remaining_ms == 0)
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

/* Ends the stage's program gracefully: closes its stdin, waits wait_ms, sends SIGTERM, and SIGKILL one
 * second later. A worker calls it when it closes its stage. */
void stage_exec_process_stop(struct exec_process *process, uint64_t wait_ms)
{
    struct exec_exit exit_status;

    if (process->pid == 0)
        return;
    if (process->stdin_fd >= 0)
        close(process->stdin_fd);
    process->stdin_fd = -1;
    if (stage_exec_process_wait(process, wait_ms, &exit_status) == 0)
        return;
    kill(process->pid, SIGTERM);
    if (stage_exec_process_wait(process, TERM_MS, &exit_status) != 0)
        stage_exec_process_kill(process, &exit_status);
}

/* Closes the worker's descriptors of the stage's program, which was reaped, and marks them as closed. */
void stage_exec_process_close(struct exec_process *process)
{
    if (process->stdin_fd >= 0)
        close(process->stdin_fd);
    if (process->stdout_fd >= 0)
        close(process->stdout_fd);
    if (process->pidfd >= 0)
        close(process->pidfd);
    *process = (struct exec_process){.pid = 0, .pidfd = -1, .stdin_fd = -1, .stdout_fd = -1};
}
