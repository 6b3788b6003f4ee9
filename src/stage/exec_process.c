/* SPDX-License-Identifier: MIT */
/*
 * The program of an exec stage: its start and its exit. Runs in the stage's worker, whose child it is;
 * owns the pid until it is reaped, its pidfd, and the worker's ends of two pipes.
 *
 * Invariants
 *  1. The program never outlives its worker: PR_SET_PDEATHSIG, and the parent is looked at again after it
 * is set.
 *  2. It begins with default signal dispositions, an empty mask, and no descriptor but 0, 1 and 2; 2 is the
 * worker's.
 *  3. A start has failed exactly when the child says so through the report pipe, which exec closes: errno is
 * its own.
 *  4. no_new_privs is always set. Limits are set as the daemon's user, then the user is changed, then the
 * folder, so that the program has no more rights to it than its user.
 *  5. Between fork and exec the child calls only what is safe there, and allocates nothing: argv, environment
 * and texts are made before. Nothing here is fatal.
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
    char **at; /* NULL-ended; the entries are borrowed */
    size_t count;
    char *own[7]; /* EVENTPIPE_..., and whose it is: ours to free */
};

#define OWN_COUNT 4 /* EVENTPIPE_... */

static char *assignment(const char *name, const char *value)
{
    char *entry;
    return asprintf(&entry, "%s=%s", name, value) < 0 ? NULL : entry;
}

static void environment_put(struct environment *environment, char *entry)
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

static void environment_free(struct environment *environment)
{
    for (size_t i = 0; i < sizeof environment->own / sizeof environment->own[0]; i++)
        free(environment->own[i]);
    free(environment->at);
}

static int environment_make(const struct stage_config *config, const struct stage_env *env,
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
    out->own[0] = assignment("EVENTPIPE_INSTANCE", env->instance);
    out->own[1] = assignment("EVENTPIPE_SOURCE", env->source);
    out->own[2] = assignment("EVENTPIPE_STAGE", config->name);
    out->own[3] = assignment("EVENTPIPE_WORKER", worker);
    if (user->name != NULL) {
        out->own[4] = assignment("USER", user->name);
        out->own[5] = assignment("LOGNAME", user->name);
        out->own[6] = assignment("HOME", user->home);
    }
    for (size_t i = 0; i < own; i++)
        complete = complete && out->own[i] != NULL;
    if (out->at == NULL || !complete) {
        environment_free(out);
        return EP_ENOMEM;
    }
    for (size_t i = 0; i < inherited; i++)
        environment_put(out, environ[i]);
    for (size_t i = OWN_COUNT; i < own; i++)
        environment_put(out, out->own[i]);
    for (size_t i = 0; i < config->environment.count; i++)
        environment_put(out, config->environment.at[i]);
    for (size_t i = 0; i < OWN_COUNT; i++)
        environment_put(out, out->own[i]);
    return 0;
}

/* ---- the child, between fork and exec ---- */

enum step { STEP_SETUP = 1, STEP_LIMITS, STEP_USER, STEP_DIRECTORY, STEP_RUN };
struct report {
    int step, error;
    char limit[16]; /* which, where step says so */
};

struct birth {
    const struct stage_config *config;
    const struct config_user *user;
    char **environment;
    pid_t parent;
    int input[2], output[2], report[2];
};

static void child_report(const struct birth *birth, const struct report *report) __attribute__((noreturn));
static void child_fail(const struct birth *birth, enum step step) __attribute__((noreturn));

static void child_report(const struct birth *birth, const struct report *report)
{
    ssize_t written = write(birth->report[1], report, sizeof *report);
    _exit(written == (ssize_t)sizeof *report ? 127 : 126);
}

static void child_fail(const struct birth *birth, enum step step)
{
    const struct report report = {.step = (int)step, .error = errno};
    child_report(birth, &report);
}

/* It exits with its worker. Asked for again after a change of user, which makes the kernel forget it. */
static void child_bind(const struct birth *birth)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
        child_fail(birth, STEP_SETUP);
    if (getppid() != birth->parent)
        _exit(126); /* the worker crashed before the line above: nobody is left to tell */
}

/* The pipes become the user's, so that a program can open /dev/stderr and the like. A file or a terminal,
 * such as a test's standard error, is not ours to give away. */
static void child_give_pipes(const struct config_user *user)
{
    struct stat status;
    for (int fd = 0; fd <= 2; fd++)
        if (fstat(fd, &status) == 0 && S_ISFIFO(status.st_mode) && fchown(fd, user->uid, user->gid) != 0)
            break; /* without the right to: it can use them all the same */
}

/* Its limits first: they may be above what the user could set. */
static void child_confine(const struct birth *birth)
{
    struct report report = {.step = STEP_LIMITS};
    const char *limit;

    report.error = config_limits_set(&birth->config->limits, &limit);
    if (report.error != 0) {
        memcpy(report.limit, limit, strlen(limit) + 1);
        child_report(birth, &report);
    }
    if (!birth->user->changes)
        return;
    child_give_pipes(birth->user);
    errno = config_user_become(birth->user);
    if (errno != 0)
        child_fail(birth, STEP_USER);
    child_bind(birth);
}

static void child_main(const struct birth *birth) __attribute__((noreturn));

static void child_main(const struct birth *birth)
{
    child_bind(birth);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || dup2(birth->input[0], 0) < 0 ||
        dup2(birth->output[1], 1) < 0)
        child_fail(birth, STEP_SETUP);
    /* Some library may have opened a descriptor without O_CLOEXEC; the report pipe has it already. */
    if (close_range(3, ~0u, CLOSE_RANGE_CLOEXEC) != 0)
        child_fail(birth, STEP_SETUP);
    for (int signo = 1; signo < NSIG; signo++)
        signal(signo, SIG_DFL); /* fails for KILL, STOP and the C library's own: those are as they must be */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    child_confine(birth);
    if (birth->config->directory != NULL && chdir(birth->config->directory) != 0)
        child_fail(birth, STEP_DIRECTORY);
    environ = birth->environment; /* before the search, so that a PATH of the stage's own counts */
    execvp(birth->config->exec.at[0], birth->config->exec.at);
    child_fail(birth, STEP_RUN);
}

/* ---- birth ---- */

static void close_pair(int pair[2])
{
    for (int i = 0; i < 2; i++)
        if (pair[i] >= 0)
            close(pair[i]);
    pair[0] = pair[1] = -1;
}

/* A pipe whose ends are above 2, so that the child's dup2 never meets one of them. */
static int pipe_open(int pair[2])
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

static int start_failed(const struct stage_config *config, const struct report *report, struct error *error)
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

/* All signals are blocked around fork, so that no handler of the worker's ever runs in the child. */
static pid_t fork_child(const struct birth *birth)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = fork();
    if (pid == 0)
        child_main(birth);
    int saved = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = saved;
    return pid;
}

static void reap(pid_t pid)
{
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

static int birth_run(struct birth *birth, struct exec_process *out, struct error *error)
{
    const struct stage_config *config = birth->config;
    int code = pipe_open(birth->input);

    if (code == 0)
        code = pipe_open(birth->output);
    if (code == 0)
        code = pipe_open(birth->report);
    if (code == 0)
        code = set_nonblocking(birth->input[1]);
    if (code == 0)
        code = set_nonblocking(birth->output[0]);
    if (code != 0)
        return base_error_set(error, EP_ESYSTEM, "cannot run %s: pipe: %s", config->exec.at[0],
                              strerror(-code));

    pid_t pid = fork_child(birth);
    if (pid < 0)
        return base_error_set(error, EP_ESYSTEM, "cannot run %s: fork: %s", config->exec.at[0],
                              strerror(errno));
    close(birth->report[1]);
    birth->report[1] = -1;

    struct report report;
    ssize_t got;
    do
        got = read(birth->report[0], &report, sizeof report);
    while (got < 0 && errno == EINTR);
    if (got == (ssize_t)sizeof report) {
        reap(pid);
        return start_failed(config, &report, error);
    }
    int handle = pidfd_open(pid, 0);
    if (handle < 0) {
        code = errno;
        kill(pid, SIGKILL);
        reap(pid);
        return base_error_set(error, EP_ESYSTEM, "cannot run %s: pidfd: %s", config->exec.at[0],
                              strerror(code));
    }
    *out = (struct exec_process){.pid = pid,
                                 .handle = handle,
                                 .input = birth->input[1],
                                 .output = birth->output[0]};
    birth->input[1] = birth->output[0] = -1;
    return 0;
}

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
    if (environment_make(config, env, &user, &environment) != 0) {
        config_user_free(&user);
        return base_error_set(error, EP_ENOMEM, "cannot run %s: out of memory", config->exec.at[0]);
    }
    struct birth birth = {
        .config = config,
        .user = &user,
        .environment = environment.at,
        .parent = getpid(),
        .input = {-1, -1},
        .output = {-1, -1},
        .report = {-1, -1},
    };
    code = birth_run(&birth, out, error);
    close_pair(birth.input);
    close_pair(birth.output);
    close_pair(birth.report);
    environment_free(&environment);
    config_user_free(&user);
    return code;
}

/* ---- exit ---- */

static void note_exit(int status, struct exec_exit *exit_status)
{
    if (WIFSIGNALED(status))
        *exit_status = (struct exec_exit){SHM_CAUSE_SIGNAL, WTERMSIG(status)};
    else
        *exit_status = (struct exec_exit){SHM_CAUSE_EXIT, WEXITSTATUS(status)};
}

static void reap_process(struct exec_process *process, struct exec_exit *exit_status)
{
    int status = 0;
    pid_t pid;

    do
        pid = waitpid(process->pid, &status, 0);
    while (pid < 0 && errno == EINTR);
    if (pid < 0)
        status = 0; /* somebody set SIGCHLD to be ignored: all that is known is that it is gone */
    note_exit(status, exit_status);
    process->pid = 0;
}

/* False at the end of its output. */
static bool discard_output(const struct exec_process *process)
{
    char bytes[4096];
    ssize_t got = read(process->output, bytes, sizeof bytes);
    return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

int stage_exec_process_wait(struct exec_process *process, uint64_t wait_ms, struct exec_exit *exit_status)
{
    uint64_t begin = shm_now_ns();
    struct pollfd watched[2] = {{process->handle, POLLIN, 0}, {process->output, POLLIN, 0}};

    for (;;) {
        uint64_t spent_ms = (shm_now_ns() - begin) / 1000000;
        uint64_t left_ms = spent_ms >= wait_ms ? 0 : wait_ms - spent_ms;
        int ready = poll(watched, 2, left_ms > 60000 ? 60000 : (int)left_ms);
        if (ready > 0 && watched[0].revents != 0) {
            reap_process(process, exit_status);
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
    reap_process(process, exit_status);
}

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
