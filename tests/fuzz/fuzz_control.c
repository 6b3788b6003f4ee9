/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: the control socket, both ways. As a request it is carried out by the keeper's engine on an
 * empty store, and answered by whole lines of JSON and one end; as an answer, the client reads it to an end
 * of its own or says what is wrong with it.
 */
#include "tests/lib/fuzz.h"

#include <cjson/cJSON.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/control/control.h"
#include "src/json/json.h"

static struct config config;
static struct stage_config stage;
static struct source_config source;
static struct store *store;

static void leave(void)
{
    const struct store_options options = {.url = "memory:", .instance = config.instance};
    store_close(&store);
    store_leave(&options);
}

/* One source with one stage, and a store of its own in memory. */
static void prepare(void)
{
    static char instance[40], name[] = "locate", id[] = "quakes";
    static const char *const stages[] = {name};
    int64_t stage_id;
    struct store_names names = {.source = id, .stages = stages, .stage_count = 1, .stage_ids = &stage_id};
    struct store_options options = {.url = "memory:", .instance = instance};
    struct error error = {0};
    int lock_fd;

    snprintf(instance, sizeof instance, "fuzz-control-%d", (int)getpid());
    stage.name = name;
    source = (struct source_config){.id = id, .stages = &stage, .stage_count = 1};
    config = (struct config){.instance = instance, .sources = &source, .source_count = 1};
    PROMISE(store_hold(&options, 0, &lock_fd, &error) == 0);
    PROMISE(store_prepare(&options, &names, 1, &options.start_number, &error) == 0);
    PROMISE(store_open(&options, &store, &error) == 0);
    atexit(leave);
}

static int on_line(const char *line, size_t bytes, void *user)
{
    ++*(unsigned *)user;
    return json_valid(line, bytes, NULL) ? 0 : EP_EPROTO;
}

/* What the engine writes fits into the socket's buffer: the store is empty. */
static void as_request(const char *line, size_t bytes)
{
    int ends[2];
    uint64_t changed = 0;
    unsigned lines = 0;
    struct error error = {0};
    const struct admin admin = {.store = store, .config = &config, .daemon_up = true};
    const struct control_question question = {.line = "{}", .patience_ms = 10000};

    if (!json_valid(line, bytes, NULL))
        return;
    cJSON *request = cJSON_ParseWithLength(line, bytes);
    if (request == NULL)
        return;
    const cJSON *command = cJSON_GetObjectItemCaseSensitive(request, "command");
    /* check reads the whole store, and inject's events would stay in it */
    if (!cJSON_IsString(command) ||
        (strcmp(command->valuestring, "check") != 0 && strcmp(command->valuestring, "inject") != 0)) {
        PROMISE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
        control_admin_serve(&admin, request, ends[0], &changed);
        int code = control_ask(ends[1], &question, on_line, &lines, &error);
        PROMISE(code >= CONTROL_DONE && code <= CONTROL_NOTHING);
        PROMISE(base_utf8_valid(error.message, strlen(error.message)));
        close(ends[0]);
        close(ends[1]);
    }
    cJSON_Delete(request);
}

static void as_answer(const char *answer, size_t bytes)
{
    int ends[2];
    unsigned lines = 0;
    struct error error = {0};
    const struct control_question question = {.line = "{}", .patience_ms = 10000};

    PROMISE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    ssize_t sent = bytes > 0 ? send(ends[0], answer, bytes, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
    PROMISE(sent == (ssize_t)bytes);
    shutdown(ends[0], SHUT_WR);
    int code = control_ask(ends[1], &question, on_line, &lines, &error);
    PROMISE(code >= 0 ? code <= CONTROL_NOTHING : error.message[0] != '\0' || code == EP_EPROTO);
    PROMISE(base_utf8_valid(error.message, strlen(error.message)));
    close(ends[0]);
    close(ends[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (store == NULL)
        prepare();
    if (bytes > CONTROL_REQUEST_BYTES)
        return 0;
    as_request((const char *)data, bytes);
    as_answer((const char *)data, bytes);
    return 0;
}
