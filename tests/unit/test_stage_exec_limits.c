/* SPDX-License-Identifier: MIT */
/* What an exec stage's program may use, and as whom it runs: seen by the program itself and in /proc. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/config/limits.h"
#include "src/config/user.h"
#include "tests/lib/exec_trial.h"

/* One call whose answer, a rejection, begins with this text. */
static bool says(struct trial *trial, const char *message)
{
    struct ep_call call;
    struct stage_failure failure = {0};
    stage_fixture_call(&call, "{}", "{}");
    bool good = stage_exec_ops.process(trial->state, &call, &failure) == STAGE_ANSWERED &&
                call.answer == EP_REJECT && stage_fixture_contains(call.reason, message);
    if (!good)
        fprintf(stderr, "\n%s\n", failure.message);
    stage_call_close(&call);
    return good;
}

#define REJECT(expression)                                   \
    "import json,os,resource,sys\nfor line in sys.stdin:\n " \
    "print(json.dumps({'reject':' '.join(str(word) for word in (" expression "))}),flush=True)"

static void limits_are_set(void)
{
    struct trial trial;
    char expected[200];
    trial_with(&trial, "python3",
               REJECT("[resource.getrlimit(what) for what in (resource.RLIMIT_AS, resource.RLIMIT_NOFILE, "
                      "resource.RLIMIT_NPROC)] + "
                      "[resource.getrlimit(resource.RLIMIT_CPU)[0] < 120]"));
    trial.config.limits =
        (struct limits_config){.memory_bytes = UINT64_C(600) << 20, .files = 33, .cpu_ms = 60000};
    /* to set it shows nothing: it is to be one that the rest of the machine does not reach */
    struct rlimit now;
    getrlimit(RLIMIT_NPROC, &now);
    trial.config.limits.processes = now.rlim_max < 100000 ? now.rlim_max : 100000;
    CU_ASSERT_FATAL(trial_start(&trial));
    snprintf(expected, sizeof expected, "(629145600, 629145600) (33, 33) (%u, %u) True",
             (unsigned)trial.config.limits.processes, (unsigned)trial.config.limits.processes);
    CU_ASSERT(says(&trial, expected));
    stage_exec_ops.close(trial.state, 5000);
}

static void none_are_as_ours(void)
{
    struct trial trial;
    struct rlimit memory, files;
    char expected[200];
    getrlimit(RLIMIT_AS, &memory);
    getrlimit(RLIMIT_NOFILE, &files);
    trial_with(&trial, "python3",
               REJECT("resource.getrlimit(what)[1] & (2 ** 64 - 1) "
                      "for what in (resource.RLIMIT_AS, resource.RLIMIT_NOFILE)"));
    CU_ASSERT_FATAL(trial_start(&trial));
    snprintf(expected, sizeof expected, "%llu %llu", (unsigned long long)memory.rlim_max,
             (unsigned long long)files.rlim_max);
    CU_ASSERT(says(&trial, expected));
    stage_exec_ops.close(trial.state, 5000);
}

/* The limit is one event's: what earlier ones took is no fault of a later one. */
static void cpu_is_counted_from_each_event(void)
{
    struct trial trial;
    trial_with(&trial, "python3",
               "import json,resource,sys,time\nbegin=None\nfor line in sys.stdin:\n "
               "soft=resource.getrlimit(resource.RLIMIT_CPU)[0]\n begin=begin or soft\n "
               "until=time.process_time()+1.2\n "
               "while time.process_time()<until: pass\n "
               "print(json.dumps({'reject':'moved: %s' % (soft-begin>=1)}),flush=True)");
    trial.config.limits.cpu_ms = 30000;
    CU_ASSERT_FATAL(trial_start(&trial));
    CU_ASSERT(says(&trial, "moved: False"));
    CU_ASSERT(says(&trial, "moved: True"));
    stage_exec_ops.close(trial.state, 5000);
}

static void too_much_cpu_is_a_signal(void)
{
    struct trial trial;
    struct ep_call call;
    struct stage_failure failure = {0};
    trial_with(&trial, "python3", "import sys\nsys.stdin.readline()\nwhile True: pass");
    trial.config.limits.cpu_ms = 1000;
    CU_ASSERT_FATAL(trial_start(&trial));
    stage_fixture_call(&call, "{}", "{}");
    CU_ASSERT_EQUAL(stage_exec_ops.process(trial.state, &call, &failure), STAGE_BROKEN);
    CU_ASSERT_EQUAL(failure.kind, SHM_CAUSE_SIGNAL);
    CU_ASSERT_EQUAL(failure.code, SIGXCPU);
    CU_ASSERT(stage_fixture_contains(failure.message, "killed by signal 24 (SIGXCPU)"));
    stage_call_close(&call);
    stage_exec_ops.close(trial.state, 5000);
}

/* A process of root's that may become somebody: not so in every container. */
static bool may_become_others(void)
{
    pid_t pid = geteuid() == 0 ? fork() : -1;
    if (pid == 0)
        _exit(setgid(54321) == 0 && setuid(54321) == 0 ? 0 : 1);
    int status = 1;
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static void runs_as_its_user(void)
{
    struct trial trial;
    if (!may_become_others())
        return;
    trial_with(
        &trial, "python3",
        REJECT("os.getresuid(), os.getresgid(), os.getgroups(), "
               "[line.split()[1] for line in open('/proc/self/status') if line.startswith('NoNewPrivs')], "
               "open('/dev/stdout', 'w') and 'own'"));
    trial.config.user = "54321";
    trial.config.group = "54322";
    CU_ASSERT_FATAL(trial_start(&trial));
    CU_ASSERT(says(&trial, "(54321, 54321, 54321) (54322, 54322, 54322) [54322] ['1'] own"));
    stage_exec_ops.close(trial.state, 5000);
    trial.config.user = NULL;
    CU_ASSERT_FATAL(trial_start(&trial));
    CU_ASSERT(says(&trial, "(0, 0, 0) (54322, 54322, 54322) [54322] ['1'] own"));
    stage_exec_ops.close(trial.state, 5000);
}

/* Only pipes are given away: what else the worker has there may be anybody's. */
static void files_stay_ours(void)
{
    struct trial trial;
    struct stat status = {.st_uid = 1};
    if (!may_become_others())
        return;
    FILE *file = tmpfile();
    int kept = dup(STDERR_FILENO);
    CU_ASSERT_FATAL(file != NULL && kept >= 0);
    trial_with(&trial, "python3", REJECT("os.getuid(), 'runs'"));
    trial.config.user = trial.config.group = "54321";
    dup2(fileno(file), STDERR_FILENO);
    bool open = trial_start(&trial);
    dup2(kept, STDERR_FILENO);
    CU_ASSERT_FATAL(open);
    CU_ASSERT(says(&trial, "54321 runs"));
    CU_ASSERT_EQUAL(fstat(fileno(file), &status), 0);
    CU_ASSERT_EQUAL(status.st_uid, 0);
    stage_exec_ops.close(trial.state, 5000);
    close(kept);
    fclose(file);
}

/* The change of user makes the kernel forget the parent-death signal: it is asked for again. */
static void exits_with_its_worker_as_its_user(void)
{
    struct trial trial;
    int pair[2];
    if (!may_become_others())
        return;
    CU_ASSERT_EQUAL_FATAL(pipe(pair), 0);
    trial_with(&trial, "python3", "import time\nwhile True: time.sleep(600)");
    trial.config.user = trial.config.group = "54321";
    pid_t worker = fork();
    if (worker == 0) {
        bool open = trial_start(&trial);
        ssize_t written = write(pair[1], &trial_program, sizeof trial_program);
        raise(SIGKILL);
        _exit(open && written > 0 ? 0 : 1);
    }
    pid_t program = 0;
    CU_ASSERT_EQUAL(read(pair[0], &program, sizeof program), (ssize_t)sizeof program);
    CU_ASSERT_EQUAL(waitpid(worker, NULL, 0), worker);
    CU_ASSERT_FATAL(program > 0);
    /* its orphan is ours, see main: gone when it is reaped */
    int status = 0;
    CU_ASSERT_EQUAL(waitpid(program, &status, 0), program);
    CU_ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    close(pair[0]);
    close(pair[1]);
}

static bool not_found(const char *user, const char *group, int code, const char *message)
{
    struct stage_config config = {.user = (char *)user, .group = (char *)group};
    struct config_user found;
    struct error error = {0};
    return config_user_find(&config, &found, &error) == code &&
           stage_fixture_contains(error.message, message);
}

static void users_are_looked_up(void)
{
    char own[16];
    struct stage_config config = {.user = own};
    struct config_user found;
    struct error error = {0};
    snprintf(own, sizeof own, "%u", (unsigned)geteuid());
    config.group = geteuid() == 0 ? NULL : own;
    CU_ASSERT(not_found("no such user", NULL, EP_ENOENT, "user: there is no user \"no such user\""));
    CU_ASSERT(not_found(NULL, "no such group", EP_ENOENT, "group: there is no group \"no such group\""));
    CU_ASSERT(not_found("54321", NULL, EP_ENOENT, "no account with the number 54321"));
    CU_ASSERT(not_found("4294967295", NULL, EP_ENOENT, "there is no user \"4294967295\""));
    CU_ASSERT(not_found("99999999999", NULL, EP_ENOENT, "there is no user \"99999999999\""));
    if (geteuid() != 0) {
        CU_ASSERT(
            not_found("0", NULL, EP_EACCESS, "user: only a daemon that runs as root can run a stage as"));
        CU_ASSERT(
            not_found(NULL, "0", EP_EACCESS, "group: only a daemon that runs as root can run a stage as"));
        return;
    }
    CU_ASSERT_EQUAL(config_user_find(&config, &found, &error), 0);
    CU_ASSERT(!found.changes && found.uid == 0);
    config_user_free(&found);
}

static void limits_that_would_not_hold_are_refused(void)
{
    struct limits_config limits = {.processes = 5};
    struct error error = {0};
    CU_ASSERT_EQUAL(config_limits_check(&limits, 0, &error), EP_EACCESS);
    CU_ASSERT(stage_fixture_contains(error.message, "processes: this limit does not bind root"));
    CU_ASSERT_EQUAL(config_limits_check(&limits, 54321, &error), 0);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    limits = (struct limits_config){.files = files.rlim_max + 1};
    if (geteuid() == 0) {
        CU_ASSERT_EQUAL(config_limits_check(&limits, 0, &error), 0);
        return;
    }
    CU_ASSERT_EQUAL(config_limits_check(&limits, geteuid(), &error), EP_EACCESS);
    CU_ASSERT(stage_fixture_contains(error.message, "files: expected at most"));
}

static const struct unit_case cases[] = {
    {"limits are set", limits_are_set},
    {"none are as ours", none_are_as_ours},
    {"CPU time is counted from each event", cpu_is_counted_from_each_event},
    {"too much CPU time is a signal", too_much_cpu_is_a_signal},
    {"runs as its user", runs_as_its_user},
    {"files stay ours", files_stay_ours},
    {"exits with its worker as its user", exits_with_its_worker_as_its_user},
    {"users are looked up", users_are_looked_up},
    {"limits that would not hold are refused", limits_that_would_not_hold_are_refused},
};

int main(void)
{
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0)
        return EXIT_FAILURE;
    return unit_run("stage_exec_limits", cases, sizeof cases / sizeof cases[0]);
}
