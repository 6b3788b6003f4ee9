/* SPDX-License-Identifier: MIT */
/* The library's calls refuse what cannot be, with a message, before anything is started. */
#include "src/eventpipe.h"
#include "src/library/manager.h"
#include "tests/lib/unit.h"

static enum ep_answer nothing(ep_call *call, void *state)
{
    (void)call;
    (void)state;
    return EP_PROCESSED;
}

static int get_nothing(void *session, const struct ep_filter *filter, const char *cursor, uint32_t limit,
                       uint64_t wait_ms, ep_page *page)
{
    (void)session, (void)filter, (void)cursor, (void)limit, (void)wait_ms, (void)page;
    return EP_END;
}

static const struct ep_stage stage = {.abi = EP_STAGE_ABI, .name = "first", .process = nothing};
static const struct ep_client scoped = {.events_get = get_nothing, .requires_filter = 1};
static ep_manager *manager;
static ep_source *source;

static void open_all(void)
{
    const struct ep_manager_params params = {.instance = "unit"};
    CU_ASSERT_EQUAL_FATAL(ep_manager_open(&params, &manager), EP_OK);
    const struct ep_source_params generate = {.id = "g", .type = "generate", .generate_count = 1};
    CU_ASSERT_EQUAL_FATAL(ep_source_add(manager, &generate, &source), EP_OK);
}

static bool says(const char *message)
{
    return strstr(ep_errmsg(manager), message) != NULL;
}

static void managers(void)
{
    ep_manager *bad = NULL;
    CU_ASSERT_EQUAL(ep_manager_open(&(struct ep_manager_params){.instance = "a b"}, &bad), EP_EINVAL);
    CU_ASSERT_EQUAL(ep_manager_open(&(struct ep_manager_params){.storage = "postgres:x"}, &bad), EP_EINVAL);
    CU_ASSERT_EQUAL(ep_manager_open(&(struct ep_manager_params){.durability = (enum ep_durability)3}, &bad),
                    EP_EINVAL);
    CU_ASSERT_PTR_NULL(bad);
    CU_ASSERT_EQUAL(ep_manager_open(&(struct ep_manager_params){.storage = ":memory"}, &bad), EP_OK);
    CU_ASSERT_STRING_EQUAL(bad->config->storage, "memory:");
    ep_manager_close(&bad);
    CU_ASSERT_PTR_NULL(bad);
    ep_manager_close(&bad);
    ep_manager_close(NULL);
}

static void sources(void)
{
    open_all();
    ep_source *bad = NULL;
    CU_ASSERT_EQUAL(ep_source_add(manager, &(struct ep_source_params){.type = "generate"}, &bad), EP_EINVAL);
    CU_ASSERT_TRUE(says("needs an id"));
    CU_ASSERT_EQUAL(ep_source_add(manager, &(struct ep_source_params){.id = "g", .type = "generate"}, &bad),
                    EP_EEXIST);
    CU_ASSERT_EQUAL(ep_source_add(manager, &(struct ep_source_params){.id = "x", .type = "carrier-pigeon"},
                                  &bad),
                    EP_EINVAL);
    CU_ASSERT_TRUE(says("carrier-pigeon"));
    CU_ASSERT_EQUAL(ep_source_add(manager, &(struct ep_source_params){.id = "x"}, &bad), EP_EINVAL);
    CU_ASSERT_TRUE(says("nor a client"));
    CU_ASSERT_EQUAL(ep_source_add(manager, &(struct ep_source_params){.id = "x", .client = &scoped}, &bad),
                    EP_EINVAL);
    CU_ASSERT_TRUE(says("neither domain nor address"));
    CU_ASSERT_PTR_NULL(bad);
    CU_ASSERT_EQUAL(ep_source_add(manager,
                                  &(struct ep_source_params){.id = "x", .client = &scoped, .domain = "d"},
                                  &bad),
                    EP_OK);
    ep_manager_close(&manager);
}

static void idefix_sources(void)
{
    char account[] = "user-1", group[] = "one";
    const char *const groups[] = {group, NULL};
    struct ep_idefix_params params = {.broker = "ssl://h", .account = account, .groups = groups};
    struct ep_source_params wanted = {.id = "x", .type = "idefix", .idefix = &params};
    open_all();
    ep_source *bad = NULL;
    CU_ASSERT_EQUAL(ep_source_add(manager, &wanted, &bad), EP_EINVAL);
    CU_ASSERT_TRUE(says("neither domain nor address"));
    wanted.domain = "acme";
    wanted.idefix = NULL;
    CU_ASSERT_EQUAL(ep_source_add(manager, &wanted, &bad), EP_EINVAL);
    CU_ASSERT_TRUE(says("source x: idefix needs a broker and an account"));
    wanted.idefix = &params;
    params.token_file = "/nonexistent/token";
    CU_ASSERT_EQUAL(ep_source_add(manager, &wanted, &bad), EP_EACCESS);
    CU_ASSERT_TRUE(says("source x: /nonexistent/token"));
    CU_ASSERT_PTR_NULL(bad);
    params.token_file = NULL;
    params.token = "secret";
    params.max_bytes = 4096;
    CU_ASSERT_EQUAL_FATAL(ep_source_add(manager, &wanted, &bad), EP_OK);
    strcpy(account, "gone");
    strcpy(group, "go"); /* all was copied */
    const struct source_config *config = &manager->config->sources[1];
    CU_ASSERT_EQUAL(config->type, SOURCE_IDEFIX);
    CU_ASSERT_STRING_EQUAL(config->domain, "acme");
    CU_ASSERT_STRING_EQUAL(config->idefix.broker, "ssl://h");
    CU_ASSERT_STRING_EQUAL(config->idefix.account, "user-1");
    CU_ASSERT_STRING_EQUAL(config->idefix.token, "secret");
    CU_ASSERT_EQUAL(config->idefix.groups.count, 1);
    CU_ASSERT_STRING_EQUAL(config->idefix.groups.at[0], "one");
    CU_ASSERT_EQUAL(config->idefix.max_bytes, 4096);
    CU_ASSERT_STRING_EQUAL(config->idefix.encoding, "mg"); /* defaults */
    CU_ASSERT_STRING_EQUAL(config->idefix.user, "device");
    CU_ASSERT_EQUAL(config->idefix.connect_timeout_ms, 10000);
    CU_ASSERT_EQUAL(config->long_poll_ms, 60000);
    CU_ASSERT_PTR_NULL(config->idefix.session);
    ep_manager_close(&manager);
}

static void stages(void)
{
    open_all();
    struct ep_stage_options options = EP_STAGE_OPTIONS_INIT;
    CU_ASSERT_EQUAL(ep_source_push(source, &stage, &options), EP_OK);
    CU_ASSERT_EQUAL(ep_source_push(source, &stage, &options), EP_EEXIST);
    CU_ASSERT_TRUE(says("first"));
    options.name = "second";
    options.concurrency = 0;
    CU_ASSERT_EQUAL(ep_source_push(source, &stage, &options), EP_EINVAL);
    CU_ASSERT_TRUE(says("concurrency 0"));
    struct ep_stage old = stage;
    old.abi = 99;
    CU_ASSERT_EQUAL(ep_source_push(source, &old, NULL), EP_EINVAL);
    CU_ASSERT_TRUE(says("99"));
    CU_ASSERT_EQUAL(ep_source_push_exec(source, (const char *const[]){"cat", NULL}, NULL), EP_EINVAL);
    CU_ASSERT_TRUE(says("needs a name"));
    CU_ASSERT_EQUAL(manager->config->sources[0].stage_count, 1);
    ep_manager_close(&manager);
}

static void stage_options(void)
{
    open_all();
    const struct ep_stage_options none = EP_STAGE_OPTIONS_INIT;
    const struct ep_stage_options all = {.name = "all",
                                         .concurrency = 3,
                                         .input_buffer = 7,
                                         .batch = 11,
                                         .prefetch = 13,
                                         .commit_delay_ms = 17,
                                         .timeout_ms = 19,
                                         .retry_min_ms = 23,
                                         .retry_max_ms = 29,
                                         .max_attempts = 31,
                                         .max_age_ms = 37,
                                         .max_crashes = 41,
                                         .options = "{\"a\":1}"};
    CU_ASSERT_EQUAL_FATAL(ep_source_push(source, &stage, &none), EP_OK);
    CU_ASSERT_EQUAL_FATAL(ep_source_push(source, &stage, &all), EP_OK);
    const struct stage_config *plain = &manager->config->sources[0].stages[0], *set = plain + 1;
    CU_ASSERT_EQUAL(plain->prefetch, 64);
    CU_ASSERT_EQUAL(plain->batch, 500);
    CU_ASSERT_EQUAL(plain->input_buffer, 512);
    CU_ASSERT_EQUAL(plain->commit_delay_ms, 5);
    CU_ASSERT_EQUAL(plain->timeout_ms, 60000);
    CU_ASSERT_EQUAL(plain->max_crashes, 3);
    CU_ASSERT_STRING_EQUAL(set->name, "all");
    CU_ASSERT_EQUAL(set->concurrency, 3);
    CU_ASSERT_EQUAL(set->input_buffer, 7);
    CU_ASSERT_EQUAL(set->batch, 11);
    CU_ASSERT_EQUAL(set->prefetch, 13);
    CU_ASSERT_EQUAL(set->commit_delay_ms, 17);
    CU_ASSERT_EQUAL(set->timeout_ms, 19);
    CU_ASSERT_EQUAL(set->retry.min_ms, 23);
    CU_ASSERT_EQUAL(set->retry.max_ms, 29);
    CU_ASSERT_EQUAL(set->max_attempts, 31);
    CU_ASSERT_EQUAL(set->max_age_ms, 37);
    CU_ASSERT_EQUAL(set->max_crashes, 41);
    CU_ASSERT_STRING_EQUAL(set->options, "{\"a\":1}");
    ep_manager_close(&manager);
}

static void too_much_is_refused_when_it_runs(void)
{
    open_all();
    struct ep_stage_options options = EP_STAGE_OPTIONS_INIT;
    options.prefetch = 65;
    CU_ASSERT_EQUAL_FATAL(ep_source_push(source, &stage, &options), EP_OK);
    CU_ASSERT_EQUAL(ep_source_run(source), EP_EINVAL);
    CU_ASSERT_TRUE(says("prefetch"));
    ep_manager_close(&manager);
}

static void a_source_without_stages_does_not_run(void)
{
    open_all();
    CU_ASSERT_EQUAL(ep_source_run(source), EP_EINVAL);
    CU_ASSERT_TRUE(says("stage"));
    ep_manager_stop(manager); /* nothing runs: nothing happens */
    ep_manager_close(&manager);
}

UNIT_MAIN("manager", {"managers", managers}, {"sources", sources}, {"sources of type idefix", idefix_sources},
          {"stages", stages}, {"what a stage's options say", stage_options},
          {"too much is refused when it runs", too_much_is_refused_when_it_runs},
          {"a source without stages does not run", a_source_without_stages_does_not_run})
