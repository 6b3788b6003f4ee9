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

#define NS_PER_MS UINT64_C(1000000)
#define TICK_MS 1000          /* mosquitto_loop_misc needs a call about once a second */
#define HANDSHAKE_TICK_MS 250 /* invariant 2 */
#define DISCONNECT_MS 500
#define REFUSED_QOS 128

struct idefix_mqtt {
    const struct idefix_mqtt_params *params;
    struct mosquitto *mosquitto;
    idefix_mqtt_on_frame *on_frame;
    void *user;
    enum idefix_phase phase;
    uint64_t deadline_ns, tcp_deadline_ns; /* deadlines: of connecting, and of TCP with this address family */
    int family;                            /* of the socket */
    bool other_family_tried;               /* or there is no other family to try */
    int subscribe_id;                      /* message id */
    int granted_qos;                       /* -1 = no SUBACK yet */
    struct idefix_end_reason end_reason;
};

static void library_init(void)
{
    mosquitto_lib_init();
}

/* ---- callbacks, called by libmosquitto in the functions below */

/* Returns OpenSSL's reason for refusing the broker's certificate, which is in no log line, or NULL if it
 * is unknown. libmosquitto brings libssl with it, so the two functions of libssl are looked up at run
 * time and may be missing. Runs in the connection thread of an Idefix client. */
static const char *find_certificate_error(struct mosquitto *mosquitto)
{
    void *ssl = mosquitto_ssl_get(mosquitto);
    long (*get_verify_result)(const void *) =
        (long (*)(const void *))dlsym(RTLD_DEFAULT, "SSL_get_verify_result");
    const char *(*describe_error)(long) =
        (const char *(*)(long))dlsym(RTLD_DEFAULT, "X509_verify_cert_error_string");
    if (ssl == NULL || get_verify_result == NULL || describe_error == NULL || get_verify_result(ssl) == 0)
        return NULL;
    return describe_error(get_verify_result(ssl));
}

/* Callback for libmosquitto's log lines: keeps the first error text for the message to the operator, and
 * notes whether the broker's certificate was refused. Runs in the connection thread of an Idefix client. */
static void on_log(struct mosquitto *mosquitto, void *user, int level, const char *log_text)
{
    struct idefix_end_reason *end_reason = &((struct idefix_mqtt *)user)->end_reason;
    if (level != MOSQ_LOG_ERR && level != MOSQ_LOG_WARNING)
        return;
    if (strstr(log_text, "host name verification failed") != NULL)
        end_reason->certificate_refused = end_reason->certificate_wrong_host = true;
    const char *reason = NULL;
    if (strstr(log_text, "certificate verify failed") != NULL) {
        end_reason->certificate_refused = true;
        reason = find_certificate_error(mosquitto);
    }
    const char *last_part =
        strrchr(log_text, ':'); /* of "OpenSSL Error[0]: error:0A000086:SSL routines::text" */
    if (reason == NULL)
        reason = strstr(log_text, "OpenSSL") != NULL && last_part != NULL && last_part[1] != '\0'
                     ? last_part + 1
                     : log_text;
    if (strstr(reason, "hostname mismatch") != NULL || strstr(reason, "IP address mismatch") != NULL)
        end_reason->certificate_wrong_host = true;
    if (end_reason->first_error_text[0] == '\0')
        snprintf(end_reason->first_error_text, sizeof end_reason->first_error_text, "%s", reason);
}

static void on_connect(struct mosquitto *mosquitto, void *user, int code)
{
    (void)mosquitto;
    ((struct idefix_mqtt *)user)->end_reason.connack_code = code;
}

/* Callback for the broker's answer to the subscription (SUBACK): keeps the granted quality of service,
 * by which advance_subscription sees whether the broker refused. Runs in the connection thread of an
 * Idefix client. */
static void on_subscribe(struct mosquitto *mosquitto, void *user, int message_id, int count,
                         const int *granted_qos_list)
{
    struct idefix_mqtt *mqtt = user;
    (void)mosquitto;
    if (message_id == mqtt->subscribe_id && count > 0)
        mqtt->granted_qos = granted_qos_list[0];
}

/* Callback for a message from the broker: passes it to the link, which queues it, together with the
 * flags at the end of its topic. Runs in the connection thread of an Idefix client. */
static void on_message(struct mosquitto *mosquitto, void *user, const struct mosquitto_message *message)
{
    struct idefix_mqtt *mqtt = user;
    const char *flags = strrchr(message->topic, '/');
    (void)mosquitto;
    if (flags != NULL && message->payloadlen >= 0)
        mqtt->on_frame(flags + 1, message->payload, (size_t)message->payloadlen, mqtt->user);
}

/* ---- libmosquitto's client */

/* Sets callbacks, protocol version, user, password and TLS of a new libmosquitto client. Returns 0 or an
 * error code with a message. Runs in the connection thread of an Idefix client. */
static int configure_client(struct idefix_mqtt *mqtt, struct idefix_failure *failure)
{
    const struct idefix_mqtt_params *params = mqtt->params;
    struct mosquitto *mosquitto = mqtt->mosquitto;

    mosquitto_log_callback_set(mosquitto, on_log);
    mosquitto_connect_callback_set(mosquitto, on_connect);
    mosquitto_subscribe_callback_set(mosquitto, on_subscribe);
    mosquitto_message_callback_set(mosquitto, on_message);
    int mosquitto_code = mosquitto_int_option(mosquitto, MOSQ_OPT_PROTOCOL_VERSION, MQTT_PROTOCOL_V311);
    if (mosquitto_code == MOSQ_ERR_SUCCESS)
        mosquitto_code = mosquitto_int_option(mosquitto, MOSQ_OPT_TCP_NODELAY, 1);
    if (mosquitto_code == MOSQ_ERR_SUCCESS)
        mosquitto_code = mosquitto_username_pw_set(mosquitto, params->user, params->password);
    if (mosquitto_code == MOSQ_ERR_SUCCESS && params->broker.tls && params->ca_file == NULL)
        mosquitto_code = mosquitto_int_option(mosquitto, MOSQ_OPT_TLS_USE_OS_CERTS, 1);
    if (mosquitto_code == MOSQ_ERR_SUCCESS && params->broker.tls && params->ca_file != NULL &&
        mosquitto_tls_set(mosquitto, params->ca_file, NULL, NULL, NULL, NULL) != MOSQ_ERR_SUCCESS)
        return base_error_set(&failure->error, EP_ECONFIG, "%s: ca_file %s cannot be read", params->address,
                              params->ca_file);
    if (mosquitto_code == MOSQ_ERR_NOMEM)
        return base_error_set(&failure->error, EP_ENOMEM, "out of memory for the connection to %s",
                              params->address);
    if (mosquitto_code != MOSQ_ERR_SUCCESS)
        return base_error_set(&failure->error, EP_ESYSTEM,
                              "no connection to %s: libmosquitto rejects an option: %s", params->address,
                              mosquitto_strerror(mosquitto_code));
    return 0;
}

/* Creates a libmosquitto client, or returns NULL with errno. mosquitto_new makes the whole process
 * ignore SIGPIPE, which is for the program to decide; so this restores the former setting. Runs in the
 * connection thread of an Idefix client. */
static struct mosquitto *create_client(const char *session, void *user)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct sigaction old_action;

    pthread_once(&once, library_init);
    bool has_old_action = sigaction(SIGPIPE, NULL, &old_action) == 0;
    struct mosquitto *mosquitto = mosquitto_new(session, true, user);
    int errnum = errno;
    if (has_old_action)
        sigaction(SIGPIPE, &old_action, NULL);
    errno = errnum;
    return mosquitto;
}

/* Replaces the libmosquitto client by a new one before each connect(): with TLS, a second connect() of
 * the same client fails in libmosquitto 2.0. Returns 0 or an error code with a message. Runs in the
 * connection thread of an Idefix client. */
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

/* Begins to connect to one of the broker's addresses: of the family of bind_address, or of any family if
 * it is NULL. Returns 0 or libmosquitto's code. Blocks while the system resolves the broker's name. Runs
 * in the connection thread of an Idefix client. */
static int begin_tcp_connect(struct idefix_mqtt *mqtt, const char *bind_address)
{
    const struct idefix_broker *broker = &mqtt->params->broker;
    struct sockaddr_storage own_address = {.ss_family = AF_UNSPEC};
    socklen_t address_bytes = sizeof own_address;

    errno = 0;
    int mosquitto_code = mosquitto_connect_bind_async(mqtt->mosquitto, broker->host, broker->port,
                                                      IDEFIX_KEEPALIVE_S, bind_address);
    /* If the connection was refused before the handshake began, only errno says so. */
    mqtt->end_reason.errnum = errno;
    mqtt->end_reason.mosquitto_code = mosquitto_code;
    int fd = mosquitto_socket(mqtt->mosquitto);
    if (mosquitto_code != MOSQ_ERR_SUCCESS || fd < 0)
        return mosquitto_code != MOSQ_ERR_SUCCESS ? mosquitto_code : MOSQ_ERR_NO_CONN;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (getsockname(fd, (struct sockaddr *)&own_address, &address_bytes) == 0)
        mqtt->family = own_address.ss_family;
    else
        mqtt->family = AF_UNSPEC;
    return 0;
}

/* Begins to connect over IPv4 after IPv6 has failed, or the reverse, once. Returns whether it has begun;
 * if not, the failure of the first family is kept for the message. Runs in the connection thread of an
 * Idefix client. */
static bool try_other_address_family(struct idefix_mqtt *mqtt)
{
    const struct idefix_end_reason first_family_reason = mqtt->end_reason;
    const char *other_bind_address = mqtt->family == AF_INET6 ? "0.0.0.0" : "::";
    struct idefix_failure ignored_failure = {0};
    bool has_begun = false;

    if (!mqtt->other_family_tried && mqtt->family != AF_UNSPEC)
        has_begun =
            replace_client(mqtt, &ignored_failure) == 0 && begin_tcp_connect(mqtt, other_bind_address) == 0;
    mqtt->other_family_tried = true;
    if (!has_begun)
        mqtt->end_reason = first_family_reason;
    mqtt->tcp_deadline_ns = mqtt->deadline_ns;
    return has_begun;
}

static int report_connection_end(struct idefix_mqtt *mqtt, struct idefix_failure *failure)
{
    mqtt->end_reason.phase = mqtt->phase;
    return idefix_error_text_report_connection(mqtt->params, &mqtt->end_reason, failure);
}

/* Checks whether the TCP connection is made, has failed or has timed out. After a failure the other
 * address family is tried once. Returns 0 while connecting goes on or has succeeded, otherwise an error
 * code with a message. Runs in the connection thread of an Idefix client. */
static int check_tcp_connect(struct idefix_mqtt *mqtt, bool is_socket_ready, struct idefix_failure *failure)
{
    struct sockaddr_storage peer;
    socklen_t option_bytes = sizeof peer;
    int socket_fd = mosquitto_socket(mqtt->mosquitto), errnum = 0;

    if (is_socket_ready && getpeername(socket_fd, (struct sockaddr *)&peer, &option_bytes) == 0) {
        mqtt->phase = IDEFIX_HANDSHAKE;
        return 0;
    }
    if (!is_socket_ready && shm_now_ns() < mqtt->tcp_deadline_ns)
        return 0;
    mqtt->end_reason.timed_out = !is_socket_ready;
    option_bytes = sizeof errnum;
    if (is_socket_ready && getsockopt(socket_fd, SOL_SOCKET, SO_ERROR, &errnum, &option_bytes) == 0 &&
        errnum != 0)
        mqtt->end_reason.errnum = errnum;
    if (is_socket_ready && (mqtt->end_reason.errnum == ECONNRESET || mqtt->end_reason.errnum == EPIPE)) {
        /* The connection was made and is already closed. */
        mqtt->phase = IDEFIX_HANDSHAKE;
        mqtt->end_reason.mosquitto_code = MOSQ_ERR_CONN_LOST;
        return report_connection_end(mqtt, failure);
    }
    if (try_other_address_family(mqtt)) {
        mqtt->end_reason.timed_out = false;
        return 0;
    }
    return report_connection_end(mqtt, failure);
}

/* ---- from connecting to closing */

/* Begins to connect to the broker and sets the deadline for it. Returns 0 or an error code with a
 * message for the operator. Runs in the connection thread of an Idefix client. */
static int begin_connection(struct idefix_mqtt *mqtt, struct idefix_failure *failure)
{
    uint64_t timeout_ns = mqtt->params->connect_timeout_ms * NS_PER_MS;
    int mosquitto_code = begin_tcp_connect(mqtt, NULL);

    /* The timeout starts here, so that a slow resolver does not use up the connection's time. */
    mqtt->deadline_ns = shm_now_ns() + timeout_ns;
    mqtt->tcp_deadline_ns = mqtt->deadline_ns - timeout_ns / 2;
    if (mosquitto_code == 0)
        return 0;
    if (mosquitto_code == MOSQ_ERR_EAI)
        return idefix_error_text_report_resolver(mqtt->params, mqtt->end_reason.errnum, failure);
    if (mosquitto_code == MOSQ_ERR_TLS &&
        strstr(mqtt->end_reason.first_error_text, "Unable to load CA") != NULL)
        return base_error_set(&failure->error, EP_ECONFIG,
                              "%s: TLS cannot be set up: ca_file %s holds no certificate",
                              mqtt->params->address, mqtt->params->ca_file);
    if (mosquitto_code == MOSQ_ERR_TLS) { /* a peer on this machine answered at once */
        mqtt->phase = IDEFIX_HANDSHAKE;
        return report_connection_end(mqtt, failure);
    }
    /* Refused at once, so the family is unknown. This happens on this machine only ("localhost"). */
    mqtt->family = AF_INET6;
    if (mosquitto_code == MOSQ_ERR_ERRNO && try_other_address_family(mqtt))
        return 0;
    return report_connection_end(mqtt, failure);
}

/* Makes an MQTT connection object and begins to connect to the broker. BLOCKS while the system resolves
 * the broker's name. Returns 0 and sets *out, or an error code with a message. The connection thread of
 * an Idefix client calls it. */
int idefix_mqtt_open(const struct idefix_mqtt_params *params, idefix_mqtt_on_frame *on_frame, void *user,
                     struct idefix_mqtt **out, struct idefix_failure *failure)
{
    struct idefix_mqtt *mqtt = calloc(1, sizeof *mqtt);
    int code;

    *failure = (struct idefix_failure){0};
    if (mqtt == NULL)
        return base_error_set(&failure->error, EP_ENOMEM, "out of memory for the connection to %s",
                              params->address);
    *mqtt = (struct idefix_mqtt){.params = params, .on_frame = on_frame, .user = user, .granted_qos = -1};
    mqtt->end_reason.connack_code = -1;
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

/* Returns whether the broker has closed the connection during the handshake, and notes that as its end.
 * libmosquitto 2.0 does not notice this and would go on for ever. Bytes that were received before must
 * be read first. Runs in the connection thread of an Idefix client. */
static bool has_peer_closed(struct idefix_mqtt *mqtt)
{
    char byte;
    ssize_t peeked_bytes =
        recv(mosquitto_socket(mqtt->mosquitto), &byte, sizeof byte, MSG_PEEK | MSG_DONTWAIT | MSG_NOSIGNAL);

    if (peeked_bytes > 0 || (peeked_bytes < 0 && (errno == EAGAIN || errno == EINTR)))
        return false;
    mqtt->end_reason.mosquitto_code = MOSQ_ERR_CONN_LOST;
    mqtt->end_reason.errnum = peeked_bytes < 0 ? errno : 0;
    return true;
}

/* Makes the kernel acknowledge received bytes at once. A broker that has sent a PUBACK keeps the answer
 * until TCP acknowledges the PUBACK (Nagle's algorithm); the kernel would delay that by 40 ms for every
 * page of events. */
static void acknowledge_received_bytes(int fd)
{
    setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &(int){1}, sizeof(int));
}

/* Lets libmosquitto read, write and send pings. Returns 0, or an error code with a message if the
 * connection has ended. Runs in the connection thread of an Idefix client. */
static int exchange_packets(struct idefix_mqtt *mqtt, bool is_socket_ready, struct idefix_failure *failure)
{
    struct mosquitto *mosquitto = mqtt->mosquitto;
    int mosquitto_code = MOSQ_ERR_SUCCESS;

    if (mqtt->phase == IDEFIX_HANDSHAKE && has_peer_closed(mqtt))
        return report_connection_end(mqtt, failure);
    errno = 0;
    if (is_socket_ready || mqtt->phase == IDEFIX_HANDSHAKE)
        mosquitto_code = mosquitto_loop_read(mosquitto, 1);
    if (mosquitto_code == MOSQ_ERR_SUCCESS && mosquitto_socket(mosquitto) >= 0 &&
        mosquitto_want_write(mosquitto))
        mosquitto_code = mosquitto_loop_write(mosquitto, 1);
    if (mosquitto_code == MOSQ_ERR_SUCCESS && mosquitto_socket(mosquitto) >= 0)
        mosquitto_code = mosquitto_loop_misc(mosquitto);
    int errnum = errno;
    if (mosquitto_code == MOSQ_ERR_SUCCESS && mosquitto_socket(mosquitto) >= 0) {
        if (is_socket_ready)
            acknowledge_received_bytes(mosquitto_socket(mosquitto));
        return 0;
    }
    mqtt->end_reason.mosquitto_code =
        mosquitto_code == MOSQ_ERR_SUCCESS ? MOSQ_ERR_CONN_LOST : mosquitto_code;
    mqtt->end_reason.errnum = errnum;
    return report_connection_end(mqtt, failure);
}

/* Takes the steps that follow the broker's CONNACK: subscribes to the backend's answers, and checks
 * whether the broker granted that. Returns 0 or an error code with a message. Runs in the connection
 * thread of an Idefix client. */
static int advance_subscription(struct idefix_mqtt *mqtt, struct idefix_failure *failure)
{
    char topic[256];

    if (mqtt->phase == IDEFIX_HANDSHAKE && mqtt->end_reason.connack_code == 0) {
        snprintf(topic, sizeof topic, "ifx/%s/r/+", mqtt->params->session);
        mqtt->phase = IDEFIX_SUBSCRIBING;
        mqtt->end_reason.mosquitto_code = mosquitto_subscribe(mqtt->mosquitto, &mqtt->subscribe_id, topic, 1);
        if (mqtt->end_reason.mosquitto_code != MOSQ_ERR_SUCCESS)
            return report_connection_end(mqtt, failure);
    }
    if (mqtt->phase == IDEFIX_SUBSCRIBING && mqtt->granted_qos >= REFUSED_QOS)
        return base_error_set(
            &failure->error, EP_EAUTH,
            "%s: the broker refuses the subscription to ifx/%s/r/+ (do its access rules allow it to "
            "this MQTT user?)",
            mqtt->params->address, mqtt->params->session);
    if (mqtt->phase == IDEFIX_SUBSCRIBING && mqtt->granted_qos >= 0)
        mqtt->phase = IDEFIX_READY;
    return 0;
}

/* Returns how long poll may wait: until the next ping, the next check of the handshake, or the deadline
 * of connecting. Runs in the connection thread of an Idefix client. */
static int compute_poll_timeout_ms(const struct idefix_mqtt *mqtt)
{
    uint64_t now_ns = shm_now_ns(),
             until_ns = now_ns + (mqtt->phase == IDEFIX_HANDSHAKE ? HANDSHAKE_TICK_MS : TICK_MS) * NS_PER_MS;

    if (mqtt->phase != IDEFIX_READY && until_ns > mqtt->deadline_ns)
        until_ns = mqtt->deadline_ns;
    if (mqtt->phase == IDEFIX_TCP && until_ns > mqtt->tcp_deadline_ns)
        until_ns = mqtt->tcp_deadline_ns;
    return until_ns <= now_ns ? 0 : (int)((until_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS);
}

/* Waits for the network, for wake_fd, or for a second at most; then reads, writes and advances the
 * connection. Returns 0, or an error code with a message if the connection has ended. The connection
 * thread of an Idefix client calls it in its loop. */
int idefix_mqtt_wait_and_exchange(struct idefix_mqtt *mqtt, int wake_fd, struct idefix_failure *failure)
{
    bool wants_write = mqtt->phase == IDEFIX_TCP ||
                       (mqtt->phase >= IDEFIX_SUBSCRIBING && mosquitto_want_write(mqtt->mosquitto));
    struct pollfd poll_fds[] = {
        {.fd = mosquitto_socket(mqtt->mosquitto), .events = (short)(POLLIN | (wants_write ? POLLOUT : 0))},
        {.fd = wake_fd, .events = POLLIN},
    };
    int code = 0;

    *failure = (struct idefix_failure){0};
    if (poll(poll_fds, 2, compute_poll_timeout_ms(mqtt)) < 0)
        poll_fds[0].revents = 0; /* EINTR or no memory: treated like a timeout */
    bool is_socket_ready = poll_fds[0].revents != 0;
    if (mqtt->phase == IDEFIX_TCP)
        code = check_tcp_connect(mqtt, is_socket_ready, failure);
    if (code == 0 && mqtt->phase != IDEFIX_TCP)
        code = exchange_packets(mqtt, is_socket_ready, failure);
    if (code == 0)
        code = advance_subscription(mqtt, failure);
    if (code == 0 && mqtt->phase != IDEFIX_READY && shm_now_ns() >= mqtt->deadline_ns) {
        mqtt->end_reason.timed_out = true;
        code = report_connection_end(mqtt, failure);
    }
    return code;
}

bool idefix_mqtt_ready(const struct idefix_mqtt *mqtt)
{
    return mqtt->phase == IDEFIX_READY;
}

/* Sends one frame to the backend, on the MQTT topic that ends in its flags. Returns 0, or an error code
 * with a message if the connection has ended. Runs in the connection thread of an Idefix client. */
int idefix_mqtt_publish(struct idefix_mqtt *mqtt, const char *flags, const void *body, size_t body_bytes,
                        struct idefix_failure *failure)
{
    char topic[256];

    snprintf(topic, sizeof topic, "ifx/%s/t/%s", mqtt->params->session, flags);
    errno = 0;
    mqtt->end_reason.mosquitto_code =
        body_bytes > MQTT_MAX_PAYLOAD
            ? MOSQ_ERR_PAYLOAD_SIZE
            : mosquitto_publish(mqtt->mosquitto, NULL, topic, (int)body_bytes, body, 1, false);
    mqtt->end_reason.errnum = errno;
    return mqtt->end_reason.mosquitto_code == MOSQ_ERR_SUCCESS ? 0 : report_connection_end(mqtt, failure);
}

/* Disconnects from the broker and frees the connection object. Waits half a second at most until the
 * DISCONNECT packet is sent. Accepts a pointer to NULL. The connection thread of an Idefix client calls
 * it when the connection ends. */
void idefix_mqtt_close(struct idefix_mqtt **mqtt)
{
    struct idefix_mqtt *old = *mqtt;

    if (old == NULL)
        return;
    *mqtt = NULL;
    if (old->mosquitto != NULL && old->phase >= IDEFIX_SUBSCRIBING && mosquitto_socket(old->mosquitto) >= 0) {
        uint64_t deadline_ns = shm_now_ns() + DISCONNECT_MS * NS_PER_MS;
        int mosquitto_code = mosquitto_disconnect(old->mosquitto);
        while (mosquitto_code == MOSQ_ERR_SUCCESS && mosquitto_socket(old->mosquitto) >= 0 &&
               mosquitto_want_write(old->mosquitto) && shm_now_ns() < deadline_ns) {
            struct pollfd poll_fd = {.fd = mosquitto_socket(old->mosquitto), .events = POLLOUT};
            poll(&poll_fd, 1, 50);
            mosquitto_code = mosquitto_loop_write(old->mosquitto, 1);
        }
    }
    if (old->mosquitto != NULL)
        mosquitto_destroy(old->mosquitto);
    free(old);
}
