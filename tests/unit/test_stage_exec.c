/* SPDX-License-Identifier: MIT */
/* Exec stages with real programs: small programs in shell and Python that answer well, badly, or crash. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/exec_trial.h"

#define GOOD "{\"processed\":true}"

static char folder[256];

static bool trial_open(struct trial *trial, const char *interpreter, const char *script)
{
    trial_with(trial, interpreter, script);
    return trial_start(trial);
}

static enum stage_result trial_call(struct trial *trial, struct ep_call *call, const char *event)
{
    stage_fixture_call(call, event, "{}");
    memset(&trial->failure, 0, sizeof trial->failure);
    return stage_exec_ops.process(trial->state, call, &trial->failure);
}

static void trial_close(struct trial *trial)
{
    stage_exec_ops.close(trial->state, 5000);
    CU_ASSERT_EQUAL(trial_program, 0);
}

/* Runs one call that must break, and says whether the message has this part. */
static bool breaks(const char *interpreter, const char *script, enum shm_cause_kind kind, int cause,
                   const char *part)
{
    struct trial trial;
    struct ep_call call;
    while (waitpid(-1, NULL, 0) > 0) /* orphans that an earlier case adopted and killed are not this one's */
        continue;
    if (!trial_open(&trial, interpreter, script))
        return false;
    bool good = trial_call(&trial, &call, "{\"uid\":\"u\"}") == STAGE_BROKEN && trial.failure.kind == kind &&
                trial.failure.code == cause && stage_fixture_contains(trial.failure.message, part) &&
                trial_program == 0;
    if (!good)
        fprintf(stderr, "\n%s: kind %d, code %d: %s\n", script, (int)trial.failure.kind, trial.failure.code,
                trial.failure.message);
    good = good && waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD; /* reaped, and nobody else is there */
    good = good && trial_call(&trial, &call, "{}") == STAGE_BROKEN;
    stage_call_close(&call);
    trial_close(&trial);
    return good;
}

static void answers_in_turn(void)
{
    struct trial trial;
    struct ep_call call;
    CU_ASSERT_FATAL(trial_open(&trial, "sh",
                               "n=0; while read -r line; do n=$((n + 1)); "
                               "printf '{\"processed\":true,\"context\":{\"n\":%d}}\\n' $n; done"));
    CU_ASSERT(trial_program > 0);
    for (int i = 1; i <= 300; i++) {
        char expected[32];
        snprintf(expected, sizeof expected, "{\"n\":%d}", i);
        CU_ASSERT_EQUAL(trial_call(&trial, &call, "{\"uid\":\"u\"}"), STAGE_ANSWERED);
        CU_ASSERT_EQUAL(call.answer, EP_PROCESSED);
        CU_ASSERT(stage_fixture_same(call.new_context, expected));
        stage_call_close(&call);
    }
    trial_close(&trial);
}

static void is_sent_one_line(void)
{
    struct trial trial;
    struct ep_call call;
    CU_ASSERT_FATAL(
        trial_open(&trial, "sh",
                   "while read -r line; do printf '{\"processed\":true,\"event\":%s}\\n' \"$line\"; done"));
    CU_ASSERT_EQUAL(trial_call(&trial, &call, "{\n \"uid\": \"u-1\",\n \"n\": 9007199254740993\n}"),
                    STAGE_ANSWERED);
    CU_ASSERT(stage_fixture_same(call.new_event,
                                 "{\"event\":{\"uid\": \"u-1\",\"n\": 9007199254740993},\"context\":{},"
                                 "\"attempt\":1,\"key\":\"quakes/u-1/locate\"}"));
    stage_call_close(&call);
    trial_close(&trial);
}

/* Begins with what a program may expect: the stage's environment and folder, and nothing of ours. */
static void begins_clean(void)
{
    struct trial trial;
    struct ep_call call;
    int leak = fcntl(0, F_DUPFD, 57); /* without FD_CLOEXEC */
    CU_ASSERT_EQUAL(leak, 57);
    signal(SIGUSR1, SIG_IGN);
    sigset_t mask, before;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR2);
    sigprocmask(SIG_BLOCK, &mask, &before);
    setenv("TRIAL_HOME", "daemon", 1);
    trial_with(
        &trial, "sh",
        "while read -r line; do printf '{\"reject\":\"%s\"}\\n' \"$EVENTPIPE_INSTANCE $EVENTPIPE_SOURCE "
        "$EVENTPIPE_STAGE $EVENTPIPE_WORKER $TRIAL_HOME $TRIAL_OWN $(pwd) "
        "$(sed -n 's/^\\(SigBlk\\|SigIgn\\|NoNewPrivs\\):\\t//p' /proc/$$/status | sed "
        "'s/0000000180000000/0000000000000000/' | tr '\\n' ' ')"
        "$(test -e /proc/$$/fd/57 && echo leaked)\"; done");
    trial.environment[0] = "TRIAL_HOME=stage";
    trial.environment[1] = "TRIAL_OWN=yes";
    trial.config.environment.count = 2;
    trial.config.directory = folder;
    CU_ASSERT_EQUAL_FATAL(stage_exec_ops.open(&trial.config, &trial.env, &trial.state, &trial.error), 0);
    CU_ASSERT_EQUAL(getpgid(trial_program), getpgrp());
    CU_ASSERT_EQUAL(trial_call(&trial, &call, "{}"), STAGE_ANSWERED);
    char expected[400];
    /* in the order of /proc: SigBlk, SigIgn, NoNewPrivs; the two signals that libc keeps to itself (32, 33)
     * cannot be set */
    snprintf(expected, sizeof expected,
             "trial quakes locate 3 stage yes %s 0000000000000000 0000000000000000 1 ", folder);
    CU_ASSERT(stage_fixture_same(call.reason, expected));
    stage_call_close(&call);
    trial_close(&trial);
    close(leak);
    signal(SIGUSR1, SIG_DFL);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

static char *big_event(size_t bytes)
{
    char *event = malloc(bytes + 64);
    int head = sprintf(event, "{\"payload\":\"");
    memset(event + head, 'x', bytes);
    strcpy(event + head + bytes, "\"}");
    return event;
}

static void big_events_there_and_back(void)
{
    struct trial trial;
    struct ep_call call;
    char *event = big_event((size_t)10 << 20);
    CU_ASSERT_FATAL(trial_open(
        &trial, "python3",
        "import json,sys\nfor line in sys.stdin:\n call=json.loads(line)\n "
        "print(json.dumps({'processed':True,'event':call['event']},separators=(',',':')),flush=True)"));
    for (int i = 0; i < 2; i++) {
        CU_ASSERT_EQUAL(trial_call(&trial, &call, event), STAGE_ANSWERED);
        CU_ASSERT(call.new_event != NULL && strcmp(call.new_event, event) == 0);
        stage_call_close(&call);
    }
    CU_ASSERT_EQUAL(trial_call(&trial, &call, "{}"), STAGE_ANSWERED);
    stage_call_close(&call);
    trial_close(&trial);
    free(event);
}

/* Answers at the first byte, or writes megabytes before it reads one: neither side may wait for the other. */
static void no_deadlock(void)
{
    char *event = big_event((size_t)6 << 20);
    struct trial trial;
    struct ep_call call;
    CU_ASSERT_FATAL(trial_open(&trial, "python3",
                               "import sys\ni=sys.stdin.buffer\nwhile i.read(1):\n "
                               "print('" GOOD "',flush=True); i.readline()"));
    for (int i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(trial_call(&trial, &call, event), STAGE_ANSWERED);
        CU_ASSERT_EQUAL(call.answer, EP_PROCESSED);
        stage_call_close(&call);
    }
    trial_close(&trial);
    free(event);

    /* reads one byte, so that it was asked; then writes more than a pipe holds while more than a pipe holds
     * comes */
    event = big_event((size_t)6 << 20);
    CU_ASSERT_FATAL(
        trial_open(&trial, "python3",
                   "import sys,os\nwhile os.read(0,1):\n "
                   "os.write(1,b'{\"processed\":true,\"context\":{\"a\":\"')\n n=6000000\n"
                   " while n>0: n-=os.write(1,b'y'*min(n,65536))\n"
                   " while not os.read(0,65536).endswith(b'\\n'): pass\n os.write(1,b'\"}}\\n')"));
    CU_ASSERT_EQUAL(trial_call(&trial, &call, event), STAGE_ANSWERED);
    CU_ASSERT(call.new_context != NULL && strlen(call.new_context) == 6000000 + strlen("{\"a\":\"\"}"));
    stage_call_close(&call);
    trial_close(&trial);
    free(event);
}

static void ends_are_told_exactly(void)
{
    CU_ASSERT(breaks("sh", "read -r line; exit 3", SHM_CAUSE_EXIT, 3,
                     "program exited with code 3 before it answered"));
    CU_ASSERT(breaks("sh", "read -r line; exit 0", SHM_CAUSE_EXIT, 0, "exited with code 0"));
    CU_ASSERT(breaks("sh", "read -r line; kill -SEGV $$", SHM_CAUSE_SIGNAL, SIGSEGV,
                     "killed by signal 11 (SIGSEGV)"));
    CU_ASSERT(breaks("sh", "read -r line; kill -KILL $$", SHM_CAUSE_SIGNAL, SIGKILL,
                     "killed by signal 9 (SIGKILL)"));
    CU_ASSERT(breaks("sh", "read -r line; printf '{\"proc'; exit 4", SHM_CAUSE_EXIT, 4,
                     "after half a line: `{\"proc`"));
    CU_ASSERT(breaks("sh", "exec 0<&-; exit 5", SHM_CAUSE_EXIT, 5, "exited with code 5"));
    CU_ASSERT(
        breaks("sh", "read -r line; exec >&-; read -r more", SHM_CAUSE_MALFORMED, 0, "closed its output"));
    /* a child of its own holds its output open: that must not hold us */
    CU_ASSERT(breaks("python3",
                     "import os,sys,time\nsys.stdin.readline()\nif os.fork()==0:\n "
                     "os.read(0,1); os._exit(0)\nos._exit(6)",
                     SHM_CAUSE_EXIT, 6, "exited with code 6"));
    CU_ASSERT(breaks("python3",
                     "import os,sys,time\nsys.stdin.readline()\nif os.fork()==0:\n "
                     "os.read(0,1); os._exit(0)\nos.write(1,b'{\"pro')\nos._exit(7)",
                     SHM_CAUSE_EXIT, 7, "code 7 before it answered, after half a line: `{\"pro`"));
}

/* Nothing else would end these: there is no time limit here. */
static void closed_inputs_end_it(void)
{
    static const char closed[] = "program closed its input but went on running before it answered";
    CU_ASSERT(breaks("python3", "import os,signal\nos.close(0)\nwhile True: signal.pause()",
                     SHM_CAUSE_MALFORMED, 0, closed));
    CU_ASSERT(breaks("python3", "import os,signal\nos.read(0,65536)\nos.close(0)\nwhile True: signal.pause()",
                     SHM_CAUSE_MALFORMED, 0, closed));
    CU_ASSERT(breaks("python3",
                     "import os,signal\nos.read(0,65536)\nos.write(1,b'{\"pro')\nos.close(0)\n"
                     "while True: signal.pause()",
                     SHM_CAUSE_MALFORMED, 0, "before it answered, after half a line: `{\"pro`"));
}

static void malformed_answers_are_shown(void)
{
    CU_ASSERT(breaks("sh", "read -r line; echo hello; read -r more", SHM_CAUSE_MALFORMED, 0,
                     "malformed answer: `hello`"));
    CU_ASSERT(
        breaks("sh", "read -r line; echo; read -r more", SHM_CAUSE_MALFORMED, 0, "malformed answer: ``"));
    CU_ASSERT(breaks("sh", "read -r line; printf '" GOOD "\\nand more\\n'; read -r more", SHM_CAUSE_MALFORMED,
                     0, "wrote more than one line for one event: `and more`"));
    CU_ASSERT(breaks("sh", "read -r line; yes | tr -d '\\n'", SHM_CAUSE_MALFORMED, 0,
                     "a line of more than 64 MiB: `yyyy"));
}

/* Waits until the program has written to its output, or has ended: seen from outside, by what it leaves in
 * a file. */
static void wait_for_file(const char *name)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    for (int turn = 0; access(path, F_OK) != 0 && turn < 2000; turn++)
        poll(NULL, 0, 5);
    CU_ASSERT_EQUAL(access(path, F_OK), 0);
    unlink(path);
}

static void unexpected_lines_and_silent_ends(void)
{
    struct trial trial;
    struct ep_call call;
    char script[900], path[300];

    /* before any event */
    snprintf(script, sizeof script,
             "echo ready to go; : >%s/wrote; while read -r line; do echo '" GOOD "'; done", folder);
    CU_ASSERT_FATAL(trial_open(&trial, "sh", script));
    wait_for_file("wrote");
    CU_ASSERT_EQUAL(trial_call(&trial, &call, "{}"), STAGE_BROKEN);
    CU_ASSERT_EQUAL(trial.failure.kind, SHM_CAUSE_MALFORMED);
    CU_ASSERT(stage_fixture_contains(trial.failure.message, "without having been asked: `ready to go`"));
    trial_close(&trial);

    /* between two events: the first is answered, the second finds the line */
    snprintf(script, sizeof script,
             "read -r line; echo '" GOOD "'; until test -e %s/go; do :; done; "
             "echo late; : >%s/wrote; read -r line",
             folder, folder);
    CU_ASSERT_FATAL(trial_open(&trial, "sh", script));
    CU_ASSERT_EQUAL(trial_call(&trial, &call, "{}"), STAGE_ANSWERED);
    snprintf(path, sizeof path, "%s/go", folder);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    wait_for_file("wrote");
    unlink(path);
    CU_ASSERT_EQUAL(trial_call(&trial, &call, "{}"), STAGE_BROKEN);
    CU_ASSERT(stage_fixture_contains(trial.failure.message, "`late`"));
    trial_close(&trial);

    /* it ends between two events */
    CU_ASSERT_FATAL(trial_open(&trial, "sh", "read -r line; echo '" GOOD "'; exit 9"));
    CU_ASSERT_EQUAL(trial_call(&trial, &call, "{}"), STAGE_ANSWERED);
    CU_ASSERT_FALSE(trial.failure.unsent);
    trial_wait_for_end();
    CU_ASSERT_EQUAL(trial_call(&trial, &call, "{}"), STAGE_BROKEN);
    CU_ASSERT_EQUAL(trial.failure.kind, SHM_CAUSE_EXIT);
    CU_ASSERT_EQUAL(trial.failure.code, 9);
    CU_ASSERT(trial.failure.unsent);
    trial_close(&trial);

    /* it answers, and takes no more events, but lives: with a big event that shows while writing */
    char *event = big_event(1 << 20);
    CU_ASSERT_FATAL(trial_open(&trial, "python3",
                               "import os,signal\nos.read(0,1)\nos.write(1,b'" GOOD
                               "\\n')\nos.close(0)\nsignal.pause()"));
    CU_ASSERT_EQUAL(trial_call(&trial, &call, event), STAGE_ANSWERED);
    CU_ASSERT_EQUAL(trial_call(&trial, &call, "{}"), STAGE_BROKEN);
    CU_ASSERT(stage_fixture_contains(trial.failure.message, "closed its input"));
    trial_close(&trial);
    free(event);
}

static bool start_fails(const char *program, const char *directory, const char *part)
{
    struct trial trial;
    trial_with(&trial, program, NULL);
    trial.config.directory = (char *)directory;
    trial.state = &trial;
    struct error checked = {0};
    int code = stage_exec_ops.open(&trial.config, &trial.env, &trial.state, &trial.error);
    return code < 0 && trial.error.code == code && trial.state == &trial && trial_program == 0 &&
           stage_fixture_contains(trial.error.message, part) && stage_check(&trial.config, &checked) < 0 &&
           stage_fixture_contains(checked.message, part);
}

static void failed_starts_say_why(void)
{
    char path[300];
    snprintf(path, sizeof path, "%s/plain", folder);
    FILE *file = fopen(path, "w");
    fputs("exit 0\n", file);
    fclose(file);
    chmod(path, 0644);
    CU_ASSERT(
        start_fails("/opt/no/such/thing", NULL, "cannot run /opt/no/such/thing: No such file or directory"));
    CU_ASSERT(
        start_fails("no-such-program-anywhere", NULL, "cannot run no-such-program-anywhere: No such file"));
    CU_ASSERT(start_fails(path, NULL, "Permission denied"));
    CU_ASSERT(
        start_fails("sh", "/opt/no/such/folder", "directory /opt/no/such/folder: No such file or directory"));
    unlink(path);
    CU_ASSERT_EQUAL(waitpid(-1, NULL, WNOHANG), -1);
}

static void check_searches_as_exec_does(void)
{
    struct trial trial;
    char path[300];
    snprintf(path, sizeof path, "%s/prog", folder);
    FILE *file = fopen(path, "w");
    fputs("#!/bin/sh\nread -r line; echo '" GOOD "'\n", file);
    fclose(file);
    chmod(path, 0755);
    trial_with(&trial, "prog", NULL);
    CU_ASSERT_EQUAL(stage_check(&trial.config, NULL), EP_ENOENT);
    char own_path[320];
    snprintf(own_path, sizeof own_path, "PATH=/nowhere:%s", folder);
    trial.environment[0] = own_path;
    trial.config.environment.count = 1;
    CU_ASSERT_EQUAL(stage_check(&trial.config, NULL), 0);
    CU_ASSERT_EQUAL(stage_exec_ops.open(&trial.config, &trial.env, &trial.state, NULL), 0);
    trial_close(&trial);
    trial_with(&trial, "./prog", NULL);
    trial.config.directory = folder;
    CU_ASSERT_EQUAL(stage_check(&trial.config, NULL), 0);
    CU_ASSERT_EQUAL(stage_exec_ops.open(&trial.config, &trial.env, &trial.state, NULL), 0);
    trial_close(&trial);
    unlink(path);
}

static void closes_cleanly(void)
{
    struct trial trial;
    char script[900], path[300];
    struct stat found;

    /* at the end of its input it may still do what it must */
    snprintf(script, sizeof script, "while read -r line; do :; done; echo parting words; : >%s/done", folder);
    CU_ASSERT_FATAL(trial_open(&trial, "sh", script));
    trial_close(&trial);
    snprintf(path, sizeof path, "%s/done", folder);
    CU_ASSERT_EQUAL(stat(path, &found), 0);
    unlink(path);

    /* it does not heed the end of its input: TERM */
    snprintf(script, sizeof script,
             "import signal\ns={signal.SIGTERM}\nsignal.pthread_sigmask(signal.SIG_BLOCK,s)\n"
             "open('%s/wrote','w')\nsignal.sigwait(s)\nopen('%s/done','w')",
             folder, folder);
    CU_ASSERT_FATAL(trial_open(&trial, "python3", script));
    wait_for_file("wrote");
    stage_exec_ops.close(trial.state, 0);
    CU_ASSERT_EQUAL(stat(path, &found), 0);
    unlink(path);

    /* nor that: KILL. It writes all the time, which must not hold us either. */
    CU_ASSERT_FATAL(trial_open(&trial, "sh", "trap '' TERM; exec yes"));
    pid_t pid = trial_program;
    stage_exec_ops.close(trial.state, 10);
    CU_ASSERT_EQUAL(kill(pid, 0), -1);
    CU_ASSERT_EQUAL(errno, ESRCH);
    stage_exec_ops.close(NULL, 0);
}

/* A worker that is killed takes its program along. */
static void exits_with_its_worker(void)
{
    int pair[2];
    CU_ASSERT_EQUAL_FATAL(pipe2(pair, O_CLOEXEC), 0);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pid_t worker = fork();
    if (worker == 0) {
        struct trial trial;
        /* the end of its input alone would not end it */
        if (!trial_open(&trial, "python3", "import signal\nwhile True: signal.pause()") ||
            write(pair[1], &trial_program, sizeof trial_program) != (ssize_t)sizeof trial_program)
            _exit(1);
        for (;;)
            pause();
    }
    close(pair[1]);
    pid_t program = 0;
    CU_ASSERT_EQUAL(read(pair[0], &program, sizeof program), (ssize_t)sizeof program);
    close(pair[0]);
    int handle = pidfd_open(program, 0);
    CU_ASSERT(handle >= 0);
    kill(worker, SIGKILL);
    CU_ASSERT_EQUAL(waitpid(worker, NULL, 0), worker);
    struct pollfd watched = {handle, POLLIN, 0};
    CU_ASSERT_EQUAL(poll(&watched, 1, 10000), 1);
    close(handle);
    kill(program, SIGKILL);                              /* so that it never outlives the test */
    CU_ASSERT_EQUAL(waitpid(program, NULL, 0), program); /* ours now */
    prctl(PR_SET_CHILD_SUBREAPER, 0);
}

/* Whatever it was, no descriptor is left behind. */
static void leaves_no_descriptors(void)
{
    int before = dup(0);
    close(before);
    struct trial trial;
    struct ep_call call;
    for (int i = 0; i < 5; i++) {
        CU_ASSERT(breaks("sh", "read -r line; exit 3", SHM_CAUSE_EXIT, 3, "code 3"));
        CU_ASSERT(start_fails("/opt/no/such/thing", NULL, "No such file"));
        CU_ASSERT_FATAL(trial_open(&trial, "sh", "while read -r line; do echo '" GOOD "'; done"));
        CU_ASSERT_EQUAL(trial_call(&trial, &call, "{}"), STAGE_ANSWERED);
        trial_close(&trial);
    }
    int after = dup(0);
    close(after);
    CU_ASSERT_EQUAL(after, before);
}

static const struct unit_case cases[] = {
    {"answers in turn", answers_in_turn},
    {"is sent one line", is_sent_one_line},
    {"begins clean", begins_clean},
    {"big events there and back", big_events_there_and_back},
    {"no deadlock", no_deadlock},
    {"ends are told exactly", ends_are_told_exactly},
    {"closed inputs end it", closed_inputs_end_it},
    {"malformed answers are shown", malformed_answers_are_shown},
    {"unexpected lines and silent ends", unexpected_lines_and_silent_ends},
    {"failed starts say why", failed_starts_say_why},
    {"the check searches as exec does", check_searches_as_exec_does},
    {"closes cleanly", closes_cleanly},
    {"exits with its worker", exits_with_its_worker},
    {"leaves no descriptors", leaves_no_descriptors},
};

int main(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/exec-XXXXXX", base != NULL ? base : "/tmp");
    if (mkdtemp(folder) == NULL)
        return EXIT_FAILURE;
    int result = unit_run("stage_exec", cases, sizeof cases / sizeof cases[0]);
    return rmdir(folder) == 0 ? result : EXIT_FAILURE;
}
