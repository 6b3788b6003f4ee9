/* SPDX-License-Identifier: MIT */
/*
 * contrib/idefix-sim: a small Idefix backend to test eventpipe against. It connects to an MQTT broker
 * as the real one does, answers login, events.create and events.get in all four encodings
 * (eventpipe-idefix(7)), and misbehaves when ordered to. --help lists everything.
 *
 * One process and one thread: poll(2) on the MQTT connection and standard input, until the next thing
 * is due.
 *
 * Survived: the loss of the broker. The connection is tried again every 50 ms; events and sessions are
 * kept.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "contrib/idefix_sim.h"

#define RECONNECT_MS 50
#define CONNACK_MS 2000 /* without CONNACK by then, connect again */
#define KICK_MS 500
#define KEEPALIVE_S 30
#define LINE_MAX_BYTES ((size_t)8 << 20)

static const char usage[] =
    "usage: idefix-sim [OPTION...]\n"
    "An Idefix backend to try eventpipe against; it needs an MQTT broker, such as mosquitto.\n"
    "\n"
    "  --broker HOST:PORT     the broker (127.0.0.1:1883)\n"
    "  --account ADDRESS:TOKEN  who may log in; may be repeated. Without it anybody may\n"
    "  --domain NAME          a domain that exists though it has no events yet; may be repeated\n"
    "  --events FILE          events, one JSON object a line, as an answer has them; may be repeated.\n"
    "                         Members whose name ends in :b64 are bytes\n"
    "  --generate N           N made-up readings of ten devices of the domain acme\n"
    "  --every MS             one more made-up reading every MS milliseconds\n"
    "  --empty-on-timeout     a poll that ran out is answered with an empty page instead of error 7\n"
    "  --requests FILE        appends each request to FILE as a line of JSON, tokens and all\n"
    "  --order ORDER          an order as below, at start; may be repeated\n"
    "  --until-eof            ends when standard input does\n"
    "  --verbose              tells of logins and errors on standard error\n"
    "  --help                 this text\n"
    "\n"
    "Standard output: ready once it listens, lost when the broker is gone, then ready again. Standard input "
    "takes\n"
    "orders, one a line, each answered by a line `ok` or `error MESSAGE`. COUNT is 1 if left out, 0 is "
    "without "
    "end.\n"
    "\n"
    "  drop-every N           every Nth answer is not sent (0: all are)\n"
    "  duplicate-every N      every Nth answer is sent twice\n"
    "  disconnect-every N     at every Nth answer a connection breaks: by turns its own, and the client's\n"
    "  kick                   all clients lose their connections\n"
    "  delay MS               every answer leaves so much later\n"
    "  late [MS [COUNT]]      the next COUNT pages leave MS (11000) after their poll's time\n"
    "  silent on|off          requests are ignored\n"
    "  error CODE [COUNT [COMMAND]]  the next calls of COMMAND (events.get) fail so; error off\n"
    "  garbage KIND [COUNT]   in place of the next answers to events.get: random not-gzip gzip-bomb "
    "truncated deep\n"
    "                         lying types flags; bad-event: a page with one bad event in it; timestamps: a "
    "page with\n"
    "                         times as MessagePack has them; off\n"
    "  event JSON             one more event         events FILE      more events\n"
    "  generate N             N more readings        requests FILE    as the option\n"
    "  stats                  counts, as JSON        quit             ends\n";

uint64_t sim_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void sim_say(const struct sim *sim, const char *format, ...)
{
    va_list arguments;
    if (!sim->verbose)
        return;
    va_start(arguments, format);
    fputs("idefix-sim: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

/* ---- the broker */

static void on_connect(struct mosquitto *mosquitto, void *user, int code)
{
    struct sim *sim = user;
    if (code != 0) {
        fprintf(stderr, "idefix-sim: the broker refuses: %s\n", mosquitto_connack_string(code));
        return;
    }
    sim->connected = true;
    sim->stats.connects++;
    mosquitto_subscribe(mosquitto, NULL, "ifx/+/t/+", 1);
}

static void on_subscribe(struct mosquitto *mosquitto, void *user, int id, int count, const int *granted)
{
    struct sim *sim = user;
    (void)mosquitto;
    (void)id;
    (void)count;
    (void)granted;
    sim->ready = true;
    puts("ready");
}

static void on_disconnect(struct mosquitto *mosquitto, void *user, int code)
{
    struct sim *sim = user;
    (void)mosquitto;
    (void)code;
    if (sim->ready && !sim->quit)
        puts("lost");
    sim->connected = sim->ready = false;
    for (struct sim_session *session = sim->sessions; session != NULL; session = session->next)
        session->logged_in = false; /* the clients may have lost their connections, too */
}

static void on_message(struct mosquitto *mosquitto, void *user, const struct mosquitto_message *message)
{
    struct sim *sim = user;
    char **levels = NULL;
    int count = 0;
    (void)mosquitto;
    if (mosquitto_sub_topic_tokenise(message->topic, &levels, &count) != 0)
        return;
    if (count == 4 && levels[1] != NULL && strlen(levels[1]) < 200)
        sim_calls_take(sim, levels[1], levels[3] != NULL ? levels[3] : "", message->payload,
                       (size_t)message->payloadlen);
    mosquitto_sub_topic_tokens_free(&levels, count);
}

static struct mosquitto *client_new(const char *id, void *user)
{
    struct mosquitto *client = mosquitto_new(id, true, user);
    if (client != NULL)
        mosquitto_username_pw_set(client, "device", "77dev22p1");
    return client;
}

static void kick_connected(struct mosquitto *mosquitto, void *user, int code)
{
    (void)mosquitto;
    (void)code;
    *(bool *)user = true;
}

void sim_kick(struct sim *sim, const char *session)
{
    bool greeted = false;
    struct mosquitto *client = client_new(session, &greeted);
    if (client == NULL)
        return;
    mosquitto_connect_callback_set(client, kick_connected);
    uint64_t end_ms = sim_now_ms() + KICK_MS;
    int result = mosquitto_connect(client, sim->host, sim->port, KEEPALIVE_S);
    while (result == MOSQ_ERR_SUCCESS && !greeted && sim_now_ms() < end_ms)
        result = mosquitto_loop(client, 20, 1);
    mosquitto_disconnect(client);
    mosquitto_destroy(client);
}

static int broker_open(struct sim *sim)
{
    char id[40];
    snprintf(id, sizeof id, "idefix-sim-%d", (int)getpid());
    mosquitto_lib_init();
    sim->mosquitto = client_new(id, sim);
    if (sim->mosquitto == NULL)
        return -1;
    mosquitto_connect_callback_set(sim->mosquitto, on_connect);
    mosquitto_subscribe_callback_set(sim->mosquitto, on_subscribe);
    mosquitto_disconnect_callback_set(sim->mosquitto, on_disconnect);
    mosquitto_message_callback_set(sim->mosquitto, on_message);
    mosquitto_max_inflight_messages_set(sim->mosquitto, 1000);
    mosquitto_int_option(sim->mosquitto, MOSQ_OPT_TCP_NODELAY, 1);
    return 0;
}

/* ---- the loop */

struct input {
    char *text;
    size_t bytes, room;
    bool closed;
};

static void input_take(struct sim *sim, char *line)
{
    struct error error = {0};
    if (strcmp(line, "stats") == 0)
        sim_print_stats(sim);
    else if (sim_order(sim, line, &error) == 0)
        puts("ok");
    else
        printf("error %s\n", error.message);
}

/* Reads standard input and executes each complete line as an order. */
static void input_read(struct sim *sim, struct input *input)
{
    if (input->room - input->bytes < 65536) {
        char *text = input->room < LINE_MAX_BYTES ? realloc(input->text, input->room + 131072) : NULL;
        if (text == NULL) {
            fputs("idefix-sim: an order that is too long\n", stderr);
            input->closed = sim->quit = true;
            return;
        }
        input->text = text;
        input->room += 131072;
    }
    ssize_t bytes = read(STDIN_FILENO, input->text + input->bytes, input->room - input->bytes);
    if (bytes < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (bytes <= 0) {
        input->closed = true;
        return;
    }
    input->bytes += (size_t)bytes;
    char *line = input->text, *end;
    while ((end = memchr(line, '\n', input->bytes - (size_t)(line - input->text))) != NULL) {
        *end = '\0';
        input_take(sim, line);
        line = end + 1;
    }
    input->bytes -= (size_t)(line - input->text);
    memmove(input->text, line, input->bytes);
}

static int sooner(int wait_ms, uint64_t at_ms)
{
    uint64_t now_ms = sim_now_ms();
    if (at_ms <= now_ms)
        return 0;
    return at_ms - now_ms < (uint64_t)wait_ms ? (int)(at_ms - now_ms) : wait_ms;
}

static void connection_end(struct sim *sim)
{
    int socket = mosquitto_socket(sim->mosquitto);
    if (socket >= 0)
        shutdown(socket, SHUT_RDWR);
}

/* Connects if there is no connection and a try is due. Returns when to call it next. */
static uint64_t connection_keep(struct sim *sim, uint64_t next_ms)
{
    uint64_t now_ms = sim_now_ms();
    if (sim->ready)
        return now_ms + 1000;
    if (now_ms < next_ms)
        return next_ms;
    if (mosquitto_socket(sim->mosquitto) >= 0) {
        connection_end(sim); /* no CONNACK came */
        return now_ms + RECONNECT_MS;
    }
    return mosquitto_connect(sim->mosquitto, sim->host, sim->port, KEEPALIVE_S) == MOSQ_ERR_SUCCESS
               ? now_ms + CONNACK_MS
               : now_ms + RECONNECT_MS;
}

static void loop(struct sim *sim, uint64_t every_ms, bool until_eof)
{
    struct input input = {0};
    uint64_t next_connect_ms = 0, next_reading_ms = every_ms != 0 ? sim_now_ms() + every_ms : UINT64_MAX;
    while (!sim->quit && !(input.closed && until_eof)) {
        bool was_connected = mosquitto_socket(sim->mosquitto) >= 0;
        next_connect_ms = connection_keep(sim, next_connect_ms);
        int wait_ms = sooner(sim_calls_tick(sim), next_connect_ms);
        if (sim_now_ms() >= next_reading_ms) {
            sim_events_generate(&sim->events, 1);
            sim_polls_events_added(sim);
            next_reading_ms += every_ms;
        }
        wait_ms = sooner(wait_ms, next_reading_ms);
        struct pollfd fds[] = {{.fd = input.closed ? -1 : STDIN_FILENO, .events = POLLIN},
                               {.fd = mosquitto_socket(sim->mosquitto), .events = POLLIN}};
        if (mosquitto_want_write(sim->mosquitto))
            fds[1].events |= POLLOUT;
        if (poll(fds, 2, wait_ms) < 0 && errno != EINTR)
            break;
        if (fds[1].revents & POLLOUT)
            mosquitto_loop_write(sim->mosquitto, 1);
        if (fds[1].revents & (POLLIN | POLLHUP | POLLERR))
            mosquitto_loop_read(sim->mosquitto, 1);
        mosquitto_loop_misc(sim->mosquitto);
        if (fds[0].revents != 0)
            input_read(sim, &input);
        if (was_connected && mosquitto_socket(sim->mosquitto) < 0)
            next_connect_ms = sim_now_ms() + RECONNECT_MS;
    }
    free(input.text);
}

/* ---- options */

static void give_up(const char *what, const char *why)
{
    fprintf(stderr, "idefix-sim: %s: %s\n", what, why);
    exit(2);
}

static void take_broker(struct sim *sim, char *text)
{
    char *colon = strrchr(text, ':');
    sim->host = text;
    if (colon == NULL)
        return;
    *colon = '\0';
    sim->port = atoi(colon + 1);
    if (sim->port <= 0 || sim->port > 65535 || *text == '\0')
        give_up("--broker", "HOST:PORT was expected");
}

static void take_account(struct sim *sim, char *text)
{
    char *colon = strchr(text, ':');
    if (colon == NULL)
        give_up("--account", "ADDRESS:TOKEN was expected");
    *colon = '\0';
    sim->accounts[sim->account_count++] = (struct sim_account){text, colon + 1};
}

/* Executes an order given as an option; an error ends the program. */
static void take_order(struct sim *sim, const char *name, const char *value)
{
    struct error error = {0};
    char line[4096];
    snprintf(line, sizeof line, "%s%s%s", name, value != NULL ? " " : "", value != NULL ? value : "");
    if (sim_order(sim, line, &error) != 0)
        give_up(name, error.message);
}

struct options {
    uint64_t every_ms;
    bool until_eof;
};

static void read_options(struct sim *sim, struct options *options, int count, char **arguments)
{
    enum {
        BROKER = 1,
        ACCOUNT,
        DOMAIN,
        EVENTS,
        GENERATE,
        EVERY,
        EMPTY,
        REQUESTS,
        ORDER,
        EOF_ENDS,
        VERBOSE,
        HELP
    };
    static const struct option names[] = {{"broker", required_argument, NULL, BROKER},
                                          {"account", required_argument, NULL, ACCOUNT},
                                          {"domain", required_argument, NULL, DOMAIN},
                                          {"events", required_argument, NULL, EVENTS},
                                          {"generate", required_argument, NULL, GENERATE},
                                          {"every", required_argument, NULL, EVERY},
                                          {"empty-on-timeout", no_argument, NULL, EMPTY},
                                          {"requests", required_argument, NULL, REQUESTS},
                                          {"order", required_argument, NULL, ORDER},
                                          {"until-eof", no_argument, NULL, EOF_ENDS},
                                          {"verbose", no_argument, NULL, VERBOSE},
                                          {"help", no_argument, NULL, HELP},
                                          {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(count, arguments, "", names, NULL)) >= 0) {
        switch (option) {
        case BROKER:
            take_broker(sim, optarg);
            break;
        case ACCOUNT:
            take_account(sim, optarg);
            break;
        case DOMAIN:
            sim->domains[sim->domain_count++] = optarg;
            break;
        case EVENTS:
        case GENERATE:
        case REQUESTS:
            take_order(sim,
                       option == EVENTS     ? "events"
                       : option == GENERATE ? "generate"
                                            : "requests",
                       optarg);
            break;
        case EVERY:
            options->every_ms = (uint64_t)atoi(optarg);
            if (atoi(optarg) <= 0)
                give_up("--every", "a number of milliseconds was expected");
            break;
        case EMPTY:
            sim->empty_on_timeout = true;
            break;
        case ORDER:
            take_order(sim, optarg, NULL);
            break;
        case EOF_ENDS:
            options->until_eof = true;
            break;
        case VERBOSE:
            sim->verbose = true;
            break;
        case HELP:
            fputs(usage, stdout);
            exit(0);
        default:
            fputs("try --help\n", stderr);
            exit(2);
        }
    }
    if (optind < count)
        give_up(arguments[optind], "no such thing; try --help");
}

int main(int count, char **arguments)
{
    struct sim sim = {.host = "127.0.0.1", .port = 1883};
    struct options options = {0};
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    sim.accounts = calloc((size_t)count, sizeof *sim.accounts);
    sim.domains = calloc((size_t)count, sizeof *sim.domains);
    if (sim.accounts == NULL || sim.domains == NULL || broker_open(&sim) != 0)
        give_up("start", "no memory");
    read_options(&sim, &options, count, arguments);
    loop(&sim, options.every_ms, options.until_eof);
    mosquitto_disconnect(sim.mosquitto);
    mosquitto_destroy(sim.mosquitto);
    mosquitto_lib_cleanup();
    sim_calls_free(&sim);
    sim_events_free(&sim.events);
    if (sim.requests != NULL)
        fclose(sim.requests);
    free(sim.accounts);
    free(sim.domains);
    return 0;
}
