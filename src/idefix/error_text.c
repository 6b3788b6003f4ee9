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

/* Writes the error message for a broker whose host name cannot be resolved, and returns EP_EBACKEND. The
 * connection thread of an Idefix client calls it. */
int idefix_error_text_report_resolver(const struct idefix_mqtt_params *params, int gai_code,
                                      struct idefix_failure *failure)
{
    failure->unreachable = true;
    return base_error_set(&failure->error, EP_EBACKEND,
                          "no connection to %s: the name \"%s\" cannot be resolved: %s", params->address,
                          params->broker.host, gai_strerror(gai_code));
}

/* Writes the error message for a broker that did not accept the TCP connection, or did not do so in
 * time. Returns EP_EBACKEND. Runs in the connection thread of an Idefix client. */
static int report_tcp_failure(const struct idefix_mqtt_params *params,
                              const struct idefix_end_reason *end_reason, struct idefix_failure *failure)
{
    failure->unreachable = true;
    if (end_reason->timed_out)
        return base_error_set(&failure->error, EP_EBACKEND,
                              "no connection to %s: timed out after %g s, nothing answers there",
                              params->address, ms_to_seconds(params->connect_timeout_ms));
    bool has_reason = end_reason->errnum > 0 && end_reason->errnum != EAGAIN &&
                      end_reason->errnum != EINPROGRESS && end_reason->errnum != ENOTCONN;
    return base_error_set(&failure->error, EP_EBACKEND, "no connection to %s: %s", params->address,
                          has_reason ? strerror(end_reason->errnum) : "the connection failed");
}

/* Writes the error message for a broker whose TLS certificate is refused, and says whether to check
 * ca_file or the host name. Returns EP_EAUTH. Runs in the connection thread of an Idefix client. */
static int report_certificate_failure(const struct idefix_mqtt_params *params,
                                      const struct idefix_end_reason *end_reason,
                                      struct idefix_failure *failure)
{
    const char *openssl_reason =
        end_reason->first_error_text[0] != '\0' ? end_reason->first_error_text : "certificate verify failed";

    if (end_reason->certificate_wrong_host)
        return base_error_set(
            &failure->error, EP_EAUTH,
            "%s: the broker's certificate is refused: it is not for the name \"%s\" (is this "
            "the host in `broker`?)",
            params->address, params->broker.host);
    if (params->ca_file != NULL)
        return base_error_set(
            &failure->error, EP_EAUTH,
            "%s: the broker's certificate is refused: %s (does ca_file %s hold the certificate of the "
            "authority that signed it?)",
            params->address, openssl_reason, params->ca_file);
    return base_error_set(
        &failure->error, EP_EAUTH,
        "%s: the broker's certificate is refused: %s (if this system does not know the authority that "
        "signed it, set ca_file)",
        params->address, openssl_reason);
}

/* Writes the error message for a broker that refuses the MQTT connection (CONNACK), most often because
 * of the user or password. Returns EP_EAUTH, or EP_EBACKEND for another reason. Runs in the connection
 * thread of an Idefix client. */
static int report_refused_login(const struct idefix_mqtt_params *params,
                                const struct idefix_end_reason *end_reason, struct idefix_failure *failure)
{
    int code = end_reason->connack_code == 2 || end_reason->connack_code == 4 || end_reason->connack_code == 5
                   ? EP_EAUTH
                   : EP_EBACKEND;

    if (end_reason->connack_code == 2)
        return base_error_set(&failure->error, code, "%s: the broker refuses the session ID \"%s\"",
                              params->address, params->session);
    if (code == EP_EAUTH)
        return base_error_set(&failure->error, code,
                              "%s: the broker refuses the MQTT user \"%s\" or its password (%s)",
                              params->address, params->user,
                              mosquitto_connack_string(end_reason->connack_code));
    return base_error_set(&failure->error, code, "%s: the broker refuses the connection: %s", params->address,
                          mosquitto_connack_string(end_reason->connack_code));
}

/* Returns a phrase that says why an MQTT connection broke, such as "the broker closed it". The messages
 * for failed and lost connections end with it. Runs in the connection thread of an Idefix client. */
static const char *describe_loss(const struct idefix_end_reason *end_reason)
{
    switch (end_reason->mosquitto_code) {
    case MOSQ_ERR_CONN_LOST:
        return end_reason->errnum == ECONNRESET ? "the broker reset it" : "the broker closed it";
    case MOSQ_ERR_KEEPALIVE:
        return "the broker does not answer any more";
    case MOSQ_ERR_PROTOCOL:
    case MOSQ_ERR_MALFORMED_PACKET:
    case MOSQ_ERR_MALFORMED_UTF8:
        return "it sent data that is not MQTT";
    case MOSQ_ERR_TLS:
        return end_reason->first_error_text[0] != '\0' ? end_reason->first_error_text : "TLS failed";
    case MOSQ_ERR_ERRNO:
        return end_reason->errnum > 0 ? strerror(end_reason->errnum) : "network error";
    default:
        return mosquitto_strerror(end_reason->mosquitto_code);
    }
}

/* Writes the error message for a connection that failed after TCP and before the broker's CONNACK: the
 * broker was silent, the port is wrong, or only one side uses TLS. Returns EP_EBACKEND. Runs in the
 * connection thread of an Idefix client. */
static int report_handshake_failure(const struct idefix_mqtt_params *params,
                                    const struct idefix_end_reason *end_reason,
                                    struct idefix_failure *failure)
{
    bool uses_tls = params->broker.tls;

    if (end_reason->timed_out)
        return base_error_set(&failure->error, EP_EBACKEND,
                              "%s accepts connections but stays silent: no %s within %g s", params->address,
                              uses_tls ? "TLS handshake and MQTT greeting (CONNACK)"
                                       : "MQTT greeting (CONNACK)",
                              ms_to_seconds(params->connect_timeout_ms));
    failure->unreachable = end_reason->mosquitto_code ==
                           MOSQ_ERR_CONN_LOST; /* a proxy closes at once if there is no broker behind it */
    if (uses_tls)
        return base_error_set(
            &failure->error, EP_EBACKEND,
            "%s: the connection failed before the broker's greeting: %s (does that port speak TLS?)",
            params->address, describe_loss(end_reason));
    return base_error_set(
        &failure->error, EP_EBACKEND,
        "%s: the connection failed before the broker's greeting: %s (is it an MQTT broker, and "
        "without TLS?)",
        params->address, describe_loss(end_reason));
}

/* Writes the error message for an Idefix client's MQTT connection that failed or was lost, depending on
 * how far it had come, and returns the error code. A producer logs this message when a fetch fails; a
 * library caller gets it from the call. */
int idefix_error_text_report_connection(const struct idefix_mqtt_params *params,
                                        const struct idefix_end_reason *end_reason,
                                        struct idefix_failure *failure)
{
    if (end_reason->mosquitto_code == MOSQ_ERR_NOMEM)
        return base_error_set(&failure->error, EP_ENOMEM, "out of memory for the connection to %s",
                              params->address);
    if (end_reason->certificate_refused && end_reason->phase <= IDEFIX_HANDSHAKE)
        return report_certificate_failure(params, end_reason, failure);
    if (end_reason->phase == IDEFIX_TCP)
        return report_tcp_failure(params, end_reason, failure);
    if (end_reason->connack_code > 0)
        return report_refused_login(params, end_reason, failure);
    if (end_reason->phase == IDEFIX_HANDSHAKE)
        return report_handshake_failure(params, end_reason, failure);
    if (end_reason->timed_out)
        return base_error_set(&failure->error, EP_EBACKEND,
                              "%s: the broker does not confirm the subscription to ifx/%s/r/+ within %g s",
                              params->address, params->session, ms_to_seconds(params->connect_timeout_ms));
    failure->lost = true;
    return base_error_set(&failure->error, EP_EBACKEND, "connection to %s lost: %s", params->address,
                          describe_loss(end_reason));
}

/* ---- errors that a backend reports */

/* Returns the length of the secret (token or password) if the backend's error text begins with it here,
 * otherwise 0. An empty or missing secret is never found. Part of the Idefix client, in a producer or a
 * library caller. */
static size_t measure_leading_secret(const char *text, const char *secret)
{
    size_t secret_bytes = secret == NULL ? 0 : strlen(secret);
    return secret_bytes > 0 && strncmp(text, secret, secret_bytes) == 0 ? secret_bytes : 0;
}

/* Copies the error text of an Idefix backend for a message, cut to out_size. Token and password become
 * ***, because a backend may repeat what the login sent and others read the logs; control characters
 * become spaces. Part of the Idefix client, in a producer or a library caller. */
static void copy_without_secrets(const struct idefix_source_config *config, const char *rest, char *out,
                                 size_t out_size)
{
    const char *text_end = rest + strlen(rest);
    size_t used_bytes = 0;

    while (rest < text_end && used_bytes + 8 < out_size) {
        size_t character_bytes = base_utf8_length(rest, text_end),
               secret_bytes = measure_leading_secret(rest, config->token);
        if (secret_bytes == 0)
            secret_bytes = measure_leading_secret(rest, config->password);
        if (secret_bytes > 0) {
            used_bytes += (size_t)sprintf(out + used_bytes, "***");
            rest += secret_bytes;
        } else if (character_bytes == 0 || base_utf8_is_control(rest, character_bytes)) {
            out[used_bytes++] = character_bytes == 0 ? '?' : ' ';
            rest += character_bytes > 0 ? character_bytes : 1;
        } else {
            memcpy(out + used_bytes, rest, character_bytes);
            used_bytes += character_bytes;
            rest += character_bytes;
        }
    }
    out[used_bytes] = '\0';
}

/* Writes the error message for an answer in which the Idefix backend reports an error, such as a bad
 * token, a wrong setting or an expired login. Returns the error code that the caller of the request gets.
 * Part of the Idefix client, in a producer or a library caller. */
int idefix_error_text_report_answer(const struct idefix_source_config *config, const char *command,
                                    const struct idefix_message *message, struct idefix_failure *failure)
{
    const char *setting = NULL, *account = config->account != NULL ? config->account : "";
    char backend_text[BACKEND_TEXT_BYTES];

    copy_without_secrets(config, message->error, backend_text, sizeof backend_text);
    failure->backend_code = message->error_code;
    switch (idefix_error_verdict(message->error_code, &setting)) {
    case IDEFIX_REFUSED:
        if (message->error_code == 201)
            return base_error_set(&failure->error, EP_EAUTH,
                                  "the backend refuses the token of account %s (%s): %s", account, command,
                                  backend_text);
        return base_error_set(&failure->error, EP_EAUTH, "the backend refuses account %s (%s): %s", account,
                              command, backend_text);
    case IDEFIX_SETTING:
        if (strcmp(command, "login") == 0)
            setting = "account"; /* the only address and domain in a login */
        if (setting == NULL)
            return base_error_set(&failure->error, EP_ECONFIG,
                                  "the backend does not accept a setting (%s): %s", command, backend_text);
        return base_error_set(&failure->error, EP_ECONFIG,
                              "the backend does not accept the setting `%s` (%s): %s", setting, command,
                              backend_text);
    case IDEFIX_SESSION:
        return base_error_set(&failure->error, EP_EBACKEND,
                              "the backend no longer accepts the login (%s): %s", command, backend_text);
    case IDEFIX_NOTHING_YET:
    case IDEFIX_FAILED:
        break;
    }
    return base_error_set(&failure->error, EP_EBACKEND, "the backend answers %s with an error: %s", command,
                          backend_text);
}
