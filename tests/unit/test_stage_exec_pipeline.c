/* SPDX-License-Identifier: MIT */
/* Exec stages that are sent several events at once: whose answer is whose, who is blamed, what does not go
 * together. */
#include <signal.h>
#include <stdio.h>

#include "tests/lib/exec_trial.h"

#define MANY 40
#define GOOD "{\"processed\":true}"

static bool trial_python(struct trial *trial, const char *script)
{
    trial_with(trial, "python3", script);
    return trial_start(trial);
}

static bool send_ahead(struct trial *trial, const char *event)
{
    struct ep_call call;
    stage_fixture_call(&call, event, "{}");
    bool taken = stage_exec_ops.send_ahead(trial->state, &call);
    stage_call_close(&call);
    return taken;
}

/* Sends `{"n":0}` and so on together. */
static size_t pipeline(struct trial *trial, size_t count)
{
    size_t sent = 0;
    char event[32];
    while (sent < count) {
        snprintf(event, sizeof event, "{\"n\":%zu}", sent);
        if (!send_ahead(trial, event))
            break;
        sent++;
    }
    return sent;
}

static enum stage_result next(struct trial *trial, struct ep_call *call)
{
    stage_fixture_call(call, "{}", "{}"); /* what was sent counts, not what is said here */
    memset(&trial->failure, 0, sizeof trial->failure);
    return stage_exec_ops.process(trial->state, call, &trial->failure);
}

/* How many of a pipeline are answered before it breaks. */
static size_t answered(struct trial *trial, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct ep_call call;
        enum stage_result result = next(trial, &call);
        stage_call_close(&call);
        if (result != STAGE_ANSWERED)
            return i;
    }
    return count;
}

static void trial_end(struct trial *trial)
{
    stage_exec_ops.close(trial->state, 5000);
    CU_ASSERT_EQUAL(trial_program, 0);
}

/* Reads all lines before it answers the first, where there are MANY: so they were sent together. */
static void answers_in_order(void)
{
    struct trial trial;
    CU_ASSERT_FATAL(trial_python(&trial, "import json,sys\nwhile True:\n"
                                         " lines=[sys.stdin.readline() for _ in range(40)]\n"
                                         " if not lines[0]: break\n"
                                         " for line in lines:\n"
                                         "  event=json.loads(line)['event']\n"
                                         "  print(json.dumps({'processed':True,'event':event}),flush=True)"));
    for (int turn = 0; turn < 3; turn++) {
        CU_ASSERT_EQUAL(pipeline(&trial, MANY), MANY);
        for (int i = 0; i < MANY; i++) {
            struct ep_call call;
            char expected[32];
            snprintf(expected, sizeof expected, "{\"n\": %d}", i);
            CU_ASSERT_EQUAL(next(&trial, &call), STAGE_ANSWERED);
            CU_ASSERT(stage_fixture_same(call.new_event, expected));
            CU_ASSERT(i == MANY - 1 || !send_ahead(&trial, "{}")); /* not while there are some on the way */
            stage_call_close(&call);
        }
    }
    trial_end(&trial);
}

/* After a pipeline an event alone, and the other way round; a pipeline of one. */
static void alone_between_pipelines(void)
{
    struct trial trial;
    CU_ASSERT_FATAL(trial_python(&trial, "import sys\nfor line in sys.stdin: print('" GOOD "',flush=True)"));
    for (int turn = 0; turn < 20; turn++) {
        CU_ASSERT_EQUAL(answered(&trial, 1), 1);
        CU_ASSERT_EQUAL(pipeline(&trial, (size_t)turn % 5), (size_t)turn % 5);
        CU_ASSERT_EQUAL(answered(&trial, (size_t)turn % 5), (size_t)turn % 5);
    }
    trial_end(&trial);
}

/* What it answered before it crashed counts; its crash meets the first without an answer. */
static void crash_meets_the_first_unanswered(void)
{
    struct trial trial;
    CU_ASSERT_FATAL(trial_python(
        &trial, "import os,sys\nl=[sys.stdin.readline() for _ in range(40)]\nfor _ in range(17): print('" GOOD
                "',flush=True)\nos.write(1,b'{\"pro')\nos._exit(7)"));
    CU_ASSERT_EQUAL(pipeline(&trial, MANY), MANY);
    CU_ASSERT_EQUAL(answered(&trial, MANY), 17);
    CU_ASSERT_EQUAL(trial.failure.kind, SHM_CAUSE_EXIT);
    CU_ASSERT_EQUAL(trial.failure.code, 7);
    CU_ASSERT(stage_fixture_contains(trial.failure.message,
                                     "code 7 before it answered, after half a line: `{\"pro`"));
    CU_ASSERT_FALSE(send_ahead(&trial, "{}"));
    CU_ASSERT_EQUAL(answered(&trial, 1), 0);
    trial_end(&trial);
}

/* More than one read takes, in a pipe that holds it, of a program that has ended since. */
static void all_that_it_left_is_read(void)
{
    struct trial trial;
    struct ep_call call;
    CU_ASSERT_FATAL(trial_python(&trial, "import fcntl,os,sys\nfcntl.fcntl(1,1031,1<<20)\n" /* F_SETPIPE_SZ */
                                         "sys.stdin.readline(),sys.stdin.readline()\n"
                                         "for n in (70000,150000):\n"
                                         " a=b'{\"processed\":true,\"context\":{\"a\":\"'+b'y'*n+b'\"}}\\n'\n"
                                         " while a: a=a[os.write(1,a):]\n"));
    CU_ASSERT_EQUAL(pipeline(&trial, 2), 2);
    CU_ASSERT_EQUAL(next(&trial, &call), STAGE_ANSWERED);
    stage_call_close(&call);
    trial_wait_for_end();
    CU_ASSERT_EQUAL(next(&trial, &call), STAGE_ANSWERED);
    CU_ASSERT(call.new_context != NULL && strlen(call.new_context) == 150000 + strlen("{\"a\":\"\"}"));
    stage_call_close(&call);
    trial_end(&trial);
}

/* It takes one line at a time, unbuffered, and closes its input in the midst. */
static void closed_input_meets_the_first_unanswered(void)
{
    struct trial trial;
    CU_ASSERT_FATAL(trial_python(&trial, "import os,signal\n"
                                         "for _ in range(9):\n"
                                         " while os.read(0,1)!=b'\\n': pass\n"
                                         " os.write(1,b'" GOOD "\\n')\n"
                                         "os.close(0)\nwhile True: signal.pause()"));
    CU_ASSERT_EQUAL(pipeline(&trial, MANY), MANY);
    CU_ASSERT_EQUAL(answered(&trial, MANY), 9);
    CU_ASSERT_EQUAL(trial.failure.kind, SHM_CAUSE_MALFORMED);
    CU_ASSERT(stage_fixture_contains(trial.failure.message, "closed its input"));
    trial_end(&trial);
}

static void a_line_too_many_breaks_the_pipeline(void)
{
    struct trial trial;
    /* at once */
    CU_ASSERT_FATAL(trial_python(&trial, "import os,sys\nl=[sys.stdin.readline() for _ in range(40)]\n"
                                         "os.write(1,b'" GOOD "\\n'*41)\nsys.stdin.readline()"));
    CU_ASSERT_EQUAL(pipeline(&trial, MANY), MANY);
    CU_ASSERT_EQUAL(answered(&trial, MANY), 0);
    CU_ASSERT_EQUAL(trial.failure.kind, SHM_CAUSE_MALFORMED);
    CU_ASSERT(
        stage_fixture_same(trial.failure.message, "wrote more than one line for one event: `" GOOD "`"));
    trial_end(&trial);

    /* half a line, while others still wait to be taken */
    CU_ASSERT_FATAL(trial_python(&trial, "import os,sys\nl=[sys.stdin.readline() for _ in range(40)]\n"
                                         "os.write(1,b'" GOOD "\\n'*40+b'more')\nsys.stdin.readline()"));
    CU_ASSERT_EQUAL(pipeline(&trial, MANY), MANY);
    CU_ASSERT_EQUAL(answered(&trial, MANY), 0);
    CU_ASSERT(stage_fixture_contains(trial.failure.message, "more than one line for one event: `more`"));
    trial_end(&trial);

    /* behind the others: found by the end of the pipeline, or else before the next event */
    CU_ASSERT_FATAL(trial_python(&trial, "import os,sys\nl=[sys.stdin.readline() for _ in range(40)]\n"
                                         "for _ in range(40): os.write(1,b'" GOOD "\\n')\n"
                                         "os.write(1,b'late\\n')\nsys.stdin.readline()"));
    CU_ASSERT_EQUAL(pipeline(&trial, MANY), MANY);
    CU_ASSERT(answered(&trial, MANY) < MANY || answered(&trial, 1) == 0);
    CU_ASSERT_EQUAL(trial.failure.kind, SHM_CAUSE_MALFORMED);
    CU_ASSERT(stage_fixture_contains(trial.failure.message, "`late`"));
    trial_end(&trial);
}

static void malformed_answer_in_a_pipeline(void)
{
    struct trial trial;
    CU_ASSERT_FATAL(trial_python(&trial, "import sys\nfor n,line in enumerate(sys.stdin):\n"
                                         " print('hello' if n==5 else '" GOOD "',flush=True)"));
    CU_ASSERT_EQUAL(pipeline(&trial, MANY), MANY);
    CU_ASSERT_EQUAL(answered(&trial, MANY), 5);
    CU_ASSERT_EQUAL(trial.failure.kind, SHM_CAUSE_MALFORMED);
    CU_ASSERT(stage_fixture_contains(trial.failure.message, "malformed answer: `hello`"));
    trial_end(&trial);
}

/* Answers of a megabyte each, to a pipeline that it reads bit by bit: neither waits for the other. */
static void big_answers_to_a_pipeline(void)
{
    struct trial trial;
    CU_ASSERT_FATAL(
        trial_python(&trial, "import sys\nfor n,line in enumerate(sys.stdin.buffer):\n"
                             " sys.stdout.write('{\"processed\":true,\"context\":{\"n\":%d,\"a\":\"%s\"}}\\n'"
                             "%(n,'y'*1000000)); sys.stdout.flush()"));
    CU_ASSERT_EQUAL(pipeline(&trial, MANY), MANY);
    for (int i = 0; i < MANY; i++) {
        struct ep_call call;
        char begin[32];
        snprintf(begin, sizeof begin, "{\"n\":%d,", i);
        CU_ASSERT_EQUAL(next(&trial, &call), STAGE_ANSWERED);
        CU_ASSERT(call.new_context != NULL && strncmp(call.new_context, begin, strlen(begin)) == 0 &&
                  strlen(call.new_context) > 1000000);
        stage_call_close(&call);
    }
    trial_end(&trial);
}

/* What would fill the pipe, or could not be told apart by its use of CPU time, goes alone. */
static void what_goes_alone(void)
{
    struct trial trial;
    char *big = malloc(40000);
    snprintf(big, 40000, "{\"payload\":\"%030000d\"}", 0);
    CU_ASSERT_FATAL(trial_python(&trial, "import sys\nfor line in sys.stdin: print('" GOOD "',flush=True)"));
    CU_ASSERT_TRUE(send_ahead(&trial, big));
    CU_ASSERT_FALSE(send_ahead(&trial, big));
    CU_ASSERT_TRUE(send_ahead(&trial, "{}"));
    CU_ASSERT_EQUAL(answered(&trial, 3), 3);
    snprintf(big, 40000, "{\"payload\":\"%036000d\"}", 0);
    CU_ASSERT_FALSE(send_ahead(&trial, big));
    CU_ASSERT_EQUAL(answered(&trial, 1), 1);
    trial_end(&trial);
    free(big);

    trial_with(&trial, "python3", "import sys\nfor line in sys.stdin: print('" GOOD "',flush=True)");
    trial.config.limits.cpu_ms = 5000;
    CU_ASSERT_FATAL(trial_start(&trial));
    CU_ASSERT_FALSE(send_ahead(&trial, "{}"));
    CU_ASSERT_EQUAL(answered(&trial, 1), 1);
    trial_end(&trial);
}

static const struct unit_case cases[] = {
    {"answers in order", answers_in_order},
    {"alone between pipelines", alone_between_pipelines},
    {"crash meets the first unanswered", crash_meets_the_first_unanswered},
    {"all that it left is read", all_that_it_left_is_read},
    {"closed input meets the first unanswered", closed_input_meets_the_first_unanswered},
    {"a line too many breaks the pipeline", a_line_too_many_breaks_the_pipeline},
    {"a malformed answer in a pipeline", malformed_answer_in_a_pipeline},
    {"big answers to a pipeline", big_answers_to_a_pipeline},
    {"what goes alone", what_goes_alone},
};

int main(void)
{
    return unit_run("stage_exec_send_ahead", cases, sizeof cases / sizeof cases[0]);
}
