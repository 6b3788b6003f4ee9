/* SPDX-License-Identifier: MIT */
/*
 * Writes the messages for an Idefix client's failures: which broker, what happened, what to check. Pure.
 * The link's thread uses it for connections, the calling thread for answers.
 *
 * Invariants
 *  1. No message contains the token or the MQTT password, not even if a backend repeats them.
 *  2. Text from a backend is cut, and control characters are removed from it.
 */
#include <errno.h>
#include <inttypes.h>
#include <mosquitto.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "src/base/utf8.h"
#include "src/idefix/client.h"
#include "src/idefix/mqtt.h"

#define BACKEND_TEXT_BYTES 300

static double ms_to_seconds(uint64_t ms)
{
    return (double)ms / 1000;
}

/* Idefix client, in the connection's thread: writes the error message for a broker whose host name cannot be
 * resolved. */
int idefix_error_text_resolver(const struct idefix_mqtt_params *params, int gai_code,
                               struct idefix_failure *failure)
{
    failure->unreachable = true;
    return base_error_set(&failure->error, EP_EBACKEND,
                          "no connection to %s: the name \"%s\" cannot be resolved: %s", params->address,
                          params->broker.host, gai_strerror(gai_code));
}

/* Idefix client, in the connection's thread: writes the error message for a broker that did not accept the
 * TCP connection, or not in time. */
static int describe_tcp_failure(const struct idefix_mqtt_params *params, const struct idefix_end *end,
                                struct idefix_failure *failure)
{
    failure->unreachable = true;
    if (end->timed_out)
        return base_error_set(&failure->error, EP_EBACKEND,
                              "no connection to %s: timed out after %g s, nothing answers there",
                              params->address, ms_to_seconds(params->connect_timeout_ms));
    bool known =
        end->errnum > 0 && end->errnum != EAGAIN && end->errnum != EINPROGRESS && end->errnum != ENOTCONN;
    return base_error_set(&failure->error, EP_EBACKEND, "no connection to %s: %s", params->address,
                          known ? strerror(end->errnum) : "the connection failed");
}

/* Idefix client, in the connection's thread: writes the error message for a broker whose TLS certificate is
 * not trusted, and says whether to check ca_file or the host name. */
static int describe_certificate_failure(const struct idefix_mqtt_params *params, const struct idefix_end *end,
                                        struct idefix_failure *failure)
{
    const char *said = end->said[0] != '\0' ? end->said : "certificate verify failed";

    if (end->wrong_name)
        return base_error_set(&failure->error, EP_EAUTH,
                              "%s: the broker's certificate is refused: it is not for the name \"%s\"",
                              params->address, params->broker.host);
    if (params->ca_file != NULL)
        return base_error_set(
            &failure->error, EP_EAUTH,
            "%s: the broker's certificate is refused: %s (does ca_file %s hold the certificate of the "
            "authority that signed it?)",
            params->address, said, params->ca_file);
    return base_error_set(
        &failure->error, EP_EAUTH,
        "%s: the broker's certificate is refused: %s (if this system does not know the authority that "
        "signed it, set ca_file)",
        params->address, said);
}

/* Idefix client, in the connection's thread: writes the error message for an MQTT broker that refuses the
 * connection (CONNACK), most often because of the user or password. */
static int describe_refused_login(const struct idefix_mqtt_params *params, const struct idefix_end *end,
                                  struct idefix_failure *failure)
{
    int code = end->connack == 2 || end->connack == 4 || end->connack == 5 ? EP_EAUTH : EP_EBACKEND;

    if (end->connack == 2)
        return base_error_set(&failure->error, code, "%s: the broker refuses the session ID \"%s\"",
                              params->address, params->session);
    if (code == EP_EAUTH)
        return base_error_set(&failure->error, code,
                              "%s: the broker refuses the MQTT user \"%s\" or its password (%s)",
                              params->address, params->user, mosquitto_connack_string(end->connack));
    return base_error_set(&failure->error, code, "%s: the broker refuses the connection: %s", params->address,
                          mosquitto_connack_string(end->connack));
}

/* Idefix client, in the connection's thread: returns a phrase that says why an MQTT connection broke, for
 * error messages. */
static const char *describe_lost_connection(const struct idefix_end *end)
{
    switch (end->rc) {
    case MOSQ_ERR_CONN_LOST:
        return end->errnum == ECONNRESET ? "the broker reset it" : "the broker closed it";
    case MOSQ_ERR_KEEPALIVE:
        return "the broker does not answer any more";
    case MOSQ_ERR_PROTOCOL:
    case MOSQ_ERR_MALFORMED_PACKET:
    case MOSQ_ERR_MALFORMED_UTF8:
        return "it sent data that is not MQTT";
    case MOSQ_ERR_TLS:
        return end->said[0] != '\0' ? end->said : "TLS failed";
    case MOSQ_ERR_ERRNO:
        return end->errnum > 0 ? strerror(end->errnum) : "network error";
    default:
        return mosquitto_strerror(end->rc);
    }
}

/* Idefix client, in the connection's thread: writes the error message for a connection that failed between
 * TCP and the broker's greeting (CONNACK): silence, a wrong port, TLS on one side only. */
static int describe_handshake_failure(const struct idefix_mqtt_params *params, const struct idefix_end *end,
                                      struct idefix_failure *failure)
{
    bool tls = params->broker.tls;

    if (end->timed_out)
        return base_error_set(&failure->error, EP_EBACKEND,
                              "%s accepts connections but stays silent: no %s within %g s", params->address,
                              tls ? "TLS handshake and MQTT greeting (CONNACK)" : "MQTT greeting (CONNACK)",
                              ms_to_seconds(params->connect_timeout_ms));
    failure->unreachable =
        end->rc == MOSQ_ERR_CONN_LOST; /* a proxy closes at once if there is no broker behind it */
    if (tls)
        return base_error_set(
            &failure->error, EP_EBACKEND,
            "%s: the connection failed before the broker's greeting: %s (does that port speak TLS?)",
            params->address, describe_lost_connection(end));
    return base_error_set(
        &failure->error, EP_EBACKEND,
        "%s: the connection failed before the broker's greeting: %s (is it an MQTT broker, and "
        "without TLS?)",
        params->address, describe_lost_connection(end));
}

/* Idefix client, in the connection's thread: writes the error message for an MQTT connection that failed or
 * was lost, by how far it had come. Producers log this message when a fetch fails. */
int idefix_error_text_end(const struct idefix_mqtt_params *params, const struct idefix_end *end,
                          struct idefix_failure *failure)
{
    if (end->rc == MOSQ_ERR_NOMEM)
        return base_error_set(&failure->error, EP_ENOMEM, "no memory for the connection to %s",
                              params->address);
    if (end->certificate && end->phase <= IDEFIX_HELLO)
        return describe_certificate_failure(params, end, failure);
    if (end->phase == IDEFIX_TCP)
        return describe_tcp_failure(params, end, failure);
    if (end->connack > 0)
        return describe_refused_login(params, end, failure);
    if (end->phase == IDEFIX_HELLO)
        return describe_handshake_failure(params, end, failure);
    if (end->timed_out)
        return base_error_set(&failure->error, EP_EBACKEND,
                              "%s: the broker does not confirm the subscription to ifx/%s/r/+ within %g s",
                              params->address, params->session, ms_to_seconds(params->connect_timeout_ms));
    failure->lost = true;
    return base_error_set(&failure->error, EP_EBACKEND, "connection to %s lost: %s", params->address,
                          describe_lost_connection(end));
}

/* ---- errors that a backend reports */

/* Idefix client: returns the length of the secret if the text begins with it, otherwise 0. */
static size_t match_secret(const char *text, const char *secret)
{
    size_t bytes = secret == NULL ? 0 : strlen(secret);
    return bytes > 0 && strncmp(text, secret, bytes) == 0 ? bytes : 0;
}

/* Idefix client, in a producer or the library's caller: copies a backend's error text for a message. Token
 * and password become ***, control characters become spaces: a backend may repeat what the login sent, and
 * logs are read by others. */
static void copy_without_secrets(const struct idefix_source_config *config, const char *text, char *out,
                                 size_t room)
{
    const char *end = text + strlen(text);
    size_t used = 0;

    while (text < end && used + 8 < room) {
        size_t length = base_utf8_length(text, end), secret = match_secret(text, config->token);
        if (secret == 0)
            secret = match_secret(text, config->password);
        if (secret > 0) {
            used += (size_t)sprintf(out + used, "***");
            text += secret;
        } else if (length == 0 || base_utf8_is_control(text, length)) {
            out[used++] = length == 0 ? '?' : ' ';
            text += length > 0 ? length : 1;
        } else {
            memcpy(out + used, text, length);
            used += length;
            text += length;
        }
    }
    out[used] = '\0';
}

/* Idefix client, in a producer or the library's caller: writes the error message for an answer in which the
 * backend reports an error: bad token, wrong setting, invalid session. */
int idefix_error_text_answer(const struct idefix_source_config *config, const char *command,
                             const struct idefix_message *message, struct idefix_failure *failure)
{
    const char *setting = NULL, *account = config->account != NULL ? config->account : "";
    char said[BACKEND_TEXT_BYTES];

    copy_without_secrets(config, message->error, said, sizeof said);
    failure->backend_code = message->error_code;
    switch (idefix_error_verdict(message->error_code, &setting)) {
    case IDEFIX_REFUSED:
        if (message->error_code == 201)
            return base_error_set(&failure->error, EP_EAUTH,
                                  "the backend refuses the token of account %s (%s): %s", account, command,
                                  said);
        return base_error_set(&failure->error, EP_EAUTH, "the backend refuses account %s (%s): %s", account,
                              command, said);
    case IDEFIX_SETTING:
        if (strcmp(command, "login") == 0)
            setting = "account"; /* the only address and domain in a login */
        if (setting == NULL)
            return base_error_set(&failure->error, EP_ECONFIG,
                                  "the backend does not accept a setting (%s): %s", command, said);
        return base_error_set(&failure->error, EP_ECONFIG,
                              "the backend does not accept the setting `%s` (%s): %s", setting, command,
                              said);
    case IDEFIX_SESSION:
        return base_error_set(&failure->error, EP_EBACKEND,
                              "the backend no longer accepts the login (%s): %s", command, said);
    case IDEFIX_NOTHING_YET:
    case IDEFIX_FAILED:
        break;
    }
    return base_error_set(&failure->error, EP_EBACKEND, "the backend answers %s with an error: %s", command,
                          said);
}
