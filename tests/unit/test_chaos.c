/* SPDX-License-Identifier: MIT */
/* What `eventpipe chaos` does without a process: its configuration, its events, its counting and its verdict.
 */
#include <fcntl.h>

#include "src/cli/chaos/chaos.h"
#include "tests/unit/config_file.h"

static const char user_file[] =
    "instance: live\n"
    "storage: sqlite:live.db\n"
    "control: live.sock\n"
    "synchronous: normal\n"
    "drain_timeout: 7s\n"
    "sources:\n"
    "- id: a\n"
    "  type: http\n"
    "  url: http://h/{cursor}\n"
    "  token_env: PATH\n"
    "  cursor: {last: /id}\n"
    "  device: /where\n"
    "  page: 7\n"
    "  stages: &stages\n"
    "  - name: one\n"
    "    exec: [python3, 'a b.py', \"\", '5', '~', \"two\\nlines\"]\n"
    "    directory: scripts\n"
    "    environment: {A: \"#x\", B: 'yes'}\n"
    "    concurrency: 3\n"
    "    max_crashes: 2\n"
    "    retry: {min: 5m, max: 1h}\n"
    "    max_attempts: 4\n"
    "  - {name: two, plugin: lib/two.so, options: {n: 5, t: '5', z: null, l: [1, true]}}\n"
    "  - {name: three, url: 'http://h/', headers: ['X-A: b'], ca_file: /etc/ca.pem}\n"
    "- {id: b, type: generate, size: 50, stages: *stages}\n";

/* Writes the trial's configuration and reads it. */
static struct config *trial_of(const char *only_source)
{
    char file[6000];
    struct error error = {0};
    struct config *config = NULL;
    snprintf(file, sizeof file, "%s/trial.yaml", directory);
    const struct chaos_config trial = {.user_path =
                                           write_file("quakes.yaml", user_file, strlen(user_file), 0644),
                                       .instance = "chaos-1",
                                       .storage = "sqlite:/tmp/t/store.db",
                                       .control = "/tmp/t/control",
                                       .program = "/bin/eventpipe",
                                       .only_source = only_source,
                                       .folder = "/tmp/t"};
    CU_ASSERT_EQUAL(chaos_config_write(&trial, file, &error), EP_OK);
    seen_count = 0;
    CU_ASSERT_EQUAL(config_read(file, see, seen, &config), EP_OK);
    show_all();
    unlink(file);
    CU_ASSERT_PTR_NOT_NULL_FATAL(config);
    return config;
}

static void expect_path(const char *found, const char *below)
{
    char whole[5000];
    snprintf(whole, sizeof whole, "%s/%s", directory, below);
    CU_ASSERT_STRING_EQUAL(found, whole);
}

static void expect_stages(const struct source_config *source, const char *witness)
{
    CU_ASSERT_EQUAL_FATAL(source->stage_count, 4);
    const struct stage_config *one = &source->stages[0], *two = one + 1, *three = one + 2, *last = one + 3;
    static const char *const program[] = {"python3", "a b.py", "", "5", "~", "two\nlines"};
    CU_ASSERT_EQUAL_FATAL(one->exec.count, 6);
    for (size_t i = 0; i < 6; i++)
        CU_ASSERT_STRING_EQUAL(one->exec.at[i], program[i]);
    expect_path(one->directory, "scripts");
    CU_ASSERT_EQUAL_FATAL(one->environment.count, 2);
    CU_ASSERT_STRING_EQUAL(one->environment.at[0], "A=#x");
    CU_ASSERT_STRING_EQUAL(one->environment.at[1], "B=yes");
    CU_ASSERT_EQUAL(one->concurrency, 3);
    CU_ASSERT_EQUAL(one->max_attempts, 4);
    CU_ASSERT_EQUAL(one->max_crashes, 50);
    CU_ASSERT_EQUAL(one->retry.max_ms, 500);
    CU_ASSERT_EQUAL(one->restart_max_ms, 500);
    expect_path(two->plugin, "lib/two.so");
    CU_ASSERT_STRING_EQUAL(two->options, "{\"n\":5,\"t\":\"5\",\"z\":null,\"l\":[1,true]}");
    CU_ASSERT_STRING_EQUAL(three->url, "http://h/");
    CU_ASSERT_STRING_EQUAL(three->ca_file, "/etc/ca.pem");
    CU_ASSERT_STRING_EQUAL(last->name, CHAOS_WITNESS_STAGE);
    CU_ASSERT_EQUAL_FATAL(last->exec.count, 3);
    CU_ASSERT_STRING_EQUAL(last->exec.at[0], "/bin/eventpipe");
    CU_ASSERT_STRING_EQUAL(last->exec.at[2], witness);
    CU_ASSERT_EQUAL(last->max_crashes, 0);
}

static void the_stages_stay_what_they_are(void)
{
    struct config *config = trial_of(NULL);
    CU_ASSERT_STRING_EQUAL(config->instance, "chaos-1");
    CU_ASSERT_STRING_EQUAL(config->storage, "sqlite:/tmp/t/store.db");
    CU_ASSERT_STRING_EQUAL(config->control, "/tmp/t/control");
    CU_ASSERT_EQUAL(config->synchronous, SYNCHRONOUS_NORMAL);
    CU_ASSERT_EQUAL(config->drain_timeout_ms, 7000);
    CU_ASSERT_EQUAL(config->token_variables.count, 0); /* the real source's token is not asked for */
    CU_ASSERT_EQUAL_FATAL(config->source_count, 2);
    CU_ASSERT_EQUAL(config->sources[0].type, SOURCE_FILE);
    CU_ASSERT_EQUAL(config->sources[1].type, SOURCE_FILE);
    CU_ASSERT_EQUAL(config->sources[0].page, 7);
    CU_ASSERT_STRING_EQUAL(config->sources[0].pointers.device, "/where");
    CU_ASSERT_PTR_NULL(config->sources[0].pointers.uid);
    CU_ASSERT_STRING_EQUAL(config->sources[0].file.path, "/tmp/t/feed.0");
    CU_ASSERT_STRING_EQUAL(config->sources[1].file.path, "/tmp/t/feed.1");
    expect_stages(&config->sources[0], "/tmp/t/witness.0");
    expect_stages(&config->sources[1], "/tmp/t/witness.1");
    config_close(&config);
}

static void one_source_alone(void)
{
    struct config *config = trial_of("b");
    CU_ASSERT_EQUAL_FATAL(config->source_count, 1);
    CU_ASSERT_STRING_EQUAL(config->sources[0].id, "b");
    expect_stages(&config->sources[0], "/tmp/t/witness.1");
    config_close(&config);
}

/* ---- events ---- */

static void lines_are_found_again(void)
{
    struct chaos_feed feed = {.size_bytes = 40};
    struct error error = {0};
    char uid[200], text[400] = "";
    snprintf(feed.path, sizeof feed.path, "%.400s/token", directory);
    CU_ASSERT_EQUAL_FATAL(chaos_feed_open(&feed, &error), EP_OK);
    CU_ASSERT_EQUAL(chaos_feed_write(&feed, 3, &error), EP_OK);
    CU_ASSERT_EQUAL(chaos_feed_write(&feed, 2, &error), EP_OK);
    CU_ASSERT_EQUAL(feed.count, 5);
    CU_ASSERT_EQUAL(feed.bytes, 5 * 41);
    for (uint64_t i = 0; i < 5; i++) {
        snprintf(uid, sizeof uid, "%llu-0-%llu-abc\n", (unsigned long long)feed.inode,
                 (unsigned long long)i * 41);
        CU_ASSERT_EQUAL(chaos_feed_find(&feed, uid), i);
        snprintf(uid, sizeof uid, "%llu-0-%llu-abc", (unsigned long long)feed.inode,
                 (unsigned long long)i * 41 + 1);
        CU_ASSERT_EQUAL(chaos_feed_find(&feed, uid), UINT64_MAX);
    }
    snprintf(uid, sizeof uid, "%llu-0-0-abc", (unsigned long long)feed.inode + 1);
    CU_ASSERT_EQUAL(chaos_feed_find(&feed, uid), UINT64_MAX);
    CU_ASSERT_EQUAL(chaos_feed_find(&feed, "nonsense"), UINT64_MAX);
    int fd = open(feed.path, O_RDONLY);
    CU_ASSERT_EQUAL(read(fd, text, sizeof text - 1), 5 * 41);
    close(fd);
    CU_ASSERT_EQUAL(strncmp(text + 41, "{\"n\":2,\"pad\":\"xxxx", 18), 0);
    text[81] = '\0';
    CU_ASSERT(json_valid(text + 41, 40, NULL));
    chaos_feed_close(&feed);
    unlink(feed.path);
}

static int sample(const char *text, size_t bytes, struct chaos_sample *out)
{
    struct error error = {0};
    return chaos_sample_read(write_file("token", text, bytes, 0600), out, &error);
}

static void samples(void)
{
    struct chaos_sample found = {0};
    CU_ASSERT_EQUAL_FATAL(sample("{\"a\":1}\r\n\n[2]", 13, &found), 0);
    CU_ASSERT_EQUAL_FATAL(found.count, 2);
    CU_ASSERT_EQUAL(found.lines[0].bytes, 7);
    CU_ASSERT_EQUAL(strncmp(found.lines[1].at, "[2]", found.lines[1].bytes), 0);
    chaos_sample_free(&found);
    CU_ASSERT_EQUAL(sample("{\"a\":1}\nnonsense\n", 17, &found), CONTROL_USAGE);
    CU_ASSERT_EQUAL(sample("{}\0{}\n", 6, &found), CONTROL_USAGE);
    CU_ASSERT_EQUAL(sample("\n \n", 3, &found), CONTROL_USAGE);
    CU_ASSERT_EQUAL(sample("", 0, &found), CONTROL_USAGE);
    CU_ASSERT_EQUAL(chaos_sample_read("/nowhere", &found, &(struct error){0}), CONTROL_USAGE);
}

static void the_window_follows_the_pace(void)
{
    uint64_t window = chaos_window(0, 0);
    CU_ASSERT_EQUAL(window, 64);
    CU_ASSERT_EQUAL(chaos_window(window, 10), 64); /* slow stages are not flooded */
    CU_ASSERT_EQUAL(chaos_window(window, 60), 128);
    for (int i = 0; i < 30; i++)
        window = chaos_window(window, 1000000);
    CU_ASSERT_EQUAL(window, 20000);
}

/* ---- counting ---- */

/* 100 went in: 80 finished, 10 removed, 6 dead, 4 delayed. */
static struct chaos_count sound(void)
{
    struct chaos_count count = {.id = "a", .fed = 100, .witnessed = 80};
    count.totals = (struct store_totals){
        .fetched = 100, .finished = 80, .removed = 10, .live = 10, .dead = 6, .delayed = 4};
    count.listed[STORE_DEAD] = 6;
    count.listed[STORE_DELAYED] = 4;
    count.dead[STORE_REASON_REJECTED] = 6;
    return count;
}

static struct chaos_sum sum_of(const struct chaos_count *count)
{
    struct chaos_sum sum;
    chaos_sum(count, &sum);
    return sum;
}

static void every_event_has_one_end(void)
{
    struct chaos_count count = sound();
    struct chaos_sum sum = sum_of(&count);
    CU_ASSERT(sum.lost == 0 && sum.doubled == 0 && sum.locked == 0 && sum.waiting == 0);
    CU_ASSERT_EQUAL(sum.through, 90);

    count.witnessed = 79; /* one was finished twice, another never came */
    sum = sum_of(&count);
    CU_ASSERT(sum.lost == 1 && sum.doubled == 1);

    count = sound();
    count.witnessed = 79; /* the store knows that one is missing */
    count.totals.finished = 79;
    sum = sum_of(&count);
    CU_ASSERT(sum.lost == 1 && sum.doubled == 0);

    count = sound();
    count.totals.finished = 79; /* one went through to the witness, and vanished without an answer stored */
    CU_ASSERT_EQUAL(sum_of(&count).lost, 1);

    count = sound();
    count.totals.finished = 81;
    CU_ASSERT_EQUAL(sum_of(&count).doubled, 1);

    count = sound();
    count.fed = 101; /* never fetched */
    CU_ASSERT_EQUAL(sum_of(&count).lost, 1);

    count = sound();
    count.totals.fetched = 101;
    CU_ASSERT_EQUAL(sum_of(&count).doubled, 1);

    count = sound();
    count.strangers = 1;
    CU_ASSERT_EQUAL(sum_of(&count).doubled, 1);

    count = sound();
    count.listed[STORE_DELAYED] = 2;
    count.listed[STORE_RUNNING] = 1;
    count.listed[STORE_READY] = 1;
    sum = sum_of(&count);
    CU_ASSERT(sum.lost == 0 && sum.locked == 1 && sum.waiting == 1);
}

static void repeated_calls_are_counted(void)
{
    struct chaos_stage_count stages[2] = {{.name = "one",
                                           .calls = 105,
                                           .totals = {.processed = 90, .removed = 10, .crashed = 2}},
                                          {.name = "two", .calls = 80, .totals = {.processed = 80}}};
    struct chaos_count count = sound();
    count.stages = stages;
    count.stage_count = 2;
    CU_ASSERT_EQUAL(sum_of(&count).repeated, 7);
}

/* ---- the verdict ---- */

static bool good_with(struct chaos_count *count, uint64_t blows, const char *words)
{
    struct chaos_options options = {.seed = 7};
    struct chaos_source source = {.count = *count};
    struct chaos chaos = {.options = &options, .sources = &source, .source_count = 1, .ended_in_order = true};
    chaos.blows[CHAOS_WORKER] = blows;
    struct json_out text = {0}, json = {0};
    bool good = chaos_report(&chaos, false, &text);
    CU_ASSERT_EQUAL(chaos_report(&chaos, true, &json), good);
    CU_ASSERT(json_valid(json.text, json.bytes - 1, NULL));
    CU_ASSERT_PTR_NOT_NULL(
        strstr(json.text, good ? "{\"good\":true,\"wrong\":[]," : "{\"good\":false,\"wrong\":[\""));
    CU_ASSERT_PTR_NOT_NULL(strstr(text.text, words));
    CU_ASSERT_EQUAL(strstr(text.text, "WRONG:\n") == NULL, good);
    json_out_free(&text);
    json_out_free(&json);
    return good;
}

static void verdicts(void)
{
    struct chaos_count count = sound();
    CU_ASSERT(good_with(&count, 1,
                        "a: 100 events went in; 80 were processed to the end, 10 removed by a stage, 6 are "
                        "dead (6 rejected)\n"));
    CU_ASSERT(!good_with(&count, 0, "no blow was dealt"));
    count.witnessed--;
    CU_ASSERT(!good_with(&count, 1, "a: 1 of 100 events are lost"));
    count = sound();
    count.listed[STORE_RUNNING]++;
    count.witnessed--;
    count.totals.finished--;
    count.totals.live++;
    CU_ASSERT(!good_with(&count, 1, "a: 1 events are left locked"));
    count = (struct chaos_count){.id = "a", .fed = 5, .totals = {.fetched = 5, .live = 5, .dead = 5}};
    count.listed[STORE_DEAD] = count.dead[STORE_REASON_REJECTED] = 5;
    CU_ASSERT(!good_with(&count, 1, "a: nothing came through"));
    count = sound();
    count.dead[STORE_REASON_REJECTED]--;
    count.dead[STORE_REASON_CRASHED]++;
    CU_ASSERT(!good_with(&count, 1, "(5 rejected, 1 crashed)"));
}

static void the_dice_can_be_thrown_again(void)
{
    struct chaos_dice one = {4711}, two = {4711}, other = {4712};
    bool differ = false;
    for (int i = 0; i < 1000; i++) {
        uint64_t rolled = chaos_between(&one, 3, 5);
        CU_ASSERT(rolled >= 3 && rolled <= 5);
        CU_ASSERT_EQUAL(rolled, chaos_between(&two, 3, 5));
        differ = differ || rolled != chaos_between(&other, 3, 5);
    }
    CU_ASSERT(differ);
}

int main(void)
{
    const struct unit_case cases[] = {
        {"the stages stay what they are", the_stages_stay_what_they_are},
        {"one source alone", one_source_alone},
        {"lines are found again", lines_are_found_again},
        {"samples", samples},
        {"the window follows the pace", the_window_follows_the_pace},
        {"every event has one end", every_event_has_one_end},
        {"repeated calls are counted", repeated_calls_are_counted},
        {"verdicts", verdicts},
        {"the dice can be thrown again", the_dice_can_be_thrown_again},
    };
    return run_in_directory("chaos", cases, sizeof cases / sizeof cases[0]);
}
