/* SPDX-License-Identifier: MIT */
/* The keeper's command engine on a real store, over real sockets: commands, selectors, hostile requests,
 * vanished clients. */
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shm/slot.h"
#include "src/control/command.h"
#include "tests/lib/answers.h"

static char folder[200], url[240];
static struct store_options options;
static struct stage_config quake_stages[] = {{.name = (char *)"enrich"}, {.name = (char *)"keep"}};
static struct stage_config other_stages[] = {{.name = (char *)"only"}};
static struct source_config sources[] = {
    {.id = (char *)"quakes", .stages = quake_stages, .stage_count = 2},
    {.id = (char *)"other", .stages = other_stages, .stage_count = 1},
};
static const struct config config = {.instance = (char *)"test", .sources = sources, .source_count = 2};
static struct answers answers;
static int64_t quakes_id;

static void ingest(struct store *store, int64_t source, const struct store_event *events, size_t count,
                   uint64_t now_ms)
{
    struct store_page page = {.events = events, .count = count, .cursor = "c-1", .now_ms = now_ms};
    struct store_ingested ingested;
    CU_ASSERT_EQUAL_FATAL(store_ingest(store, source, &page, &ingested), EP_OK);
    CU_ASSERT_EQUAL(ingested.stored, count);
}

/* quakes: a, b (address d1, type t1, an hour old), c (a big number), bad (dead, corrupt). other: a. */
static void set_up(void)
{
    static const char *const quake_names[] = {"enrich", "keep"}, *const other_names[] = {"only"};
    int64_t quake_ids[2], other_ids[1];
    uint64_t start, now_ms = shm_realtime_ms();
    struct store_names names[] = {
        {.source = "quakes", .stages = quake_names, .stage_count = 2, .stage_ids = quake_ids},
        {.source = "other", .stages = other_names, .stage_count = 1, .stage_ids = other_ids},
    };
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%.160s/test_admin.XXXXXX", base != NULL ? base : "/tmp");
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
    snprintf(url, sizeof url, "sqlite:%s/events.db", folder);
    options = (struct store_options){.url = url, .instance = "test", .trace = true};
    struct error error = {0};
    CU_ASSERT_EQUAL_FATAL(store_prepare(&options, names, 2, &start, &error), EP_OK);
    options.start_number = start;
    struct store *store = NULL;
    CU_ASSERT_EQUAL_FATAL(store_open(&options, &store, &error), EP_OK);
    const struct store_event old[] = {
        {.uid = "a", .address = "d1", .type = "t1", .data = "{\"uid\":\"a\"}", .data_bytes = 11},
        {.uid = "b", .address = "d1", .type = "t1", .data = "{\"uid\":\"b\"}", .data_bytes = 11},
    };
    static const char exact[] = "{\"uid\":\"c\", \"n\":12345678901234567890,\"f\":1.50}";
    const struct store_event new[] = {
        {.uid = "c", .address = "d2", .type = "t2", .data = exact, .data_bytes = sizeof exact - 1},
        {.uid = "bad",
         .data = "\xff{no",
         .data_bytes = 4,
         .dead = STORE_REASON_CORRUPT,
         .error = "cannot be read"},
    };
    ingest(store, names[0].source_id, old, 2, now_ms - 3600000);
    ingest(store, names[0].source_id, new, 2, now_ms);
    ingest(store, names[1].source_id, old, 1, now_ms);
    quakes_id = names[0].source_id;
    store_close(&store);
}

static void tear_down(void)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", ".lock"};
    char path[256];
    answers_clear(&answers);
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        snprintf(path, sizeof path, "%s/events.db%s", folder, suffixes[i]);
        unlink(path);
    }
    CU_ASSERT_EQUAL(rmdir(folder), 0);
}

static uint64_t ask(const char *request)
{
    return answers_ask(&options, &config, request, NULL, 0, &answers);
}

static size_t events_in(const char *state)
{
    char request[128];
    snprintf(request, sizeof request, "{\"command\":\"queue\",\"state\":\"%s\"}", state);
    ask(request);
    return answers.count;
}

static void test_queue(void)
{
    set_up();
    ask("{\"command\":\"queue\"}");
    CU_ASSERT_EQUAL(answers.code, CONTROL_DONE);
    CU_ASSERT_EQUAL(answers.count, 5);
    CU_ASSERT_STRING_EQUAL(answers_text(&answers, 0, "uid"), "a");
    CU_ASSERT_STRING_EQUAL(answers_text(&answers, 0, "source"), "quakes");
    CU_ASSERT_STRING_EQUAL(answers_text(&answers, 0, "stage"), "enrich");
    CU_ASSERT_STRING_EQUAL(answers_text(&answers, 0, "state"), "ready");
    CU_ASSERT_STRING_EQUAL(answers_text(&answers, 0, "address"), "d1");
    CU_ASSERT(answers_number(&answers, 0, "age_s") >= 3600 && answers_number(&answers, 0, "age_s") < 3660);
    CU_ASSERT_STRING_EQUAL(answers_text(&answers, 3, "reason"), "corrupt");
    CU_ASSERT_STRING_EQUAL(answers_text(&answers, 3, "error"), "cannot be read");
    static const struct {
        const char *request;
        size_t count;
    } selections[] = {
        {"{\"command\":\"queue\",\"uids\":[\"a\"]}", 2},
        {"{\"command\":\"queue\",\"uids\":[\"a\",\"c\"],\"source\":\"quakes\"}", 2},
        {"{\"command\":\"queue\",\"source\":\"other\"}", 1},
        {"{\"command\":\"queue\",\"stage\":\"enrich\"}", 4},
        {"{\"command\":\"queue\",\"address\":\"d1\",\"source\":\"quakes\"}", 2},
        {"{\"command\":\"queue\",\"type\":\"t2\"}", 1},
        {"{\"command\":\"queue\",\"older_ms\":1800000}", 2},
        {"{\"command\":\"queue\",\"error\":\"be read\"}", 1},
        {"{\"command\":\"queue\",\"limit\":3}", 3},
        {"{\"command\":\"queue\",\"all\":true}", 5},
        {"{\"command\":\"queue\",\"state\":\"dead\"}", 1},
    };
    for (size_t i = 0; i < sizeof selections / sizeof selections[0]; i++) {
        ask(selections[i].request);
        CU_ASSERT_EQUAL(answers.count, selections[i].count);
        CU_ASSERT_EQUAL(answers.code, CONTROL_DONE);
    }
    ask("{\"command\":\"queue\",\"older_ms\":9007199254740992}"); /* before 1970: nothing, not everything */
    CU_ASSERT_EQUAL(answers.code, CONTROL_NOTHING);
    ask("{\"command\":\"queue\",\"source\":\"quaks\"}");
    CU_ASSERT_EQUAL(answers.code, CONTROL_NOTHING);
    CU_ASSERT_PTR_NOT_NULL(strstr(answers.error.message, "did you mean \"quakes\""));
    tear_down();
}

static void test_show(void)
{
    set_up();
    /* the very bytes: asked without cJSON in between */
    int ends[2];
    CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    struct admin admin = {.config = &config, .daemon_up = true};
    CU_ASSERT_EQUAL_FATAL(store_open(&options, &admin.store, NULL), EP_OK);
    cJSON *request = cJSON_Parse("{\"command\":\"show\",\"uids\":[\"c\",\"bad\"]}");
    control_admin_serve(&admin, request, ends[1], NULL);
    cJSON_Delete(request);
    store_close(&admin.store);
    close(ends[1]);
    static char text[65536];
    size_t used = 0;
    for (ssize_t got = 1; got > 0; used += got > 0 ? (size_t)got : 0)
        got = read(ends[0], text + used, sizeof text - 1 - used);
    close(ends[0]);
    text[used] = '\0';
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "\"event\":{\"uid\":\"c\", \"n\":12345678901234567890,\"f\":1.50}"));
    CU_ASSERT_PTR_NOT_NULL(
        strstr(text, "\"event\":null,\"raw\":\"\xEF\xBF\xBD{no\",\"raw:b64\":\"/3tubw==\""));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "{\"end\":true,\"code\":0,"));
    ask("{\"command\":\"show\",\"uids\":[\"nobody\"]}");
    CU_ASSERT_EQUAL(answers.code, CONTROL_NOTHING);
    tear_down();
}

static void test_changes(void)
{
    set_up();
    CU_ASSERT_EQUAL(ask("{\"command\":\"hold\",\"address\":\"d1\",\"dry_run\":true}"), 0);
    CU_ASSERT_EQUAL(answers.count, 3);
    CU_ASSERT_EQUAL(events_in("held"), 0);
    CU_ASSERT_EQUAL(ask("{\"command\":\"hold\",\"address\":\"d1\",\"source\":\"quakes\"}"),
                    1); /* bit of quakes */
    CU_ASSERT_EQUAL(answers.count, 2);
    CU_ASSERT_STRING_EQUAL(answers_text(&answers, 0, "uid"), "a");
    CU_ASSERT_STRING_EQUAL(answers_text(&answers, 0, "state"), "held");
    CU_ASSERT_STRING_EQUAL(answers_text(&answers, 0, "was"), "ready");
    CU_ASSERT_STRING_EQUAL(answers.error.message, "2 events held");
    CU_ASSERT_EQUAL(events_in("held"), 2);
    ask("{\"command\":\"hold\",\"address\":\"d1\",\"source\":\"quakes\"}");
    CU_ASSERT_EQUAL(answers.code, CONTROL_NOTHING);
    CU_ASSERT_EQUAL(ask("{\"command\":\"release\",\"all\":true,\"limit\":1}"), 1);
    CU_ASSERT_EQUAL(events_in("held"), 1);
    CU_ASSERT_EQUAL(ask("{\"command\":\"retry\",\"state\":\"dead\"}"), 1);
    CU_ASSERT_EQUAL(events_in("dead"), 0);
    CU_ASSERT_EQUAL(ask("{\"command\":\"remove\",\"all\":true}"), 3); /* both sources */
    CU_ASSERT_EQUAL(answers.count, 5);
    CU_ASSERT_STRING_EQUAL(answers_text(&answers, 0, "state"), "removed");
    ask("{\"command\":\"queue\"}");
    CU_ASSERT_EQUAL(answers.count, 0);
    CU_ASSERT_EQUAL(answers.code, CONTROL_DONE); /* nothing was selected: an empty queue is no failure */
    tear_down();
}

static int on_step(const struct store_trace_step *step, void *user)
{
    *(enum store_trace_step_kind *)user = step->kind;
    return 0;
}

static enum store_trace_step_kind last_step(const char *uid)
{
    enum store_trace_step_kind kind = STORE_TRACE_STEP_KINDS;
    struct store *store = NULL;
    size_t live;
    CU_ASSERT_EQUAL_FATAL(store_open(&options, &store, NULL), EP_OK);
    CU_ASSERT_EQUAL(store_trace(store, quakes_id, uid, on_step, &kind, &live), EP_OK);
    store_close(&store);
    return kind;
}

/* One change of an event in one state: the store does what the table of commands says. */
static void check_change(const struct control_command *command, enum store_state state)
{
    const char *uid = state == STORE_DEAD ? "bad" : "a";
    char request[200];
    set_up();
    if (state == STORE_HELD)
        ask("{\"command\":\"hold\",\"uids\":[\"a\"]}");
    snprintf(request, sizeof request, "{\"command\":\"%s\",\"uids\":[\"%s\"],\"source\":\"quakes\"}",
             command->name, uid);
    ask(request);
    const struct store_command_rule *rule = store_command_rule(command->change->store_command);
    bool takes = (rule->takes & 1u << state) != 0;
    CU_ASSERT_EQUAL(answers.count, takes ? 1 : 0);
    if (takes) {
        CU_ASSERT_STRING_EQUAL(answers_text(&answers, 0, "was"), store_state_name(state));
        CU_ASSERT_STRING_EQUAL(answers_text(&answers, 0, "state"),
                               control_command_get_new_state(command->change));
        CU_ASSERT_EQUAL(last_step(uid), rule->step);
        snprintf(request, sizeof request, "{\"command\":\"queue\",\"uids\":[\"%s\"],\"source\":\"quakes\"}",
                 uid);
        ask(request);
        CU_ASSERT_EQUAL(answers.count, rule->makes < 0 ? 0 : 1);
        if (rule->makes >= 0)
            CU_ASSERT_STRING_EQUAL(answers_text(&answers, 0, "state"),
                                   control_command_get_new_state(command->change));
    }
    tear_down();
}

static void test_table(void)
{
    static const enum store_state states[] = {STORE_READY, STORE_HELD, STORE_DEAD};
    char text[64];
    for (size_t i = 0; i < CONTROL_COMMAND_COUNT; i++) {
        CU_ASSERT_EQUAL(control_commands[i].id, i);
        CU_ASSERT_PTR_EQUAL(control_command_find(control_commands[i].name), &control_commands[i]);
        for (size_t j = 0; control_commands[i].change != NULL && j < 3; j++)
            check_change(&control_commands[i], states[j]);
    }
    CU_ASSERT_PTR_NULL(control_command_find("drop"));
    /* As the manual says. The store follows the same table, so the loop above would not see an error in it. */
    static const struct {
        const char *command, *takes, *makes, *step;
    } wanted[] = {
        {"retry", "delayed and dead", "ready", "retry"},
        {"hold", "ready, delayed and dead", "held", "hold"},
        {"release", "held", "ready", "release"},
        {"requeue", "ready, delayed, held and dead", "ready", "requeue"},
        {"remove", "ready, delayed, held and dead", "removed", "remove"},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        const struct control_change *change = control_command_find(wanted[i].command)->change;
        const struct store_command_rule *rule = store_command_rule(change->store_command);
        control_command_describe_states(rule->takes, text, sizeof text);
        CU_ASSERT_STRING_EQUAL(text, wanted[i].takes);
        CU_ASSERT_STRING_EQUAL(control_command_get_new_state(change), wanted[i].makes);
        CU_ASSERT_STRING_EQUAL(store_trace_step_name(rule->step), wanted[i].step);
    }
}

/* Each is refused, with a message, and changes nothing. */
static void test_hostile(void)
{
    static const char *const requests[] = {
        "null",
        "[]",
        "7",
        "{}",
        "{\"command\":7}",
        "{\"command\":\"\"}",
        "{\"command\":\"drop\"}",
        "{\"command\":\"pause\",\"source\":\"quakes\"}",
        "{\"command\":\"remove\"}",
        "{\"command\":\"remove\",\"limit\":5}",
        "{\"command\":\"remove\",\"all\":false}",
        "{\"command\":\"remove\",\"all\":1}",
        "{\"command\":\"remove\",\"all\":true,\"uids\":[\"a\"]}",
        "{\"command\":\"remove\",\"all\":true,\"sourze\":\"other\"}",
        "{\"command\":\"remove\",\"all\":true,\"set\":\"x\"}",
        "{\"command\":\"remove\",\"uids\":[]}",
        "{\"command\":\"remove\",\"uids\":\"a\"}",
        "{\"command\":\"remove\",\"uids\":[\"a\",7]}",
        "{\"command\":\"remove\",\"uids\":[\"a\",\"\"]}",
        "{\"command\":\"remove\",\"uids\":[\"a\"],\"uids\":[\"b\"]}",
        "{\"command\":\"remove\",\"source\":{}}",
        "{\"command\":\"remove\",\"state\":\"gone\"}",
        "{\"command\":\"remove\",\"state\":4}",
        "{\"command\":\"remove\",\"all\":true,\"limit\":0}",
        "{\"command\":\"remove\",\"all\":true,\"limit\":-1}",
        "{\"command\":\"remove\",\"all\":true,\"limit\":1.5}",
        "{\"command\":\"remove\",\"all\":true,\"limit\":1e300}",
        "{\"command\":\"remove\",\"all\":true,\"limit\":\"9\"}",
        "{\"command\":\"remove\",\"older_ms\":-5}",
        "{\"command\":\"remove\",\"older_ms\":null}",
        "{\"command\":\"remove\",\"all\":true,\"dry_run\":\"yes\"}",
        "{\"command\":\"show\"}",
        "{\"command\":\"show\",\"all\":true}",
        "{\"command\":\"cursor\"}",
        "{\"command\":\"cursor\",\"source\":\"none\"}",
        "{\"command\":\"cursor\",\"source\":\"quakes\",\"set\":5}",
        "{\"command\":\"inject\"}",
        "{\"command\":\"inject\",\"source\":\"quaks\"}",
        "{\"command\":\"inject\",\"source\":\"quakes\",\"line\":0}",
        "{\"command\":\"check\",\"source\":\"quakes\"}",
    };
    set_up();
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        CU_ASSERT_EQUAL(ask(requests[i]), 0);
        CU_ASSERT_EQUAL(answers.code, CONTROL_USAGE);
        CU_ASSERT_EQUAL(answers.count, 0);
        CU_ASSERT(answers.error.message[0] != '\0');
        if (answers.code != CONTROL_USAGE)
            printf("\n    not refused: %s", requests[i]);
    }
    ask("{\"command\":\"queue\"}");
    CU_ASSERT_EQUAL(answers.count, 5);
    tear_down();
}

static void test_inject(void)
{
    static const char body[] = "{\"uid\":\"n1\",\"address\":\"d9\",\"type\":\"t9\",\"payload\":1}\n"
                               "  {\"payload\":12345678901234567890}  \r\n"
                               "rubbish\n"
                               "\n"
                               "[1]\n"
                               "{\"uid\":{}}\n"
                               "{\"uid\":\"\"}\n"
                               "{\"uid\":null}\n"
                               "{\"uid\":\"x\",\"type\":[]}\n"
                               "{\"uid\":17}\n"
                               "{\"uid\":\"a\"}\n"
                               "{\"payload\":12345678901234567890}";
    set_up();
    uint64_t changed =
        answers_ask(&options, &config, "{\"command\":\"inject\",\"source\":\"quakes\",\"dry_run\":true}",
                    body, sizeof body - 1, &answers);
    CU_ASSERT_EQUAL(changed, 0);
    ask("{\"command\":\"queue\"}");
    CU_ASSERT_EQUAL(answers.count, 5);
    changed = answers_ask(&options, &config, "{\"command\":\"inject\",\"source\":\"quakes\",\"line\":101}",
                          body, sizeof body - 1, &answers);
    CU_ASSERT_EQUAL(changed, 1);
    CU_ASSERT_EQUAL(answers.code, CONTROL_FAILED);
    CU_ASSERT_EQUAL_FATAL(answers.count, 7);
    static const double refused[] = {103, 105, 106, 107, 108, 109};
    for (size_t i = 0; i < 6; i++)
        CU_ASSERT_EQUAL(answers_number(&answers, i, "line"), refused[i]);
    CU_ASSERT_EQUAL(answers_number(&answers, 6, "injected"), 3);
    CU_ASSERT_EQUAL(answers_number(&answers, 6, "duplicates"), 2);
    CU_ASSERT_EQUAL(answers_number(&answers, 6, "invalid"), 6);
    CU_ASSERT_EQUAL(answers_number(&answers, 6, "lines"), 12);
    struct store *store = NULL;
    struct store_totals totals;
    CU_ASSERT_EQUAL_FATAL(store_open(&options, &store, NULL), EP_OK);
    CU_ASSERT_EQUAL(store_source_totals(store, quakes_id, &totals), EP_OK);
    CU_ASSERT(totals.injected == 3 && totals.duplicates == 2 && totals.live == 7);
    store_close(&store);
    ask("{\"command\":\"show\",\"uids\":[\"n1\"]}");
    CU_ASSERT_STRING_EQUAL(answers_text(&answers, 0, "address"), "d9");
    CU_ASSERT_STRING_EQUAL(answers_text(&answers, 0, "type"), "t9");
    ask("{\"command\":\"queue\",\"uids\":[\"17\"]}");
    CU_ASSERT_EQUAL(answers.count, 1);
    tear_down();
}

/* More than a socket holds, both ways: neither side may wait for the other for ever, and every line is
 * accounted for. */
static void test_inject_much(void)
{
    struct {
        char *text;
        size_t bytes;
    } body = {calloc(1, 1 << 20), 0};
    CU_ASSERT_PTR_NOT_NULL_FATAL(body.text);
    for (unsigned i = 0; i < 8000; i++) /* every other line is refused */
        body.bytes +=
            (size_t)sprintf(body.text + body.bytes,
                            i % 2 != 0 ? "bad %060u\n" : "{\"uid\":\"u%u\",\"payload\":\"%01u\"}\n", i, i);
    set_up();
    static struct answers many;
    answers_ask(&options, &config, "{\"command\":\"inject\",\"source\":\"other\"}", body.text, body.bytes,
                &many);
    CU_ASSERT_EQUAL(many.code, CONTROL_FAILED);
    CU_ASSERT_EQUAL_FATAL(many.count, 4001);
    CU_ASSERT_EQUAL(answers_number(&many, 4000, "injected"), 4000);
    CU_ASSERT_EQUAL(answers_number(&many, 3999, "line"), 8000);
    answers_clear(&many);
    ask("{\"command\":\"queue\",\"source\":\"other\"}");
    CU_ASSERT_EQUAL(answers.count, 4001);
    free(body.text);
    tear_down();
}

static void test_cursor(void)
{
    set_up();
    CU_ASSERT_EQUAL(ask("{\"command\":\"cursor\",\"source\":\"quakes\"}"), 0);
    CU_ASSERT_STRING_EQUAL(answers_text(&answers, 0, "cursor"), "c-1");
    CU_ASSERT_EQUAL(ask("{\"command\":\"cursor\",\"source\":\"quakes\",\"set\":\"c-9\",\"dry_run\":true}"),
                    0);
    CU_ASSERT_EQUAL(ask("{\"command\":\"cursor\",\"source\":\"other\",\"set\":\"c-9\"}"), 2);
    CU_ASSERT_STRING_EQUAL(answers_text(&answers, 0, "was"), "c-1");
    ask("{\"command\":\"cursor\",\"source\":\"other\"}");
    CU_ASSERT_STRING_EQUAL(answers_text(&answers, 0, "cursor"), "c-9");
    ask("{\"command\":\"cursor\",\"source\":\"quaks\"}");
    CU_ASSERT_PTR_NOT_NULL(strstr(answers.error.message, "did you mean \"quakes\""));
    ask("{\"command\":\"check\"}");
    CU_ASSERT_EQUAL(answers.code, CONTROL_DONE);
    tear_down();
}

/* A reader without a configuration, as the command line while the daemon is down. */
static void test_without_config(void)
{
    set_up();
    struct store_options reader = options;
    reader.readonly = true;
    reader.start_number = 0;
    answers_ask(&reader, NULL, "{\"command\":\"queue\"}", NULL, 0, &answers);
    CU_ASSERT_EQUAL(answers.count, 5);
    CU_ASSERT_STRING_EQUAL(answers_text(&answers, 0, "stage"), "enrich");
    answers_ask(&reader, NULL, "{\"command\":\"cursor\",\"source\":\"quakes\"}", NULL, 0, &answers);
    CU_ASSERT_STRING_EQUAL(answers_text(&answers, 0, "cursor"), "c-1");
    CU_ASSERT_EQUAL(answers_ask(&reader, NULL, "{\"command\":\"remove\",\"all\":true}", NULL, 0, &answers),
                    0);
    CU_ASSERT_EQUAL(answers.code, CONTROL_FAILED);
    tear_down();
}

/* A client that is gone, or takes nothing, costs its own answer; nobody is killed by SIGPIPE. */
static void test_gone(void)
{
    set_up();
    int ends[2];
    CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    struct admin admin = {.config = &config, .daemon_up = true};
    CU_ASSERT_EQUAL_FATAL(store_open(&options, &admin.store, NULL), EP_OK);
    close(ends[0]);
    static const char *const requests[] = {"{\"command\":\"queue\"}", "{\"command\":\"remove\"}",
                                           "{\"command\":\"hold\",\"all\":true}",
                                           "{\"command\":\"inject\",\"source\":\"quakes\"}"};
    for (size_t i = 0; i < 4; i++) {
        cJSON *request = cJSON_Parse(requests[i]);
        control_admin_serve(&admin, request, ends[1], NULL);
        cJSON_Delete(request);
    }
    close(ends[1]);
    store_close(&admin.store);
    CU_ASSERT_EQUAL(events_in("held"), 5); /* what was committed stays */
    tear_down();
}

/* ---- the client's side against servers that misbehave ---- */

static int ask_server(const char *answer, uint64_t patience_ms, bool hang)
{
    int ends[2];
    CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    CU_ASSERT_EQUAL(write(ends[1], answer, strlen(answer)), (ssize_t)strlen(answer));
    if (!hang)
        shutdown(ends[1], SHUT_WR);
    struct control_question question = {.line = "{\"command\":\"ping\"}", .patience_ms = patience_ms};
    answers_clear(&answers);
    answers.code = control_ask(ends[0], &question, answers_take, &answers, &answers.error);
    close(ends[0]);
    close(ends[1]);
    return answers.code;
}

static void test_client(void)
{
    CU_ASSERT_EQUAL(ask_server("{\"a\":1}\n{\"end\":true,\"code\":4,\"message\":\"no\"}\n", 10000, false),
                    CONTROL_NOTHING);
    CU_ASSERT_EQUAL(answers.count, 1);
    CU_ASSERT_STRING_EQUAL(answers.error.message, "no");
    CU_ASSERT_EQUAL(ask_server("{\"a\":1}\n", 10000, false), EP_ESYSTEM); /* crashed before it had answered */
    CU_ASSERT_EQUAL(ask_server("{\"end\":true,\"code\":0", 10000, false), EP_ESYSTEM);
    CU_ASSERT_EQUAL(ask_server("rubbish\n", 10000, false), EP_EPROTO);
    CU_ASSERT_EQUAL(ask_server("{\"end\":true,\"code\":99}\n", 10000, false), EP_EPROTO);
    CU_ASSERT_EQUAL(ask_server("{\"a\":1}\n", 50, true), EP_ESTATE); /* no end in time */
    int fd;
    struct error error;
    CU_ASSERT_EQUAL(control_connect("/nowhere/at/all.sock", &fd, &error), EP_ENOENT);
}

UNIT_MAIN("admin", {"queue lists what is selected", test_queue}, {"show hands on the very bytes", test_show},
          {"commands change what is selected, and say so", test_changes},
          {"the store does what the table of commands says", test_table},
          {"hostile requests are refused and change nothing", test_hostile},
          {"inject stores events, reports bad lines", test_inject},
          {"inject of more than a socket holds", test_inject_much}, {"cursor and check", test_cursor},
          {"a reader without a configuration", test_without_config}, {"a client that is gone", test_gone},
          {"answers that are none", test_client})
