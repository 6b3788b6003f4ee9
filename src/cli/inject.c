/* SPDX-License-Identifier: MIT */
/*
 * inject: reads events, one JSON object a line, and sends them to the daemon. Runs in eventpipe.
 * Events go out in requests of a bounded size, each complete before it is sent, so that slow input
 * never makes the keeper wait. A request is sent when it is full, when the input pauses for a second,
 * and at the end of the input.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/cli/cli.h"

#define REQUEST_BODY_BYTES (4u << 20)
#define PAUSE_MS 1000

struct injection {
    struct cli *cli;
    int input_fd;
    struct text buffer;   /* whole lines and perhaps the beginning of one more */
    uint64_t line_number; /* number of the first line in `buffer` */
    uint64_t injected_count, duplicate_count, invalid_count;
    int exit_status;
};

/* Returns the count at `pointer` in a line of the keeper's answer to `eventpipe inject`, or 0 if it is
 * missing. */
static uint64_t read_count_member(struct json_span line, const char *pointer)
{
    struct json_span value;
    int64_t count;
    return json_find(line, pointer, &value) && json_int64(value, &count) && count > 0 ? (uint64_t)count : 0;
}

/* Called for each data line of the keeper's answer to `eventpipe inject`. A line that names an event which
 * the keeper refused, {"line":N,"error":TEXT}, is printed; one with the counts of the whole request is
 * added to the totals. */
static int on_answer_line(const char *text, size_t bytes, void *user)
{
    struct injection *injection = user;
    struct cli *cli = injection->cli;
    struct json_span line = {text, bytes}, value;
    if (json_find(line, "/injected", &value)) {
        injection->injected_count += read_count_member(line, "/injected");
        injection->duplicate_count += read_count_member(line, "/duplicates");
        injection->invalid_count += read_count_member(line, "/invalid");
    } else if (cli_has_option(cli, CLI_OPTION_JSON)) {
        base_text_append_bytes(&cli->out, text, bytes);
        base_text_append(&cli->out, "\n");
    } else {
        char *error = cli_queue_read_text(line, "/error");
        cli_print_message("line %" PRIu64 ": %s", read_count_member(line, "/line"),
                          error != NULL ? error : "");
        free(error);
    }
    return EP_OK;
}

/* Sends the first `request_bytes` bytes of the input buffer of `eventpipe inject` to the keeper as one
 * request, and removes them: whole lines, or the rest at the end of the input. Sets exit_status. If the
 * daemon fails, input_fd becomes -1, so that no more input is read. */
static void send_lines(struct injection *injection, size_t request_bytes)
{
    struct cli *cli = injection->cli;
    struct text request = {0};
    struct cli_answer answer = {.on_line = on_answer_line, .user = injection, .quiet = true};
    base_text_append(&request, "{\"command\":\"inject\",\"source\":");
    json_write_string(&request, cli->args[0], strlen(cli->args[0]));
    base_text_append(&request, ",\"line\":");
    json_write_uint(&request, injection->line_number);
    base_text_append(&request, cli_has_option(cli, CLI_OPTION_DRY_RUN) ? ",\"dry_run\":true}" : "}");
    struct control_question question = {.line = request.text,
                                        .body = injection->buffer.text,
                                        .body_bytes = request_bytes,
                                        .patience_ms = 60000};
    uint64_t invalid_before = injection->invalid_count;
    int status = request.failed ? CONTROL_FAILED : cli_send_request(cli, &question, &answer);
    bool only_invalid_events = status == CONTROL_FAILED && injection->invalid_count > invalid_before;
    if (status != CONTROL_DONE)
        injection->exit_status =
            only_invalid_events && injection->exit_status == CONTROL_DONE ? CONTROL_FAILED : status;
    if (only_invalid_events)
        cli->final_message[0] = '\0'; /* the totals at the end show the same */
    if (status != CONTROL_DONE && !only_invalid_events)
        injection->input_fd = -1; /* the daemon failed: the rest of the input is not read */
    for (const char *position = injection->buffer.text; request_bytes > 0; injection->line_number++) {
        const char *line_feed =
            memchr(position, '\n', (size_t)(injection->buffer.text + request_bytes - position));
        if (line_feed == NULL)
            break;
        position = line_feed + 1;
    }
    if (request_bytes > 0) {
        memmove(injection->buffer.text, injection->buffer.text + request_bytes,
                injection->buffer.bytes - request_bytes);
        injection->buffer.bytes -= request_bytes;
    }
    base_text_free(&request);
}

/* Returns how many bytes of the input buffer of `eventpipe inject` are complete lines; only those are sent
 * before the input ends. */
static size_t count_complete_line_bytes(const struct text *buffer)
{
    const char *line_feed = buffer->bytes > 0 ? memrchr(buffer->text, '\n', buffer->bytes) : NULL;
    return line_feed != NULL ? (size_t)(line_feed - buffer->text) + 1 : 0;
}

/* Reads more events of `eventpipe inject` from the file or stdin; if the buffer is full or the input pauses
 * for a second, sends what is complete. The command calls it until it returns false, at the end of the
 * input or after a failure. */
static bool read_or_send_events(struct injection *injection)
{
    char chunk[65536];
    struct pollfd input_poll = {.fd = injection->input_fd, .events = POLLIN};
    size_t complete_bytes = count_complete_line_bytes(&injection->buffer);
    if (complete_bytes > 0 &&
        (injection->buffer.bytes >= REQUEST_BODY_BYTES || poll(&input_poll, 1, PAUSE_MS) == 0)) {
        send_lines(injection, complete_bytes);
        return injection->input_fd >= 0;
    }
    ssize_t read_bytes = read(injection->input_fd, chunk, sizeof chunk);
    if (read_bytes < 0 && errno == EINTR)
        return true;
    if (read_bytes < 0) {
        cli_print_message("cannot read the events: %s", strerror(errno));
        injection->exit_status = CONTROL_FAILED;
    }
    if (read_bytes > 0)
        base_text_append_bytes(&injection->buffer, chunk, (size_t)read_bytes);
    if (injection->buffer.failed) {
        cli_print_message("out of memory");
        injection->exit_status = CONTROL_FAILED;
    }
    return read_bytes > 0 && !injection->buffer.failed;
}

/* Prints how many events of all requests were injected, were duplicates or were invalid. `eventpipe inject`
 * ends with it. */
static void print_totals(const struct injection *injection)
{
    struct cli *cli = injection->cli;
    const char *would_be = cli_has_option(cli, CLI_OPTION_DRY_RUN) ? "would be " : "";
    char text[200];
    if (cli_has_option(cli, CLI_OPTION_JSON))
        snprintf(text, sizeof text,
                 "{\"injected\":%" PRIu64 ",\"duplicates\":%" PRIu64 ",\"invalid\":%" PRIu64 "}\n",
                 injection->injected_count, injection->duplicate_count, injection->invalid_count);
    else
        snprintf(text, sizeof text, "%" PRIu64 " %sinjected, %" PRIu64 " duplicate%s, %" PRIu64 " invalid\n",
                 injection->injected_count, would_be, injection->duplicate_count,
                 injection->duplicate_count == 1 ? "" : "s", injection->invalid_count);
    base_text_append(&cli->out, text);
}

/* Runs `eventpipe inject SOURCE [FILE]`, which reads events, one JSON object a line, and sends them to the
 * keeper, which stores them as events of the source. Returns an exit status. */
int cli_inject(struct cli *cli)
{
    struct injection injection = {.cli = cli, .line_number = 1, .input_fd = STDIN_FILENO};
    const char *path = cli->arg_count > 1 ? cli->args[1] : "-";
    int file_fd = -1;
    if (strcmp(path, "-") != 0) {
        file_fd = open(path, O_RDONLY | O_CLOEXEC);
        if (file_fd < 0) {
            cli_print_message("cannot open %s: %s", path, strerror(errno));
            return CONTROL_FAILED;
        }
        injection.input_fd = file_fd;
    }
    while (read_or_send_events(&injection))
        continue;
    /* send even an empty request: it reports an unknown source, or that the daemon is down */
    if (injection.input_fd >= 0 && (injection.buffer.bytes > 0 || injection.line_number == 1) &&
        !injection.buffer.failed)
        send_lines(&injection, injection.buffer.bytes);
    if (injection.exit_status == CONTROL_DONE ||
        injection.injected_count + injection.duplicate_count + injection.invalid_count > 0)
        print_totals(&injection);
    if (file_fd >= 0)
        close(file_fd);
    base_text_free(&injection.buffer);
    return injection.exit_status;
}
