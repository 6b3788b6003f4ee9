/* SPDX-License-Identifier: MIT */
/*
 * HTTP stages: POST each event to a URL. Runs in workers, with one keep-alive handle each. Owns the
 * handle and its header lists.
 *
 *     2xx   processed; the body is not read as an answer
 *     429   not processed; tried again after Retry-After, else after the backoff
 *     5xx   an error; tried again likewise
 *     4xx   rejected, with the beginning of the body as the reason
 *     3xx   an error: redirects are not followed, because a repeated POST could be sent twice or become a GET
 *     none  (no connection, timeout, cut off) an error; tried again
 *
 * Invariants:
 *   1. Only an HTTP stage initialises libcurl, so that workers of other types pay nothing for it.
 *   2. Messages never hold the user, password or query of the URL.
 */
#include "src/stage/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "src/base/log.h"

#define BODY_SHOWN_BYTES 200
#define BODY_BYTES_MAX \
    ((uint64_t)1 << 20) /* read at most so much of an answer; then only the status counts */
#define RETRY_AFTER_S_MAX ((curl_off_t)24 * 60 * 60) /* a longer Retry-After is cut to this */
#define CONNECT_TIMEOUT_MS 10000
#define KEEP_BYTES ((size_t)1 << 20)

struct http_stage {
    CURL *handle;
    char *shown_url;                  /* without user, password, query */
    struct curl_slist *fixed_headers; /* headers that every request has */
    struct text request_body;
    /* the answer to the current request */
    char status_text[64]; /* " Service Unavailable" */
    char body[BODY_SHOWN_BYTES + 1];
    size_t body_shown_bytes;
    uint64_t body_bytes;
    char curl_error[CURL_ERROR_SIZE];
};

/* ---- the URL ---- */

/* Returns a copy of an HTTP stage's URL without user, password, query and fragment, for messages that
 * others can read. The caller frees it. Returns NULL with the reason in error if the URL is not http:// or
 * https://. Runs in a starting worker, `eventpiped -t` and `eventpipe check`. */
static char *copy_url_without_secrets(const char *url, struct error *error)
{
    char *scheme = NULL, *public_url = NULL, *copy = NULL;
    CURLU *url_parts = curl_url();

    if (url_parts == NULL) {
        base_error_set(error, EP_ENOMEM, "out of memory");
        return NULL;
    }
    CURLUcode code = curl_url_set(url_parts, CURLUPART_URL, url, 0);
    if (code == CURLUE_OK)
        code = curl_url_get(url_parts, CURLUPART_SCHEME, &scheme, 0);
    if (code != CURLUE_OK) {
        base_error_set(error, EP_EINVAL, "url: %s", curl_url_strerror(code));
    } else if (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0) {
        base_error_set(error, EP_EINVAL, "url: expected http:// or https://, found %s://", scheme);
    } else {
        curl_url_set(url_parts, CURLUPART_USER, NULL, 0);
        curl_url_set(url_parts, CURLUPART_PASSWORD, NULL, 0);
        curl_url_set(url_parts, CURLUPART_QUERY, NULL, 0);
        curl_url_set(url_parts, CURLUPART_FRAGMENT, NULL, 0);
        if (curl_url_get(url_parts, CURLUPART_URL, &public_url, 0) == CURLUE_OK)
            copy = strdup(public_url);
        if (copy == NULL)
            base_error_set(error, EP_ENOMEM, "out of memory");
    }
    curl_free(scheme);
    curl_free(public_url);
    curl_url_cleanup(url_parts);
    return copy;
}

/* Checks that the URL of an HTTP stage is valid and its ca_file can be read; sends nothing. Returns 0 or
 * an error code with a message. A starting worker calls it; so do `eventpiped -t`, `eventpipe check` and
 * `eventpipe chaos`, before any process starts. */
int stage_http_check(const struct stage_config *config, struct error *error)
{
    if (config->url == NULL || config->url[0] == '\0')
        return base_error_set(error, EP_EINVAL, "no url is given: set `url`");
    struct error url_error = {0};
    char *shown_url_copy = copy_url_without_secrets(config->url, &url_error);
    if (shown_url_copy == NULL)
        return base_error_set(error, url_error.code, "%s", url_error.message);
    free(shown_url_copy);
    if (config->ca_file != NULL && access(config->ca_file, R_OK) != 0)
        return base_error_set(error, EP_ENOENT, "ca_file %s: cannot be read: %s", config->ca_file,
                              strerror(errno));
    return 0;
}

/* ---- headers ---- */

/* Appends one header line to a libcurl list of an HTTP stage. Returns 0 or EP_ENOMEM, which leaves the
 * list as it was. Runs in a worker. */
static int append_header(struct curl_slist **list, const char *header)
{
    struct curl_slist *longer_list = curl_slist_append(*list, header);
    if (longer_list == NULL)
        return EP_ENOMEM;
    *list = longer_list;
    return 0;
}

/* Returns whether the HTTP stage's configuration has a header of this name, in any case; it then replaces
 * the built-in header. Runs in a starting worker. */
static bool is_header_configured(const struct strings *headers, const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < headers->count; i++)
        if (strncasecmp(headers->at[i], name, length) == 0 && headers->at[i][length] == ':')
            return true;
    return false;
}

/* Makes the headers that every request of an HTTP stage has; configured headers replace the built-in ones.
 * Returns 0 or EP_ENOMEM; the caller frees the list in either case. Runs in a starting worker. */
static int build_fixed_headers(const struct stage_config *config, struct curl_slist **list)
{
    int code = append_header(list, "Expect:"); /* no pause before a large body */

    if (code == 0 && !is_header_configured(&config->headers, "Content-Type"))
        code = append_header(list, "Content-Type: application/json");
    if (code == 0 && config->token != NULL && !is_header_configured(&config->headers, "Authorization")) {
        char *header;
        if (asprintf(&header, "Authorization: Bearer %s", config->token) < 0)
            return EP_ENOMEM;
        code = append_header(list, header);
        explicit_bzero(header, strlen(header));
        free(header);
    }
    for (size_t i = 0; code == 0 && i < config->headers.count; i++)
        code = append_header(list, config->headers.at[i]);
    return code;
}

/* Makes the headers of one request of an HTTP stage: the event's idempotency key and the fixed headers.
 * Returns the list, which the caller frees, or NULL if out of memory. Runs in a worker for each event. */
static struct curl_slist *build_request_headers(const struct http_stage *stage, struct ep_call *call)
{
    struct curl_slist *list = NULL;
    char key[sizeof call->key + 32];

    snprintf(key, sizeof key, "Idempotency-Key: %s", stage_call_get_key(call));
    int code = append_header(&list, key);
    for (const struct curl_slist *header = stage->fixed_headers; code == 0 && header != NULL;
         header = header->next)
        code = append_header(&list, header->data);
    if (code != 0) {
        curl_slist_free_all(list);
        return NULL;
    }
    return list;
}

/* ---- what comes back ---- */

/* libcurl's callback for each header line that an HTTP stage's server answers: keeps the text of the last
 * status line, such as "Service Unavailable", for messages. Returns the line's length, which tells libcurl
 * to go on. Runs in a worker. */
static size_t on_answer_header(char *bytes, size_t size, size_t count, void *user)
{
    struct http_stage *stage = user;
    size_t length = size * count;

    if (length > 5 && strncmp(bytes, "HTTP/", 5) == 0) {
        const char *end = bytes + length, *text = memchr(bytes, ' ', length);
        text = text != NULL ? memchr(text + 1, ' ', (size_t)(end - text - 1)) : NULL;
        while (end > bytes && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' '))
            end--;
        int text_bytes = text != NULL && text < end ? (int)(end - text) : 0;
        char status_text[sizeof stage->status_text];
        snprintf(status_text, sizeof status_text, "%.*s", text_bytes, text_bytes > 0 ? text : "");
        base_log_clean(status_text, stage->status_text, sizeof stage->status_text);
    }
    return length;
}

/* libcurl's callback for the body that an HTTP stage's server answers: keeps its beginning for messages.
 * Returns the number of bytes, or 0 after 1 MiB, which ends the transfer, since only the status counts.
 * Runs in a worker. */
static size_t on_answer_body(char *bytes, size_t size, size_t count, void *user)
{
    struct http_stage *stage = user;
    size_t length = size * count, free_bytes = BODY_SHOWN_BYTES - stage->body_shown_bytes;
    size_t kept_bytes = length < free_bytes ? length : free_bytes;

    memcpy(stage->body + stage->body_shown_bytes, bytes, kept_bytes);
    stage->body_shown_bytes += kept_bytes;
    stage->body[stage->body_shown_bytes] = '\0';
    stage->body_bytes += length;
    return stage->body_bytes > BODY_BYTES_MAX ? 0 : length;
}

/* Uses the Retry-After header of an HTTP stage's server, limited to a day, as the delay until the event's
 * next attempt. Without the header the stage's own backoff applies. Runs in a worker. */
static void set_delay_from_retry_after(struct http_stage *stage, struct ep_call *call)
{
    curl_off_t seconds = 0;

    if (curl_easy_getinfo(stage->handle, CURLINFO_RETRY_AFTER, &seconds) != CURLE_OK || seconds <= 0)
        return;
    if (seconds > RETRY_AFTER_S_MAX)
        seconds = RETRY_AFTER_S_MAX;
    call->retry_after_ms = (uint64_t)seconds * 1000;
}

/* Sets an HTTP stage's answer about the event from the HTTP status: 2xx processed, 429 not processed,
 * other 4xx rejected, everything else an error that is tried again. Runs in a worker after each request.
 * */
static void set_answer_from_status(struct http_stage *stage, long status, struct ep_call *call)
{
    if (status >= 200 && status < 300) {
        call->answer = EP_PROCESSED;
        return;
    }
    ep_call_set_reason(call, "%ld%s from %s", status, stage->status_text, stage->shown_url);
    if (status == 429 || (status >= 500 && status < 600)) {
        call->answer = status == 429 ? EP_NOT_PROCESSED : EP_ERROR;
        set_delay_from_retry_after(stage, call);
    } else if (status >= 400 && status < 500) {
        call->answer = EP_REJECT;
        char body[sizeof stage->body];
        base_log_clean(stage->body, body, sizeof body);
        if (body[0] != '\0')
            ep_call_set_reason(call, "%ld%s from %s: %s", status, stage->status_text, stage->shown_url, body);
    } else {
        call->answer = EP_ERROR;
        if (status >= 300 && status < 400)
            ep_call_set_reason(call, "%ld%s from %s: redirects are not followed", status, stage->status_text,
                               stage->shown_url);
    }
}

/* POSTs one event of an HTTP stage and sets the answer from the HTTP status. A failed connection or a
 * timeout is an error answer, so the event is tried again. Runs in a worker. */
static void send_http_request(struct http_stage *stage, struct ep_call *call)
{
    long status = 0;

    stage->status_text[0] = stage->body[0] = stage->curl_error[0] = '\0';
    stage->body_shown_bytes = 0;
    stage->body_bytes = 0;
    curl_easy_setopt(stage->handle, CURLOPT_POSTFIELDS, stage->request_body.text);
    curl_easy_setopt(stage->handle, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)stage->request_body.bytes);
    CURLcode code = curl_easy_perform(stage->handle);
    curl_easy_getinfo(stage->handle, CURLINFO_RESPONSE_CODE, &status);
    bool was_body_cut_here = code == CURLE_WRITE_ERROR && stage->body_bytes > BODY_BYTES_MAX;
    if (code == CURLE_OK || was_body_cut_here) {
        set_answer_from_status(stage, status, call);
        return;
    }
    const char *message = stage->curl_error[0] != '\0' ? stage->curl_error : curl_easy_strerror(code);
    call->answer = EP_ERROR;
    ep_call_set_reason(call, "%s: %s", stage->shown_url, message);
}

/* ---- the table ---- */

/* Has the server of an HTTP stage process one event: builds the request, sends it and puts the answer into
 * the call. Always returns STAGE_ANSWERED, because no failure of a server ends the worker. The worker's
 * loop calls it for each event. */
static enum stage_result http_process(void *state, struct ep_call *call, struct stage_failure *failure)
{
    struct http_stage *stage = state;

    (void)failure;
    base_text_reset(&stage->request_body);
    struct curl_slist *headers = NULL;
    if (stage_call_write_json(call, &stage->request_body) == 0)
        headers = build_request_headers(stage, call);
    if (headers == NULL) {
        call->answer = EP_ERROR;
        ep_call_set_reason(call, "out of memory for the request");
    } else {
        curl_easy_setopt(stage->handle, CURLOPT_HTTPHEADER, headers);
        send_http_request(stage, call);
        curl_easy_setopt(stage->handle, CURLOPT_HTTPHEADER, NULL);
        curl_slist_free_all(headers);
    }
    if (stage->request_body.room > KEEP_BYTES)
        base_text_free(&stage->request_body);
    return STAGE_ANSWERED;
}

/* Returns the time limit of an HTTP stage's request in milliseconds, 0 for none. It ends a little before
 * the stage's timeout, at which the supervisor kills the worker: so a slow server costs an attempt and not
 * a process. Runs in a starting worker. */
static long compute_request_timeout_ms(uint64_t timeout_ms)
{
    if (timeout_ms == 0)
        return 0;
    uint64_t margin_ms = timeout_ms / 10 < 1000 ? timeout_ms / 10 : 1000;
    uint64_t request_ms = timeout_ms - margin_ms;
    return request_ms > INT32_MAX ? INT32_MAX : request_ms < 1 ? 1 : (long)request_ms;
}

/* Sets the libcurl options that all requests of an HTTP stage share: URL, timeouts, callbacks, ca_file.
 * Runs in a starting worker. */
static void set_curl_options(struct http_stage *stage, const struct stage_config *config)
{
    CURL *handle = stage->handle;
    long timeout_ms = compute_request_timeout_ms(config->timeout_ms);

    curl_easy_setopt(handle, CURLOPT_URL, config->url);
    curl_easy_setopt(handle, CURLOPT_POST, 1L);
    curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(handle, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(handle, CURLOPT_USERAGENT, "eventpipe");
    curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(handle, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, timeout_ms);
    curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS,
                     timeout_ms > 0 && timeout_ms < CONNECT_TIMEOUT_MS ? timeout_ms
                                                                       : (long)CONNECT_TIMEOUT_MS);
    curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, stage->curl_error);
    curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, on_answer_header);
    curl_easy_setopt(handle, CURLOPT_HEADERDATA, stage);
    curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, on_answer_body);
    curl_easy_setopt(handle, CURLOPT_WRITEDATA, stage);
    if (config->ca_file != NULL)
        curl_easy_setopt(handle, CURLOPT_CAINFO, config->ca_file);
}

/* Frees the libcurl handle and the headers of an HTTP stage. A worker calls it at a graceful shutdown,
 * http_open after a failed start. Accepts NULL. */
static void http_close(void *state, uint64_t wait_ms)
{
    struct http_stage *stage = state;

    (void)wait_ms;
    if (stage == NULL)
        return;
    if (stage->handle != NULL)
        curl_easy_cleanup(stage->handle);
    curl_slist_free_all(stage->fixed_headers);
    base_text_free(&stage->request_body);
    free(stage->shown_url);
    free(stage);
    curl_global_cleanup();
}

/* Initialises libcurl and prepares the requests; the first event connects. Returns 0, or an error code
 * with a message, which is a failed start. A worker calls it once, when it starts. */
static int http_open(const struct stage_config *config, const struct stage_env *env, void **state,
                     struct error *error)
{
    (void)env;
    int code = stage_http_check(config, error);
    if (code != 0)
        return code;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return base_error_set(error, EP_ESYSTEM, "libcurl cannot be initialised");
    /* A TLS library writes to sockets by plain write. */
    sigset_t pipe_signal;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, NULL);
    struct http_stage *stage = calloc(1, sizeof *stage);
    if (stage == NULL) {
        curl_global_cleanup();
        return base_error_set(error, EP_ENOMEM, "out of memory");
    }
    stage->handle = curl_easy_init();
    stage->shown_url = copy_url_without_secrets(config->url, error);
    if (stage->handle == NULL || stage->shown_url == NULL ||
        build_fixed_headers(config, &stage->fixed_headers) != 0) {
        http_close(stage, 0);
        return base_error_set(error, EP_ENOMEM, "out of memory");
    }
    set_curl_options(stage, config);
    *state = stage;
    return 0;
}

const struct stage_ops stage_http_ops = {
    .type = "http",
    .open = http_open,
    .process = http_process,
    .close = http_close,
};
