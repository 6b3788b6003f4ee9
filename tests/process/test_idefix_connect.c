/* SPDX-License-Identifier: MIT */
/* An Idefix client's connection: brokers that are away, silent, strangers or not to be trusted;
 * interruptions; and that nothing is left behind. */
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

#include "tests/lib/idefix_fixture.h"

/* ---- names: libmosquitto's resolver is this one. both.test has two addresses, and the broker is at the
 * second; stuck.test takes longer than anybody wants to wait. */

__attribute__((visibility("default"))) int getaddrinfo(const char *node, const char *service,
                                                       const struct addrinfo *hints, struct addrinfo **out)
{
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    struct addrinfo *second = NULL;

    if (real == NULL)
        real = (int (*)(const char *, const char *, const struct addrinfo *,
                        struct addrinfo **))dlsym(RTLD_NEXT, "getaddrinfo");
    if (node != NULL && strcmp(node, "stuck.test") == 0) {
        poll(NULL, 0, 3000);
        return EAI_AGAIN;
    }
    if (node == NULL || strcmp(node, "both.test") != 0) /* small systems have no name "localhost" */
        return real(node != NULL && strcmp(node, "localhost") == 0 ? "127.0.0.1" : node, service, hints, out);
    int code = real("::1", service, hints, out);
    if (code == 0 && (code = real("127.0.0.1", service, hints, &second)) == 0)
        (*out)->ai_next = second; /* with hints of one socket type each has one */
    return code;
}

/* ---- a listener that is no broker */

enum listener_mode { ACCEPT_SILENT, ACCEPT_CLOSE, ACCEPT_RESET, ACCEPT_MALFORMED };
static struct listener {
    pid_t pid;
    int port;
} listener;

/* A child accepts, tells the test by SIGUSR1 where told to, and does no good. */
static void listener_start(enum listener_mode mode, bool tells)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CU_ASSERT_FATAL(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
                    listen(fd, 8) == 0);
    CU_ASSERT_FATAL(getsockname(fd, (struct sockaddr *)&address, &bytes) == 0);
    listener.port = ntohs(address.sin_port);
    listener.pid = fork();
    CU_ASSERT_FATAL(listener.pid >= 0);
    if (listener.pid != 0) {
        close(fd);
        return;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        int peer = accept(fd, NULL, NULL);
        char some[256];
        if (mode != ACCEPT_SILENT && read(peer, some, sizeof some) > 0) {
            if (mode == ACCEPT_MALFORMED && write(peer, "HTTP/1.1 400 Bad Request\r\n\r\n", 28) != 28)
                _exit(1);
            poll(NULL, 0, 100); /* it takes its time: they wait for its part of the handshake */
            if (mode == ACCEPT_RESET)
                setsockopt(peer, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1},
                           sizeof(struct linger));
            close(peer);
        }
        if (tells)
            kill(idefix_world->test, SIGUSR1);
    }
}

/* ---- interruptions: a signal handler ends the call */

static ep_idefix *interrupted_client;
static atomic_int interruptions;

static void on_signal(int number)
{
    (void)number;
    atomic_fetch_add(&interruptions, 1);
    ep_idefix_interrupt(interrupted_client);
}

static void expect_interruption(ep_idefix *client)
{
    struct sigaction action = {.sa_handler = on_signal}, before;
    uint64_t begin_ms = until_clock_ms();

    interrupted_client = client;
    atomic_store(&interruptions, 0);
    sigaction(SIGUSR1, &action, &before);
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 60000, NULL), EP_EBUSY);
    CU_ASSERT_TRUE(idefix_fixture_says(client, "interrupted"));
    CU_ASSERT_TRUE(atomic_load(&interruptions) >= 1);
    CU_ASSERT_TRUE(until_clock_ms() - begin_ms < 2000);
    sigaction(SIGUSR1, &before, NULL);
}

/* The same by another thread, which no system call of the caller notices. */
static void *interrupter(void *user)
{
    int number;
    sigwait(user, &number);
    ep_idefix_interrupt(interrupted_client);
    return NULL;
}

static void test_interrupt_thread(void)
{
    sigset_t usr1, before;
    pthread_t thread;
    idefix_fixture_begin();
    ep_idefix *client = interrupted_client = idefix_fixture_client((struct ep_idefix_params){0});
    atomic_store(&idefix_world->get, GET_SIGNAL);
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &usr1, &before);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, interrupter, &usr1), 0);
    uint64_t begin_ms = until_clock_ms();
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 10000, NULL), EP_EBUSY);
    CU_ASSERT_TRUE(until_clock_ms() - begin_ms < 2000);
    pthread_join(thread, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    ep_idefix_close(&client);
}

static void test_interrupt(void)
{
    idefix_fixture_begin();
    ep_idefix *client = idefix_fixture_client((struct ep_idefix_params){0});
    atomic_store(&idefix_world->login, LOGIN_SIGNAL);
    expect_interruption(client);
    atomic_store(&idefix_world->login, LOGIN_OK);
    atomic_store(&idefix_world->get, GET_SIGNAL);
    expect_interruption(client);
    atomic_store(&idefix_world->get, GET_PAGE);
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, NULL), EP_OK);
    ep_idefix_interrupt(client); /* counts for the next call, once */
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, NULL), EP_EBUSY);
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, NULL), EP_OK);
    ep_idefix_close(&client);
}

static void test_interrupt_connecting(void)
{
    idefix_fixture_begin();
    listener_start(ACCEPT_SILENT, true);
    static const char *const schemes[] = {"tcp", "ssl"};
    for (size_t i = 0; i < 2; i++) {
        ep_idefix *client = idefix_fixture_client(
            (struct ep_idefix_params){.broker = idefix_fixture_url(schemes[i], "127.0.0.1", listener.port)});
        expect_interruption(client);
        uint64_t begin_ms = until_clock_ms();
        ep_idefix_close(&client);
        CU_ASSERT_TRUE(until_clock_ms() - begin_ms < 1500);
    }
    idefix_fixture_stop(&listener.pid);
}

/* ---- brokers that are none */

static void expect_failure(struct ep_idefix_params params, int code, const char *message, const char *more)
{
    ep_idefix *client = idefix_fixture_client(params);
    uint64_t begin_ms = until_clock_ms();

    CU_ASSERT_EQUAL(idefix_fixture_get(client, 60000, NULL), code);
    CU_ASSERT_TRUE(idefix_fixture_says(client, message));
    CU_ASSERT_TRUE(more == NULL || idefix_fixture_says(client, more));
    CU_ASSERT_PTR_NULL(strstr(ep_idefix_errmsg(client), "77dev"));
    CU_ASSERT_TRUE(until_clock_ms() - begin_ms < 5000);
    ep_idefix_close(&client);
}

static void test_away(void)
{
    const char *address = idefix_fixture_url("tcp", "127.0.0.1", idefix_fixture_free_port());
    expect_failure((struct ep_idefix_params){.broker = address}, EP_EBACKEND, address, "Connection refused");
    address = idefix_fixture_url("ssl", "127.0.0.1", idefix_fixture_free_port());
    expect_failure((struct ep_idefix_params){.broker = address}, EP_EBACKEND, address, "Connection refused");
    address = idefix_fixture_url("tcp", "localhost", idefix_fixture_free_port());
    expect_failure((struct ep_idefix_params){.broker = address}, EP_EBACKEND, address, "Connection refused");
    expect_failure((struct ep_idefix_params){.broker = "tcp://no-such-host.invalid"}, EP_EBACKEND,
                   "the name \"no-such-host.invalid\" cannot be resolved", NULL);
    idefix_fixture_begin();
    const char *both = idefix_fixture_url("tcp", "both.test", idefix_fixture.port);
    ep_idefix *client = idefix_fixture_client((struct ep_idefix_params){.broker = both});
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, NULL), EP_OK);
    ep_idefix_close(&client);
    /* TLS to a port that has none: but it was reached */
    both = idefix_fixture_url("ssl", "both.test", idefix_fixture.port);
    expect_failure((struct ep_idefix_params){.broker = both}, EP_EBACKEND, "does that port speak TLS?", NULL);
}

/* Nothing can end a resolver's wait: it is left to itself. */
static void test_stuck_resolver(void)
{
    size_t threads = idefix_fixture_entries("/proc/self/task"), fds = idefix_fixture_entries("/proc/self/fd");
    ep_idefix *client = idefix_fixture_client(
        (struct ep_idefix_params){.broker = "tcp://stuck.test", .connect_timeout_ms = 200});
    uint64_t begin_ms = until_clock_ms();

    CU_ASSERT_EQUAL(idefix_fixture_get(client, 60000, NULL), EP_EBACKEND);
    CU_ASSERT_TRUE(idefix_fixture_says(client, "does the name server answer?"));
    CU_ASSERT_TRUE(until_clock_ms() - begin_ms < 1500);
    begin_ms = until_clock_ms();
    ep_idefix_close(&client);
    CU_ASSERT_TRUE(until_clock_ms() - begin_ms < 1500);
    CU_ASSERT_EQUAL(idefix_fixture_entries("/proc/self/task"), threads + 1);
    CU_ASSERT_TRUE(UNTIL(IDEFIX_PATIENCE_MS, idefix_fixture_entries("/proc/self/task") == threads &&
                                                 idefix_fixture_entries("/proc/self/fd") == fds));
}

static uint64_t cpu_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void test_silent(void)
{
    static const char *const schemes[] = {"tcp", "ssl"};
    idefix_fixture_begin();
    listener_start(ACCEPT_SILENT, false);
    for (size_t i = 0; i < 2; i++) {
        const char *address = idefix_fixture_url(schemes[i], "127.0.0.1", listener.port);
        uint64_t busy_ms = cpu_ms();
        expect_failure((struct ep_idefix_params){.broker = address, .connect_timeout_ms = 2500}, EP_EBACKEND,
                       "accepts connections but stays silent", "within 2.5 s");
        CU_ASSERT_TRUE(cpu_ms() - busy_ms < 1500); /* it does not spin */
    }
    idefix_fixture_stop(&listener.pid);
}

static void test_strangers(void)
{
    idefix_fixture_begin();
    listener_start(ACCEPT_CLOSE, false);
    expect_failure((struct ep_idefix_params){.broker = idefix_fixture_url("tcp", "127.0.0.1", listener.port)},
                   EP_EBACKEND, "failed before the broker's greeting", "is it an MQTT broker");
    expect_failure((struct ep_idefix_params){.broker = idefix_fixture_url("ssl", "127.0.0.1", listener.port)},
                   EP_EBACKEND, "failed before the broker's greeting", "does that port speak TLS?");
    idefix_fixture_stop(&listener.pid);
    listener_start(ACCEPT_RESET, false);
    expect_failure((struct ep_idefix_params){.broker = idefix_fixture_url("tcp", "127.0.0.1", listener.port)},
                   EP_EBACKEND, "failed before the broker's greeting: the broker reset it", NULL);
    expect_failure((struct ep_idefix_params){.broker = idefix_fixture_url("ssl", "127.0.0.1", listener.port)},
                   EP_EBACKEND, "failed before the broker's greeting: the broker reset it",
                   "does that port speak TLS?");
    idefix_fixture_stop(&listener.pid);
    listener_start(ACCEPT_MALFORMED, false);
    expect_failure((struct ep_idefix_params){.broker = idefix_fixture_url("tcp", "127.0.0.1", listener.port)},
                   EP_EBACKEND, "failed before the broker's greeting", NULL);
    expect_failure((struct ep_idefix_params){.broker = idefix_fixture_url("ssl", "127.0.0.1", listener.port)},
                   EP_EBACKEND, "failed before the broker's greeting", NULL);
    idefix_fixture_stop(&listener.pid);
    expect_failure((struct ep_idefix_params){.broker =
                                                 idefix_fixture_url("ssl", "127.0.0.1", idefix_fixture.port)},
                   EP_EBACKEND, "failed before the broker's greeting", "does that port speak TLS?");
    expect_failure((struct ep_idefix_params){.broker = idefix_fixture_url("tcp", "127.0.0.1",
                                                                          idefix_fixture.closed_port),
                                             .user = "mallory"},
                   EP_EAUTH, "refuses the MQTT user \"mallory\"", NULL);
}

/* ---- losses */

static void test_lost(void)
{
    idefix_fixture_begin();
    ep_idefix *client = idefix_fixture_client((struct ep_idefix_params){0});
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, NULL), EP_OK);
    atomic_store(&idefix_world->get, GET_CUT);
    uint64_t begin_ms = until_clock_ms();
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 60000, NULL), EP_EBACKEND);
    CU_ASSERT_TRUE(until_clock_ms() - begin_ms < 1000);
    CU_ASSERT_TRUE(idefix_fixture_says(client, "connection to tcp://127.0.0.1:"));
    CU_ASSERT_TRUE(idefix_fixture_says(client, " lost: the broker "));
    idefix_fixture_stop(&idefix_fixture.broker);
    idefix_fixture_stop(&idefix_fixture.backend);
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 60000, NULL), EP_EBACKEND);
    CU_ASSERT_TRUE(idefix_fixture_says(client, "Connection refused"));
    idefix_fixture_begin();
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, NULL), EP_OK);
    CU_ASSERT_EQUAL(atomic_load(&idefix_world->logins), 1);
    ep_idefix_close(&client);
}

/* Two clients of one session throw each other out, again and again. */
static void test_leaks(void)
{
    struct sigaction pipe_action;
    idefix_fixture_begin();
    size_t fds = idefix_fixture_entries("/proc/self/fd"), threads = idefix_fixture_entries("/proc/self/task");
    ep_idefix *clients[2] = {idefix_fixture_client((struct ep_idefix_params){.session = "twin"}),
                             idefix_fixture_client((struct ep_idefix_params){.session = "twin"})};
    unsigned worked = 0;
    size_t most = 0;
    for (unsigned i = 0; i < 200; i++) {
        int code = idefix_fixture_get(clients[i % 2], 0, NULL);
        CU_ASSERT_TRUE(code == EP_OK || code == EP_EBACKEND); /* the loss may come in the middle */
        worked += code == EP_OK;
        size_t now = idefix_fixture_entries("/proc/self/fd");
        most = now > most ? now : most;
    }
    CU_ASSERT_TRUE(worked >= 100);
    CU_ASSERT_TRUE(atomic_load(&idefix_world->logins) >= 150);
    CU_ASSERT_TRUE(most <= fds + 2 * 5); /* two eventfds, a socket, libmosquitto's pair */
    sigaction(SIGPIPE, NULL, &pipe_action);
    CU_ASSERT_PTR_EQUAL(pipe_action.sa_handler, SIG_DFL);
    ep_idefix_close(&clients[0]);
    ep_idefix_close(&clients[1]);
    CU_ASSERT_EQUAL(idefix_fixture_entries("/proc/self/fd"), fds);
    CU_ASSERT_TRUE(UNTIL(IDEFIX_PATIENCE_MS, idefix_fixture_entries("/proc/self/task") == threads));
}

/* ---- trust */

static bool make_certificates(void)
{
    char command[2000];

    snprintf(command, sizeof command,
             "cd %s && exec 2>/dev/null && export RANDFILE=.rnd && umask 022 &&"
             "new() { openssl req -newkey rsa:2048 -nodes -keyout $1.key -out $1.csr -subj /CN=$1 &&"
             " echo subjectAltName=$2 >$1.ext &&"
             " openssl x509 -req -in $1.csr -CA $3.pem -CAkey $3.key -CAcreateserial -days 2 -extfile $1.ext"
             " -out $1.pem; } &&"
             "for ca in ca other; do openssl req -x509 -newkey rsa:2048 -nodes -keyout $ca.key -out $ca.pem "
             "-days 2"
             " -subj /CN=$ca || exit; done &&"
             "new good DNS:localhost,IP:127.0.0.1 ca && new wrong DNS:elsewhere.example ca",
             idefix_fixture.directory);
    return system(command) == 0;
}

static const char *certificate(const char *name)
{
    static char path[2][300];
    static unsigned next;
    char *text = path[next++ % 2];

    snprintf(text, sizeof path[0], "%s/%s.pem", idefix_fixture.directory, name);
    return text;
}

static void test_trust(void)
{
    if (system("openssl version >/dev/null 2>&1") != 0) {
        printf("(no openssl here) ");
        return;
    }
    CU_ASSERT_TRUE_FATAL(make_certificates());
    idefix_fixture_stop(&idefix_fixture.broker);
    idefix_fixture_stop(&idefix_fixture.backend);
    idefix_fixture.tls = true;
    idefix_fixture_begin();
    const char *names[] = {"127.0.0.1", "localhost"};
    for (size_t i = 0; i < 2; i++) {
        ep_idefix *client = idefix_fixture_client(
            (struct ep_idefix_params){.broker = idefix_fixture_url("ssl", names[i], idefix_fixture.tls_port),
                                      .ca_file = certificate("ca")});
        for (int times = 0; times < 3; times++)
            if (idefix_fixture_get(client, 0, NULL) != EP_OK)
                CU_FAIL(ep_idefix_errmsg(client));
        ep_idefix_close(&client);
    }
    const char *address = idefix_fixture_url("ssl", "localhost", idefix_fixture.tls_port);
    expect_failure((struct ep_idefix_params){.broker = address}, EP_EAUTH,
                   "certificate is refused: unable to", "set ca_file");
    expect_failure((struct ep_idefix_params){.broker = address, .ca_file = certificate("other")}, EP_EAUTH,
                   "certificate is refused", "hold the certificate of the authority that signed it?");
    expect_failure((struct ep_idefix_params){.broker = idefix_fixture_url("ssl", "localhost",
                                                                          idefix_fixture.wrong_port),
                                             .ca_file = certificate("ca")},
                   EP_EAUTH, "it is not for the name \"localhost\"", NULL);
    /* A file that holds no certificate. */
    char path[300];
    snprintf(path, sizeof path, "%s/good.ext", idefix_fixture.directory);
    expect_failure((struct ep_idefix_params){.broker = address, .ca_file = path}, EP_ECONFIG,
                   "TLS cannot be set up", NULL);
    /* What the system trusts: OpenSSL's own variable names the file. */
    setenv("SSL_CERT_FILE", certificate("ca"), 1);
    ep_idefix *client = idefix_fixture_client((struct ep_idefix_params){.broker = address});
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, NULL), EP_OK);
    ep_idefix_close(&client);
    unsetenv("SSL_CERT_FILE");
}

IDEFIX_MAIN("idefix_connect", {"broker away", test_away}, {"resolver stuck", test_stuck_resolver},
            {"broker silent", test_silent}, {"not brokers, not for us", test_strangers},
            {"interrupted in login and poll", test_interrupt},
            {"interrupted by another thread", test_interrupt_thread},
            {"interrupted while connecting", test_interrupt_connecting}, {"connection lost", test_lost},
            {"200 reconnects leave nothing", test_leaks}, {"certificates", test_trust})
