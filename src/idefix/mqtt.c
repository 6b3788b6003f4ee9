/* SPDX-License-Identifier: MIT */
/*
 * One MQTT connection over libmosquitto. libmosquitto's own loops are not used: they wait with select(),
 * reconnect by themselves, and then repeat old calls. Runs in the link's thread of a producer or of a
 * program that uses the library. All signals are blocked there, so a broken pipe is an error code, not
 * SIGPIPE.
 *
 * Owns the struct mosquitto. Each connection has a new one, so nothing of an old one is sent again.
 *
 * Invariants
 *  1. Only resolving the broker's name may block (getaddrinfo inside mosquitto_connect_bind_async).
 *  2. No busy loop. During the TLS handshake the socket is always writable, and in some versions
 *     mosquitto_want_write does not help. So until CONNACK this waits for readability only, or 250 ms;
 *     what is sent until then fits any socket buffer. One version makes the handshake's steps in
 *     mosquitto_loop_read, others in mosquitto_loop_write, so both are called.
 *  3. libmosquitto 2.0 takes SSL_ERROR_SYSCALL in a handshake for 'go on', for ever. So this checks
 *     whether TCP is still connected before it calls libmosquitto.
 *  4. libmosquitto keeps the first address for which connect() begins. If that fails, the other family
 *     (IPv4 or IPv6) is tried once, by binding to its "any" address.
 *  5. The socket is close-on-exec. libmosquitto's internal socket pair cannot be reached and is not.
 *
 * Survived: every failure, as a message (error_text.c).
 */
#include "src/idefix/mqtt.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <mosquitto.h>
#include <mqtt_protocol.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "shm/slot.h" /* shm_now_ns */

#define MS UINT64_C(1000000)
#define TICK_MS 1000      /* mosquitto_loop_misc needs a call about once a second */
#define HELLO_TICK_MS 250 /* invariant 2 */
#define DISCONNECT_MS 500
#define REFUSED_QOS 128

struct idefix_mqtt {
    const struct idefix_mqtt_params *params;
    struct mosquitto *mosquitto;
    idefix_mqtt_frame *frame;
    void *user;
    enum idefix_phase phase;
    uint64_t end_ns, tcp_end_ns; /* deadlines: of connecting, and of TCP with this address family */
    int family;                  /* of the socket */
    bool last_try;               /* there is no other family to try */
    int subscription;            /* message id */
    int granted;                 /* -1 = no SUBACK yet */
    struct idefix_end end;
};

static void library_init(void)
{
    mosquitto_lib_init();
}

/* ---- callbacks, called by libmosquitto in the functions below */

/* Idefix client, in the connection's thread: returns why OpenSSL refused the broker's certificate, which no
 * log line says. libmosquitto brings libssl along, so its two functions are looked up at run time; if they
 * are missing, the reason is unknown. */
static const char *find_certificate_error(struct mosquitto *mosquitto)
{
    void *ssl = mosquitto_ssl_get(mosquitto);
    long (*result)(const void *) = (long (*)(const void *))dlsym(RTLD_DEFAULT, "SSL_get_verify_result");
    const char *(*describe)(long) =
        (const char *(*)(long))dlsym(RTLD_DEFAULT, "X509_verify_cert_error_string");
    if (ssl == NULL || result == NULL || describe == NULL || result(ssl) == 0)
        return NULL;
    return describe(result(ssl));
}

/* Idefix client, in the connection's thread: callback for libmosquitto's log lines. Keeps the first error
 * for the error message, and whether the broker's certificate was refused. */
static void on_log(struct mosquitto *mosquitto, void *user, int level, const char *text)
{
    struct idefix_end *end = &((struct idefix_mqtt *)user)->end;
    if (level != MOSQ_LOG_ERR && level != MOSQ_LOG_WARNING)
        return;
    if (strstr(text, "host name verification failed") != NULL)
        end->certificate = end->wrong_name = true;
    const char *reason = NULL;
    if (strstr(text, "certificate verify failed") != NULL) {
        end->certificate = true;
        reason = find_certificate_error(mosquitto);
    }
    const char *detail = strrchr(text, ':'); /* of "OpenSSL Error[0]: error:0A000086:SSL routines::text" */
    if (reason == NULL)
        reason = strstr(text, "OpenSSL") != NULL && detail != NULL && detail[1] != '\0' ? detail + 1 : text;
    if (strstr(reason, "hostname mismatch") != NULL || strstr(reason, "IP address mismatch") != NULL)
        end->wrong_name = true;
    if (end->said[0] == '\0')
        snprintf(end->said, sizeof end->said, "%s", reason);
}

static void on_connect(struct mosquitto *mosquitto, void *user, int code)
{
    (void)mosquitto;
    ((struct idefix_mqtt *)user)->end.connack = code;
}

/* Idefix client, in the connection's thread: callback for the broker's answer to the subscription (SUBACK).
 * */
static void on_subscribe(struct mosquitto *mosquitto, void *user, int id, int count, const int *granted)
{
    struct idefix_mqtt *mqtt = user;
    (void)mosquitto;
    if (id == mqtt->subscription && count > 0)
        mqtt->granted = granted[0];
}

/* Idefix client, in the connection's thread: callback for a message from the broker. Passes it on with the
 * flags at the end of its topic. */
static void on_message(struct mosquitto *mosquitto, void *user, const struct mosquitto_message *message)
{
    struct idefix_mqtt *mqtt = user;
    const char *flags = strrchr(message->topic, '/');
    (void)mosquitto;
    if (flags != NULL && message->payloadlen >= 0)
        mqtt->frame(flags + 1, message->payload, (size_t)message->payloadlen, mqtt->user);
}

/* ---- libmosquitto's client */

/* Idefix client, in the connection's thread: sets callbacks, protocol version, user, password and TLS of a
 * new libmosquitto client. */
static int configure_client(struct idefix_mqtt *mqtt, struct idefix_failure *failure)
{
    const struct idefix_mqtt_params *params = mqtt->params;
    struct mosquitto *mosquitto = mqtt->mosquitto;

    mosquitto_log_callback_set(mosquitto, on_log);
    mosquitto_connect_callback_set(mosquitto, on_connect);
    mosquitto_subscribe_callback_set(mosquitto, on_subscribe);
    mosquitto_message_callback_set(mosquitto, on_message);
    int rc = mosquitto_int_option(mosquitto, MOSQ_OPT_PROTOCOL_VERSION, MQTT_PROTOCOL_V311);
    if (rc == MOSQ_ERR_SUCCESS)
        rc = mosquitto_int_option(mosquitto, MOSQ_OPT_TCP_NODELAY, 1);
    if (rc == MOSQ_ERR_SUCCESS)
        rc = mosquitto_username_pw_set(mosquitto, params->user, params->password);
    if (rc == MOSQ_ERR_SUCCESS && params->broker.tls && params->ca_file == NULL)
        rc = mosquitto_int_option(mosquitto, MOSQ_OPT_TLS_USE_OS_CERTS, 1);
    if (rc == MOSQ_ERR_SUCCESS && params->broker.tls && params->ca_file != NULL &&
        mosquitto_tls_set(mosquitto, params->ca_file, NULL, NULL, NULL, NULL) != MOSQ_ERR_SUCCESS)
        return base_error_set(&failure->error, EP_ECONFIG, "%s: ca_file %s cannot be read", params->address,
                              params->ca_file);
    if (rc == MOSQ_ERR_NOMEM)
        return base_error_set(&failure->error, EP_ENOMEM, "no memory for a connection");
    if (rc != MOSQ_ERR_SUCCESS)
        return base_error_set(&failure->error, EP_ESYSTEM,
                              "libmosquitto rejects an option of the connection: %s", mosquitto_strerror(rc));
    return 0;
}

/* Idefix client, in the connection's thread: creates a libmosquitto client. mosquitto_new makes the whole
 * process ignore SIGPIPE; that is the program's choice, so this restores the setting. */
static struct mosquitto *create_client(const char *session, void *user)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct sigaction before;

    pthread_once(&once, library_init);
    bool known = sigaction(SIGPIPE, NULL, &before) == 0;
    struct mosquitto *mosquitto = mosquitto_new(session, true, user);
    int errnum = errno;
    if (known)
        sigaction(SIGPIPE, &before, NULL);
    errno = errnum;
    return mosquitto;
}

/* Idefix client, in the connection's thread: makes a new libmosquitto client for each connect(), because
 * with TLS a second connect() of the same client fails in libmosquitto 2.0. */
static int replace_client(struct idefix_mqtt *mqtt, struct idefix_failure *failure)
{
    const char *session = mqtt->params->session;

    if (mqtt->mosquitto != NULL)
        mosquitto_destroy(mqtt->mosquitto);
    mqtt->mosquitto = create_client(session, mqtt);
    if (mqtt->mosquitto == NULL)
        return base_error_set(&failure->error, errno == ENOMEM ? EP_ENOMEM : EP_ECONFIG,
                              "cannot create an MQTT client for session \"%s\": %s", session,
                              strerror(errno));
    return configure_client(mqtt, failure);
}

/* ---- TCP */

/* Idefix client, in the connection's thread: begins to connect to an address of bind_address's family (NULL:
 * any family). Returns 0 or libmosquitto's code. May block in the resolver. */
static int begin_tcp_connect(struct idefix_mqtt *mqtt, const char *bind_address)
{
    const struct idefix_broker *broker = &mqtt->params->broker;
    struct sockaddr_storage own = {.ss_family = AF_UNSPEC};
    socklen_t bytes = sizeof own;

    errno = 0;
    int rc = mosquitto_connect_bind_async(mqtt->mosquitto, broker->host, broker->port, IDEFIX_KEEPALIVE_S,
                                          bind_address);
    /* If the connection was refused before the handshake began, only errno says so. */
    mqtt->end.errnum = errno;
    mqtt->end.rc = rc;
    int fd = mosquitto_socket(mqtt->mosquitto);
    if (rc != MOSQ_ERR_SUCCESS || fd < 0)
        return rc != MOSQ_ERR_SUCCESS ? rc : MOSQ_ERR_NO_CONN;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (getsockname(fd, (struct sockaddr *)&own, &bytes) == 0)
        mqtt->family = own.ss_family;
    else
        mqtt->family = AF_UNSPEC;
    return 0;
}

/* Idefix client, in the connection's thread: tries IPv4 after IPv6 or the reverse, once. Returns whether
 * this has begun; if not, the first family's failure is reported. */
static bool try_other_address_family(struct idefix_mqtt *mqtt)
{
    const struct idefix_end first = mqtt->end;
    const char *any = mqtt->family == AF_INET6 ? "0.0.0.0" : "::";
    struct idefix_failure unused = {0};
    bool begun = false;

    if (!mqtt->last_try && mqtt->family != AF_UNSPEC)
        begun = replace_client(mqtt, &unused) == 0 && begin_tcp_connect(mqtt, any) == 0;
    mqtt->last_try = true;
    if (!begun)
        mqtt->end = first;
    mqtt->tcp_end_ns = mqtt->end_ns;
    return begun;
}

static int report_connection_end(struct idefix_mqtt *mqtt, struct idefix_failure *failure)
{
    mqtt->end.phase = mqtt->phase;
    return idefix_error_text_end(mqtt->params, &mqtt->end, failure);
}

/* Idefix client, in the connection's thread: checks whether the TCP connection is made, has failed or has
 * timed out. A failure first tries the other address family. */
static int check_tcp_connect(struct idefix_mqtt *mqtt, bool ready, struct idefix_failure *failure)
{
    struct sockaddr_storage peer;
    socklen_t bytes = sizeof peer;
    int fd = mosquitto_socket(mqtt->mosquitto), errnum = 0;

    if (ready && getpeername(fd, (struct sockaddr *)&peer, &bytes) == 0) {
        mqtt->phase = IDEFIX_HELLO;
        return 0;
    }
    if (!ready && shm_now_ns() < mqtt->tcp_end_ns)
        return 0;
    mqtt->end.timed_out = !ready;
    bytes = sizeof errnum;
    if (ready && getsockopt(fd, SOL_SOCKET, SO_ERROR, &errnum, &bytes) == 0 && errnum != 0)
        mqtt->end.errnum = errnum;
    if (ready && (mqtt->end.errnum == ECONNRESET || mqtt->end.errnum == EPIPE)) {
        /* The connection was made and is already closed. */
        mqtt->phase = IDEFIX_HELLO;
        mqtt->end.rc = MOSQ_ERR_CONN_LOST;
        return report_connection_end(mqtt, failure);
    }
    if (try_other_address_family(mqtt)) {
        mqtt->end.timed_out = false;
        return 0;
    }
    return report_connection_end(mqtt, failure);
}

/* ---- from connecting to closing */

/* Idefix client, in the connection's thread: begins to connect and starts the timeout. A failure is returned
 * with a message for the operator. */
static int begin_connection(struct idefix_mqtt *mqtt, struct idefix_failure *failure)
{
    uint64_t timeout_ns = mqtt->params->connect_timeout_ms * MS;
    int rc = begin_tcp_connect(mqtt, NULL);

    /* The timeout starts here, so that a slow resolver does not use up the connection's time. */
    mqtt->end_ns = shm_now_ns() + timeout_ns;
    mqtt->tcp_end_ns = mqtt->end_ns - timeout_ns / 2;
    if (rc == 0)
        return 0;
    if (rc == MOSQ_ERR_EAI)
        return idefix_error_text_resolver(mqtt->params, mqtt->end.errnum, failure);
    if (rc == MOSQ_ERR_TLS && strstr(mqtt->end.said, "Unable to load CA") != NULL)
        return base_error_set(&failure->error, EP_ECONFIG,
                              "%s: TLS cannot be set up: ca_file %s holds no certificate",
                              mqtt->params->address, mqtt->params->ca_file);
    if (rc == MOSQ_ERR_TLS) { /* a peer on this machine answered at once */
        mqtt->phase = IDEFIX_HELLO;
        return report_connection_end(mqtt, failure);
    }
    /* Refused at once, so the family is unknown. This happens on this machine only ("localhost"). */
    mqtt->family = AF_INET6;
    if (rc == MOSQ_ERR_ERRNO && try_other_address_family(mqtt))
        return 0;
    return report_connection_end(mqtt, failure);
}

/* Idefix client, in the connection's thread: makes a connection object and begins to connect to the broker.
 * BLOCKS while the system resolves the broker's name. */
int idefix_mqtt_open(const struct idefix_mqtt_params *params, idefix_mqtt_frame *frame, void *user,
                     struct idefix_mqtt **out, struct idefix_failure *failure)
{
    struct idefix_mqtt *mqtt = calloc(1, sizeof *mqtt);
    int code;

    *failure = (struct idefix_failure){0};
    if (mqtt == NULL)
        return base_error_set(&failure->error, EP_ENOMEM, "no memory for a connection");
    *mqtt = (struct idefix_mqtt){.params = params, .frame = frame, .user = user, .granted = -1};
    mqtt->end.connack = -1;
    code = replace_client(mqtt, failure);
    if (code == 0)
        code = begin_connection(mqtt, failure);
    if (code != 0) {
        idefix_mqtt_close(&mqtt);
        return code;
    }
    *out = mqtt;
    return 0;
}

/* Idefix client, in the connection's thread: returns whether the broker has closed the connection during the
 * handshake, which libmosquitto 2.0 would not notice (invariant 3). Bytes that still wait must be read
 * first. */
static bool has_peer_closed(struct idefix_mqtt *mqtt)
{
    char byte;
    ssize_t got =
        recv(mosquitto_socket(mqtt->mosquitto), &byte, sizeof byte, MSG_PEEK | MSG_DONTWAIT | MSG_NOSIGNAL);

    if (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR)))
        return false;
    mqtt->end.rc = MOSQ_ERR_CONN_LOST;
    mqtt->end.errnum = got < 0 ? errno : 0;
    return true;
}

/* MQTT connection of an Idefix client: acknowledges received bytes at once. A broker that sent a PUBACK
 * holds the answer back until TCP acknowledges it (Nagle), and the kernel delays that by 40 ms, which
 * every page of a backlog would cost. */
static void acknowledge_received_bytes(int fd)
{
    setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &(int){1}, sizeof(int));
}

/* Idefix client, in the connection's thread: lets libmosquitto read, write and ping. Returns a code if the
 * connection has ended. */
static int exchange_packets(struct idefix_mqtt *mqtt, bool ready, struct idefix_failure *failure)
{
    struct mosquitto *mosquitto = mqtt->mosquitto;
    int rc = MOSQ_ERR_SUCCESS;

    if (mqtt->phase == IDEFIX_HELLO && has_peer_closed(mqtt))
        return report_connection_end(mqtt, failure);
    errno = 0;
    if (ready || mqtt->phase == IDEFIX_HELLO)
        rc = mosquitto_loop_read(mosquitto, 1);
    if (rc == MOSQ_ERR_SUCCESS && mosquitto_socket(mosquitto) >= 0 && mosquitto_want_write(mosquitto))
        rc = mosquitto_loop_write(mosquitto, 1);
    if (rc == MOSQ_ERR_SUCCESS && mosquitto_socket(mosquitto) >= 0)
        rc = mosquitto_loop_misc(mosquitto);
    int errnum = errno;
    if (rc == MOSQ_ERR_SUCCESS && mosquitto_socket(mosquitto) >= 0) {
        if (ready)
            acknowledge_received_bytes(mosquitto_socket(mosquitto));
        return 0;
    }
    mqtt->end.rc = rc == MOSQ_ERR_SUCCESS ? MOSQ_ERR_CONN_LOST : rc;
    mqtt->end.errnum = errnum;
    return report_connection_end(mqtt, failure);
}

/* Idefix client, in the connection's thread: takes the steps after the broker's greeting: subscribes to the
 * answers, and checks whether the broker granted it. */
static int advance_handshake(struct idefix_mqtt *mqtt, struct idefix_failure *failure)
{
    char topic[256];

    if (mqtt->phase == IDEFIX_HELLO && mqtt->end.connack == 0) {
        snprintf(topic, sizeof topic, "ifx/%s/r/+", mqtt->params->session);
        mqtt->phase = IDEFIX_SUBSCRIBING;
        mqtt->end.rc = mosquitto_subscribe(mqtt->mosquitto, &mqtt->subscription, topic, 1);
        if (mqtt->end.rc != MOSQ_ERR_SUCCESS)
            return report_connection_end(mqtt, failure);
    }
    if (mqtt->phase == IDEFIX_SUBSCRIBING && mqtt->granted >= REFUSED_QOS)
        return base_error_set(
            &failure->error, EP_EAUTH,
            "%s: the broker refuses the subscription to ifx/%s/r/+ (do its access rules allow it to "
            "this MQTT user?)",
            mqtt->params->address, mqtt->params->session);
    if (mqtt->phase == IDEFIX_SUBSCRIBING && mqtt->granted >= 0)
        mqtt->phase = IDEFIX_READY;
    return 0;
}

/* Idefix client, in the connection's thread: returns how long poll may wait, until the next ping, handshake
 * check or deadline. */
static int compute_wait_ms(const struct idefix_mqtt *mqtt)
{
    uint64_t now = shm_now_ns(), until = now + (mqtt->phase == IDEFIX_HELLO ? HELLO_TICK_MS : TICK_MS) * MS;

    if (mqtt->phase != IDEFIX_READY && until > mqtt->end_ns)
        until = mqtt->end_ns;
    if (mqtt->phase == IDEFIX_TCP && until > mqtt->tcp_end_ns)
        until = mqtt->tcp_end_ns;
    return until <= now ? 0 : (int)((until - now + MS - 1) / MS);
}

/* MQTT connection of an Idefix client: waits for the network, for wake_fd or for a second at most, and
 * does what is due. The connection's thread calls it in its loop, in a producer or in a program that uses
 * the library. Returns a code if the connection has ended. */
int idefix_mqtt_step(struct idefix_mqtt *mqtt, int wake_fd, struct idefix_failure *failure)
{
    bool writes = mqtt->phase == IDEFIX_TCP ||
                  (mqtt->phase >= IDEFIX_SUBSCRIBING && mosquitto_want_write(mqtt->mosquitto));
    struct pollfd polled[] = {
        {.fd = mosquitto_socket(mqtt->mosquitto), .events = (short)(POLLIN | (writes ? POLLOUT : 0))},
        {.fd = wake_fd, .events = POLLIN},
    };
    int code = 0;

    *failure = (struct idefix_failure){0};
    if (poll(polled, 2, compute_wait_ms(mqtt)) < 0)
        polled[0].revents = 0; /* EINTR or no memory: treated like a timeout */
    bool ready = polled[0].revents != 0;
    if (mqtt->phase == IDEFIX_TCP)
        code = check_tcp_connect(mqtt, ready, failure);
    if (code == 0 && mqtt->phase != IDEFIX_TCP)
        code = exchange_packets(mqtt, ready, failure);
    if (code == 0)
        code = advance_handshake(mqtt, failure);
    if (code == 0 && mqtt->phase != IDEFIX_READY && shm_now_ns() >= mqtt->end_ns) {
        mqtt->end.timed_out = true;
        code = report_connection_end(mqtt, failure);
    }
    return code;
}

bool idefix_mqtt_ready(const struct idefix_mqtt *mqtt)
{
    return mqtt->phase == IDEFIX_READY;
}

/* Idefix client, in the connection's thread: sends one frame to the backend, on the topic with its flags. */
int idefix_mqtt_publish(struct idefix_mqtt *mqtt, const char *flags, const void *body, size_t bytes,
                        struct idefix_failure *failure)
{
    char topic[256];

    snprintf(topic, sizeof topic, "ifx/%s/t/%s", mqtt->params->session, flags);
    errno = 0;
    mqtt->end.rc = bytes > MQTT_MAX_PAYLOAD
                       ? MOSQ_ERR_PAYLOAD_SIZE
                       : mosquitto_publish(mqtt->mosquitto, NULL, topic, (int)bytes, body, 1, false);
    mqtt->end.errnum = errno;
    return mqtt->end.rc == MOSQ_ERR_SUCCESS ? 0 : report_connection_end(mqtt, failure);
}

/* Idefix client, in the connection's thread: disconnects from the broker and frees the connection object.
 * Waits half a second at most until the DISCONNECT packet is sent. Accepts NULL. */
void idefix_mqtt_close(struct idefix_mqtt **mqtt)
{
    struct idefix_mqtt *old = *mqtt;

    if (old == NULL)
        return;
    *mqtt = NULL;
    if (old->mosquitto != NULL && old->phase >= IDEFIX_SUBSCRIBING && mosquitto_socket(old->mosquitto) >= 0) {
        uint64_t end = shm_now_ns() + DISCONNECT_MS * MS;
        int rc = mosquitto_disconnect(old->mosquitto);
        while (rc == MOSQ_ERR_SUCCESS && mosquitto_socket(old->mosquitto) >= 0 &&
               mosquitto_want_write(old->mosquitto) && shm_now_ns() < end) {
            struct pollfd polled = {.fd = mosquitto_socket(old->mosquitto), .events = POLLOUT};
            poll(&polled, 1, 50);
            rc = mosquitto_loop_write(old->mosquitto, 1);
        }
    }
    if (old->mosquitto != NULL)
        mosquitto_destroy(old->mosquitto);
    free(old);
}
