/* SPDX-License-Identifier: MIT */
/*
 * A broker and a backend of a test's own: mosquitto on a free port, with its files in the test's directory,
 * and a child process that answers as Idefix does, or as `world->login` and `world->get` tell it to. What it
 * saw is in `world`, memory that both share. Children exit with the test.
 */
#ifndef IDEFIX_FIXTURE_H
#define IDEFIX_FIXTURE_H

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <mosquitto.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "src/eventpipe.h"
#include "src/idefix/frame.h"
#include "tests/process/until.h"
#include "tests/unit/unit.h"

#define PATIENCE_MS 20000

enum login_mode { LOGIN_OK, LOGIN_REFUSED, LOGIN_SILENT, LOGIN_LATER, LOGIN_TWICE, LOGIN_SIGNAL };
enum get_mode {
    GET_PAGE,     /* three events and a cid */
    GET_FULL,     /* as many events as the limit, and the cid that was sent, or "start" */
    GET_EMPTY,    /* no events, the cid that was sent */
    GET_ERROR,    /* world->error */
    GET_TWICE,    /* the page, and again */
    GET_KEEP,     /* no answer; the request is remembered */
    GET_LATE,     /* first an answer to what was remembered, then the page */
    GET_STRANGER, /* an answer to nobody, then the page */
    GET_GARBAGE,
    GET_HUGE,   /* larger than max_bytes when inflated */
    GET_SIGNAL, /* no answer; SIGUSR1 to the test */
    GET_CUT     /* no answer; the broker is killed */
};

struct world {
    atomic_int login, get, ready;
    atomic_uint logins, gets, creates;
    pid_t test, broker;
    char error[100];
    char session[64], flags[8], to[64], reply[64]; /* of the last request */
    char login_data[2048], get_data[2048], create_data[2048];
};
static struct world *world;

static struct fixture {
    char directory[200];
    int port, tls_port, wrong_port, closed_port;
    pid_t broker, backend;
    bool tls;
} fixture;

static inline int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &bytes) != 0)
        abort();
    close(fd);
    return ntohs(address.sin_port);
}

static inline bool port_open(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool open = connect(fd, (struct sockaddr *)&address, sizeof address) == 0;

    close(fd);
    return open;
}

/* ---- the backend's process */

static inline void answer(struct mosquitto *mosquitto, const char *session, const char *to, const char *error,
                          const char *data)
{
    struct idefix_encoding encoding;
    struct idefix_frame frame;
    char topic[200];
    const struct idefix_envelope envelope = {.to = to, .error = error, .data = {data, strlen(data)}};

    if (config_idefix_encoding_read(world->flags, &encoding) != 0 ||
        idefix_frame_encode(&encoding, &envelope, &frame) != 0)
        _exit(9);
    snprintf(topic, sizeof topic, "ifx/%s/r/%s", session, frame.flags);
    mosquitto_publish(mosquitto, NULL, topic, (int)frame.bytes, frame.body, 1, false);
    idefix_frame_free(&frame);
}

static inline void answer_login(struct mosquitto *mosquitto, const char *session, const char *reply)
{
    switch (atomic_load(&world->login)) {
    case LOGIN_REFUSED:
        answer(mosquitto, session, reply, "[201] Invalid token (hush-hush)", "null");
        break;
    case LOGIN_LATER:
        if (atomic_load(&world->logins) % 2 == 0)
            answer(mosquitto, session, reply, NULL, "{\"ok\":true}");
        break;
    case LOGIN_TWICE:
        answer(mosquitto, session, reply, NULL, "{\"ok\":true}");
        answer(mosquitto, session, reply, NULL, "{\"ok\":true}");
        break;
    case LOGIN_SIGNAL:
        kill(world->test, SIGUSR1);
        break;
    case LOGIN_OK:
        answer(mosquitto, session, reply, NULL, "{\"ok\":true}");
        break;
    }
}

#define THREE_EVENTS                                                                                       \
    "[{\"uid\":\"e-1\",\"address\":\"device-001\",\"type\":\"temperature\",\"payload\":9007199254740993}," \
    "{\"uid\":\"e-2\",\"payload\":{\"raw:b64\":\"AAEC\"}},{\"address\":\"device-001\"}]"
#define PAGE "{\"cid\":\"c-3\",\"events\":" THREE_EVENTS "}"

static inline void answer_full(struct mosquitto *mosquitto, const char *session, const char *reply)
{
    struct json_out out = {0};
    struct json_span data = {world->get_data, strlen(world->get_data)}, value;
    int64_t limit = 0;
    char *cid = json_find(data, "/cid", &value) ? json_text(value) : strdup("start");

    if (json_find(data, "/limit", &value))
        json_int64(value, &limit);
    json_write_text(&out, "{\"cid\":");
    json_write_string(&out, cid, strlen(cid));
    json_write_text(&out, ",\"events\":[");
    for (int64_t i = 0; atomic_load(&world->get) == GET_FULL && i < limit; i++) {
        json_write_text(&out, i > 0 ? ",{\"uid\":\"f-" : "{\"uid\":\"f-");
        json_write_int(&out, i);
        json_write_text(&out, "\"}");
    }
    json_write_text(&out, "]}");
    answer(mosquitto, session, reply, NULL, out.text);
    json_write_free(&out);
    free(cid);
}

static inline void answer_huge(struct mosquitto *mosquitto, const char *session, const char *reply)
{
    struct json_out out = {0};

    json_write_text(&out, "{\"events\":[{\"uid\":\"h\",\"payload\":\"");
    for (int i = 0; i < 100000; i++)
        json_write_text(&out, "0123456789");
    json_write_text(&out, "\"}]}");
    answer(mosquitto, session, reply, NULL, out.text);
    json_write_free(&out);
}

static inline void answer_get(struct mosquitto *mosquitto, const char *session, const char *reply)
{
    static char kept[64];
    char topic[200];

    switch (atomic_load(&world->get)) {
    case GET_FULL:
    case GET_EMPTY:
        answer_full(mosquitto, session, reply);
        return;
    case GET_ERROR:
        answer(mosquitto, session, reply, world->error, "null");
        return;
    case GET_KEEP:
        snprintf(kept, sizeof kept, "%s", reply);
        return;
    case GET_LATE:
        answer(mosquitto, session, kept, NULL, "{\"cid\":\"late\",\"events\":[]}");
        break;
    case GET_STRANGER:
        answer(mosquitto, session, "0000000000000000", "[2] not for you", "null");
        break;
    case GET_GARBAGE:
        snprintf(topic, sizeof topic, "ifx/%s/r/mg", session);
        mosquitto_publish(mosquitto, NULL, topic, 7, "garbage", 1, false);
        return;
    case GET_HUGE:
        answer_huge(mosquitto, session, reply);
        return;
    case GET_SIGNAL:
        kill(world->test, SIGUSR1);
        return;
    case GET_CUT:
        kill(world->broker, SIGKILL);
        return;
    case GET_TWICE:
        answer(mosquitto, session, reply, NULL, PAGE);
        break;
    }
    answer(mosquitto, session, reply, NULL, PAGE);
}

static inline void keep_data(const struct idefix_message *message, char *to, size_t room)
{
    struct json_out out = {0};
    struct error error;

    if (idefix_message_json(message, &out, &error) != 0)
        _exit(8);
    snprintf(to, room, "%s", out.text);
    json_write_free(&out);
}

static inline void backend_message(struct mosquitto *mosquitto, void *user,
                                   const struct mosquitto_message *came)
{
    struct idefix_message message;
    struct error error;
    (void)user;
    if (sscanf(came->topic, "ifx/%63[^/]/t/%7s", world->session, world->flags) != 2 ||
        idefix_message_decode(world->flags, came->payload, (size_t)came->payloadlen, 1 << 20, &message,
                              &error) != 0)
        _exit(7);
    snprintf(world->to, sizeof world->to, "%s", message.to);
    snprintf(world->reply, sizeof world->reply, "%s", message.reply != NULL ? message.reply : "");
    if (strcmp(message.to, "idefix.login") == 0) {
        keep_data(&message, world->login_data, sizeof world->login_data);
        atomic_fetch_add(&world->logins, 1);
        answer_login(mosquitto, world->session, world->reply);
    } else if (strcmp(message.to, "idefix.events.get") == 0) {
        keep_data(&message, world->get_data, sizeof world->get_data);
        atomic_fetch_add(&world->gets, 1);
        answer_get(mosquitto, world->session, world->reply);
    } else if (strcmp(message.to, "idefix.events.create") == 0) {
        keep_data(&message, world->create_data, sizeof world->create_data);
        atomic_fetch_add(&world->creates, 1);
        answer(mosquitto, world->session, world->reply, NULL, "{\"ok\":true}");
    }
    idefix_message_free(&message);
}

static inline void backend_subscribed(struct mosquitto *mosquitto, void *user, int id, int count,
                                      const int *granted)
{
    (void)mosquitto, (void)user, (void)id, (void)count, (void)granted;
    atomic_store(&world->ready, 1);
}

static inline void backend_connected(struct mosquitto *mosquitto, void *user, int code)
{
    (void)user;
    if (code == 0)
        mosquitto_subscribe(mosquitto, NULL, "ifx/+/t/+", 1);
}

static inline void backend_start(void)
{
    atomic_store(&world->ready, 0);
    fixture.backend = fork();
    CU_ASSERT_FATAL(fixture.backend >= 0);
    if (fixture.backend == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        mosquitto_lib_init();
        struct mosquitto *mosquitto = mosquitto_new(NULL, true, NULL);
        mosquitto_int_option(mosquitto, MOSQ_OPT_TCP_NODELAY, 1);
        mosquitto_connect_callback_set(mosquitto, backend_connected);
        mosquitto_subscribe_callback_set(mosquitto, backend_subscribed);
        mosquitto_message_callback_set(mosquitto, backend_message);
        mosquitto_connect(mosquitto, "127.0.0.1", fixture.port, 60);
        mosquitto_loop_forever(mosquitto, 1000, 1);
        _exit(0);
    }
    CU_ASSERT_FATAL(UNTIL(atomic_load(&world->ready) == 1));
}

static inline void stop(pid_t *pid)
{
    if (*pid > 0) {
        kill(*pid, SIGKILL);
        waitpid(*pid, NULL, 0);
    }
    *pid = 0;
}

/* ---- the broker's */

static inline const char *mosquitto_path(void)
{
    static const char *const paths[] = {"/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto",
                                        "/usr/bin/mosquitto"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        if (access(paths[i], X_OK) == 0)
            return paths[i];
    return NULL;
}

static inline void broker_start(void)
{
    char path[260];
    const char *directory = fixture.directory;
    snprintf(path, sizeof path, "%s/mosquitto.conf", directory);
    FILE *file = fopen(path, "w");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    fprintf(
        file,
        "user root\npersistence false\nlog_dest none\nset_tcp_nodelay true\nper_listener_settings true\n");
    fprintf(file, "listener %d 127.0.0.1\nallow_anonymous true\n", fixture.port);
    fprintf(file, "listener %d 127.0.0.1\nallow_anonymous false\n", fixture.closed_port);
    if (fixture.tls)
        for (int i = 0; i < 2; i++)
            fprintf(file,
                    "listener %d 127.0.0.1\nallow_anonymous true\ncertfile %s/%s.pem\nkeyfile %s/%s.key\n",
                    i == 0 ? fixture.tls_port : fixture.wrong_port, directory, i == 0 ? "good" : "wrong",
                    directory, i == 0 ? "good" : "wrong");
    fclose(file);
    fixture.broker = fork();
    CU_ASSERT_FATAL(fixture.broker >= 0);
    if (fixture.broker == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (freopen("/dev/null", "w", stderr) == NULL) /* it warns of root */
            _exit(126);
        execl(mosquitto_path(), "mosquitto", "-c", path, (char *)NULL);
        _exit(127);
    }
    world->broker = fixture.broker;
    CU_ASSERT_FATAL(UNTIL(port_open(fixture.port)));
}

/* ---- a test's beginning and end */

static inline bool fixture_open(void)
{
    const char *base = getenv("TMPDIR");

    if (mosquitto_path() == NULL)
        return false;
    world = mmap(NULL, sizeof *world, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    snprintf(fixture.directory, sizeof fixture.directory, "%s/idefix.XXXXXX", base != NULL ? base : "/tmp");
    if (world == MAP_FAILED || mkdtemp(fixture.directory) == NULL)
        abort();
    world->test = getpid();
    fixture.port = free_port();
    fixture.tls_port = free_port();
    fixture.wrong_port = free_port();
    fixture.closed_port = free_port();
    return true;
}

/* Broker and backend run, and do what they should. */
static inline void begin(void)
{
    if (fixture.broker == 0)
        broker_start();
    if (fixture.backend == 0)
        backend_start();
    atomic_store(&world->login, LOGIN_OK);
    atomic_store(&world->get, GET_PAGE);
    atomic_store(&world->logins, 0);
    atomic_store(&world->gets, 0);
    atomic_store(&world->creates, 0);
}

static inline void fixture_close(void)
{
    char path[520];
    DIR *directory = opendir(fixture.directory);

    stop(&fixture.backend);
    stop(&fixture.broker);
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", fixture.directory, entry->d_name);
        if (entry->d_name[0] != '.')
            unlink(path);
    }
    if (directory != NULL)
        closedir(directory);
    rmdir(fixture.directory);
}

/* As UNIT_MAIN, with the fixture around the suite; skipped where there is no mosquitto. */
#define IDEFIX_MAIN(suite_name, ...)                                              \
    int main(void)                                                                \
    {                                                                             \
        const struct unit_case cases[] = {__VA_ARGS__};                           \
        if (!fixture_open()) {                                                    \
            printf("skipped: no mosquitto(8) is installed\n");                    \
            return 77;                                                            \
        }                                                                         \
        int result = unit_run(suite_name, cases, sizeof cases / sizeof cases[0]); \
        fixture_close();                                                          \
        return result;                                                            \
    }

static inline const char *broker_url(const char *scheme, const char *host, int port)
{
    static char text[8][100];
    static unsigned next;
    char *url = text[next++ % 8];

    snprintf(url, sizeof text[0], "%s://%s:%d", scheme, host, port);
    return url;
}

/* The client of most tests; params' own members win. */
static inline ep_idefix *client_open(struct ep_idefix_params params)
{
    ep_idefix *client = NULL;
    char errbuf[500] = "";

    if (params.broker == NULL)
        params.broker = broker_url("tcp", "127.0.0.1", fixture.port);
    if (params.account == NULL)
        params.account = "user-1";
    if (params.token == NULL)
        params.token = "tok";
    if (ep_idefix_open(&params, &client, errbuf, sizeof errbuf) != EP_OK)
        printf("\n    %s\n", errbuf);
    CU_ASSERT_PTR_NOT_NULL_FATAL(client);
    return client;
}

/* One events_get; the page is freed. Returns its code. */
static inline int get(ep_idefix *client, uint64_t wait_ms, size_t *count)
{
    struct ep_idefix_page *page = NULL;
    int code =
        ep_idefix_events_get(client, &(struct ep_idefix_query){.domain = "acme", .wait_ms = wait_ms}, &page);

    CU_ASSERT_EQUAL(code == EP_OK, page != NULL);
    if (count != NULL)
        *count = page != NULL ? page->count : 0;
    ep_idefix_page_free(&page);
    return code;
}

static inline size_t entries(const char *path)
{
    DIR *directory = opendir(path);
    size_t count = 0;

    while (directory != NULL && readdir(directory) != NULL)
        count++;
    if (directory != NULL)
        closedir(directory);
    return count;
}

static inline bool says(ep_idefix *client, const char *errbuf)
{
    bool found = strstr(ep_idefix_errmsg(client), errbuf) != NULL;
    if (!found)
        printf("\n    expected \"%s\" in: %s\n", errbuf, ep_idefix_errmsg(client));
    return found;
}

#endif
