/* SPDX-License-Identifier: MIT */
/*
 * Stages that are C code: plugins, loaded from real shared objects, and functions of a library caller. The
 * plugins are tests/unit/plugin_*.c, built as modules into the folder that EP_TEST_PLUGIN_DIR names (".libs"
 * if it names none).
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/lib/stage_fixture.h"

static const char *plugin_path(const char *name)
{
    static char path[4200];
    const char *folder = getenv("EP_TEST_PLUGIN_DIR");
    snprintf(path, sizeof path, "%s/plugin_%s.so", folder != NULL ? folder : ".libs", name);
    return path;
}

static struct stage_config plugin_config(const char *name, const char *options)
{
    return (struct stage_config){.name = "locate",
                                 .type = STAGE_PLUGIN,
                                 .plugin = (char *)plugin_path(name),
                                 .options = (char *)options};
}

static int run_once(const char *options, struct ep_call *call)
{
    struct stage_config config = plugin_config("trial", options);
    struct stage_failure failure = {0};
    struct error error = {0};
    void *state = NULL;
    stage_fixture_call(call, "{}", "{\"id\":9007199254740993}");
    int code = stage_plugin_ops.open(&config, stage_fixture_env(), &state, &error);
    if (code != 0) {
        fprintf(stderr, "\n%s\n", error.message);
        return code;
    }
    enum stage_result result = stage_plugin_ops.process(state, call, &failure);
    stage_plugin_ops.close(state, 0);
    CU_ASSERT_EQUAL(result, STAGE_ANSWERED);
    return stage_call_print_changed_context(call);
}

static void runs_and_answers(void)
{
    struct ep_call call;
    CU_ASSERT_EQUAL_FATAL(run_once("{}", &call), 0);
    CU_ASSERT_EQUAL(call.answer, EP_PROCESSED);
    CU_ASSERT(stage_fixture_same(call.new_context, "{\"id\":9007199254740993,\"calls\":1}"));
    CU_ASSERT(stage_fixture_same(call.reason, "said by quakes/u-1/locate"));
    CU_ASSERT_EQUAL(call.retry_after_ms, 250);
    stage_call_close(&call);
    for (int answer = EP_PROCESSED; answer <= EP_ERROR; answer++) {
        char options[32];
        snprintf(options, sizeof options, "{\"answer\":%d}", answer);
        CU_ASSERT_EQUAL(run_once(options, &call), 0);
        CU_ASSERT_EQUAL((int)call.answer, answer);
        stage_call_close(&call);
    }
}

static void a_malformed_answer_is_an_error(void)
{
    struct ep_call call;
    CU_ASSERT_EQUAL(run_once("{\"answer\":17}", &call), 0);
    CU_ASSERT_EQUAL(call.answer, EP_ERROR);
    CU_ASSERT(stage_fixture_same(call.reason, "the stage returned 17, which is not an answer"));
    stage_call_close(&call);
    CU_ASSERT_EQUAL(run_once("{\"answer\":-1}", &call), 0);
    CU_ASSERT_EQUAL(call.answer, EP_ERROR);
    CU_ASSERT(stage_fixture_contains(call.reason, "returned -1"));
    stage_call_close(&call);
}

static void state_lives_from_init_to_fini(void)
{
    char trace[300], options[400], found[32] = "";
    const char *base = getenv("TMPDIR");
    snprintf(trace, sizeof trace, "%s/plugin-trace-%d", base != NULL ? base : "/tmp", (int)getpid());
    snprintf(options, sizeof options, "{\"trace\":\"%s\"}", trace);
    struct stage_config config = plugin_config("trial", options);
    struct stage_failure failure = {0};
    void *state = NULL;
    CU_ASSERT_EQUAL_FATAL(stage_plugin_ops.open(&config, stage_fixture_env(), &state, NULL), 0);
    for (int i = 0; i < 3; i++) {
        struct ep_call call;
        stage_fixture_call(&call, "{}", "{}");
        CU_ASSERT_EQUAL(stage_plugin_ops.process(state, &call, &failure), STAGE_ANSWERED);
        stage_call_close(&call);
    }
    CU_ASSERT_EQUAL(access(trace, F_OK), -1);
    stage_plugin_ops.close(state, 0);
    FILE *file = fopen(trace, "r");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    CU_ASSERT_PTR_NOT_NULL(fgets(found, sizeof found, file));
    fclose(file);
    unlink(trace);
    CU_ASSERT(stage_fixture_same(found, "3 calls"));
    stage_plugin_ops.close(NULL, 0);
}

static bool refused(const char *name, const char *options, const char *part)
{
    struct stage_config config = plugin_config(name, options);
    struct error error = {0};
    void *state = &config;
    int code = stage_plugin_ops.open(&config, stage_fixture_env(), &state, &error);
    return code < 0 && error.code == code && state == &config && stage_fixture_contains(error.message, part);
}

static bool check_refuses(const char *name, const char *part)
{
    struct stage_config config = plugin_config(name, "{}");
    struct error error = {0};
    return stage_check(&config, &error) < 0 && stage_fixture_contains(error.message, part);
}

static void refused_with_clear_messages(void)
{
    CU_ASSERT(refused("old", "{}", "made for stage ABI 42, but this eventpipe has ABI 1: build it again"));
    CU_ASSERT(refused("idle", "{}", "has no process function"));
    CU_ASSERT(refused("other", "{}", "exports no ep_plugin_stage"));
    CU_ASSERT(refused("unbound", "{}", "function_that_nobody_has"));
    CU_ASSERT(refused("missing", "{}", "plugin_missing.so: cannot open shared object file: No such file"));
    CU_ASSERT(
        refused("trial", "{\"fail\":\"no table of that name\"}", "plugin_trial.so: no table of that name"));
    CU_ASSERT(refused("trial", "{\"fail\":\"\"}", "its init failed with code 17 and gave no message"));

    CU_ASSERT(check_refuses("old", "stage ABI 42"));
    CU_ASSERT(check_refuses("other", "exports no ep_plugin_stage"));
    CU_ASSERT(check_refuses("unbound", "function_that_nobody_has"));
    CU_ASSERT(check_refuses("missing", "No such file"));
    struct stage_config config = plugin_config("trial", "{\"fail\":\"init is not called by a check\"}");
    CU_ASSERT_EQUAL(stage_check(&config, NULL), 0);
    config.plugin = NULL;
    CU_ASSERT_EQUAL(stage_check(&config, NULL), EP_EINVAL);
}

/* ---- functions of a library caller ---- */

static int user_value = 5;

static int add_init(const char *options, void **state, char *errbuf, size_t errbuf_size)
{
    (void)errbuf;
    (void)errbuf_size;
    CU_ASSERT(stage_fixture_same(options, "{\"by\":2}"));
    CU_ASSERT_PTR_EQUAL(*state, &user_value); /* what the caller gave */
    return 0;
}

static enum ep_answer add_process(ep_call *call, void *state)
{
    (void)call;
    ++*(int *)state;
    return EP_REMOVE;
}

static void functions_of_a_caller(void)
{
    const struct ep_stage full = {.abi = EP_STAGE_ABI,
                                  .name = "add",
                                  .init = add_init,
                                  .process = add_process},
                          bare = {.abi = EP_STAGE_ABI, .process = add_process},
                          old = {.abi = 0, .process = add_process};
    struct stage_config config = {.type = STAGE_FUNCTION,
                                  .function = &full,
                                  .function_user = &user_value,
                                  .options = "{\"by\":2}"};
    struct stage_failure failure = {0};
    struct error error = {0};
    struct ep_call call;
    void *state = NULL;
    const struct stage_ops *ops = stage_ops_for(STAGE_FUNCTION);

    CU_ASSERT_EQUAL_FATAL(ops->open(&config, stage_fixture_env(), &state, &error), 0);
    stage_fixture_call(&call, "{}", "{}");
    CU_ASSERT_EQUAL(ops->process(state, &call, &failure), STAGE_ANSWERED);
    CU_ASSERT_EQUAL(call.answer, EP_REMOVE);
    CU_ASSERT_EQUAL(user_value, 6);
    stage_call_close(&call);
    ops->close(state, 0);

    config.function = &bare;
    config.options = NULL;
    CU_ASSERT_EQUAL_FATAL(ops->open(&config, stage_fixture_env(), &state, &error), 0);
    stage_fixture_call(&call, "{}", "{}");
    CU_ASSERT_EQUAL(ops->process(state, &call, &failure), STAGE_ANSWERED);
    CU_ASSERT_EQUAL(user_value, 7);
    stage_call_close(&call);
    ops->close(state, 0);

    config.function = &old;
    CU_ASSERT_EQUAL(ops->open(&config, stage_fixture_env(), &state, &error), EP_EINVAL);
    CU_ASSERT(stage_fixture_contains(error.message, "stage ABI 0"));
    config.function = NULL;
    CU_ASSERT_EQUAL(stage_check(&config, &error), EP_EINVAL);
    CU_ASSERT_PTR_NULL(stage_ops_for((enum stage_type)99));
}

UNIT_MAIN("stage_plugin", {"runs and answers", runs_and_answers},
          {"a malformed answer is an error", a_malformed_answer_is_an_error},
          {"state lives from init to fini", state_lives_from_init_to_fini},
          {"refused with clear messages", refused_with_clear_messages},
          {"functions of a caller", functions_of_a_caller})
