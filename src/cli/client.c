/* SPDX-License-Identifier: MIT */
/*
 * One request to the daemon: the connection, the lines of the answer, the message at its end, and
 * writing to stdout. While the daemon is down, commands that only read are answered from the store: a
 * child process runs the keeper's own command engine and answers over a socket pair. Runs in eventpipe.
 *
 * Invariants
 *  1. Data goes to stdout, messages go to stderr.
 *  2. The daemon's answer is read as fast as it comes, even if stdout is slow: a pager delays only its
 *     user.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/cli/cli.h"
#include "src/cli/table.h"

#define PIPE_SAFE_BYTES 4096 /* a pipe that poll reports as writable takes this much without blocking */

/* Prints "eventpipe: MESSAGE" and a line feed on stderr; every command of `eventpipe` prints its messages
 * with it. Control characters are replaced, because messages contain text from outside, which must not
 * control the terminal. */
void cli_print_message(const char *format, ...)
{
    char message[4096];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    struct text clean = {0};
    cli_table_write_text(&clean, message, 0);
    fprintf(stderr, "eventpipe: %s\n", clean.text != NULL ? clean.text : "");
    base_text_free(&clean);
}

/* Returns the terminal's width in columns, or 0 if stdout is not a terminal. Commands of `eventpipe` cut
 * their tables to this width, so that rows do not wrap; output to a file or a pipe is never cut. */
size_t cli_terminal_width(void)
{
    struct winsize size;
    if (isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
        return size.ws_col > 0 ? size.ws_col : 80;
    return 0;
}

/* Returns whether `eventpipe status` may print in colours: stdout is a terminal that can show them, and the
 * user has not set NO_COLOR. */
bool cli_may_use_colours(void)
{
    const char *terminal = getenv("TERM"), *no_colour = getenv("NO_COLOR");
    return isatty(STDOUT_FILENO) && terminal != NULL && strcmp(terminal, "dumb") != 0 &&
           (no_colour == NULL || *no_colour == '\0');
}

/* ---- stdout ---- */

/* Writes to stdout what the commands of `eventpipe` have put into cli->out. With `must_wait` it blocks
 * until all is written, otherwise it keeps what stdout does not take now. After a write error it prints one
 * message and sets output_failed. */
static void write_pending_output(struct cli *cli, bool must_wait)
{
    size_t written_bytes = 0;
    if (cli->out.failed && !cli->output_failed) {
        cli->output_failed = true;
        cli_print_message("out of memory");
    }
    while (written_bytes < cli->out.bytes && !cli->output_failed) {
        struct pollfd stdout_poll = {.fd = STDOUT_FILENO, .events = POLLOUT};
        if (poll(&stdout_poll, 1, must_wait ? -1 : 0) == 0)
            break;
        size_t piece_bytes = cli->out.bytes - written_bytes < PIPE_SAFE_BYTES ? cli->out.bytes - written_bytes
                                                                              : PIPE_SAFE_BYTES;
        ssize_t just_written = write(STDOUT_FILENO, cli->out.text + written_bytes, piece_bytes);
        if (just_written < 0 && errno != EINTR && errno != EAGAIN) {
            cli_print_message("cannot write the output: %s", strerror(errno));
            cli->output_failed = true;
        }
        written_bytes += just_written > 0 ? (size_t)just_written : 0;
    }
    if (written_bytes == 0)
        return;
    memmove(cli->out.text, cli->out.text + written_bytes, cli->out.bytes - written_bytes);
    cli->out.bytes -= written_bytes;
}

/* Writes what stdout takes now and keeps the rest, so that a slow pager never delays the daemon.
 * `eventpipe` calls it after each line of an answer; output to a file or a pipe is first collected into
 * larger pieces. */
void cli_write_available_output(struct cli *cli)
{
    if (cli->out.bytes >= PIPE_SAFE_BYTES || isatty(STDOUT_FILENO))
        write_pending_output(cli, false);
}

/* Writes the rest of the output, then prints the message with which the answer ended. Every command of
 * `eventpipe` ends with it. Returns CONTROL_FAILED if writing to stdout failed, else `status`. */
int cli_finish_output(struct cli *cli, int status)
{
    write_pending_output(cli, true);
    if (cli->final_message[0] != '\0')
        cli_print_message("%s", cli->final_message);
    cli->final_message[0] = '\0';
    return cli->output_failed ? CONTROL_FAILED : status;
}

/* ---- the store itself, while the daemon is down ---- */

/* Carries out one request with the keeper's own code on a read-only store, and sends the answer to
 * `answer_fd`, as the keeper would. Runs in a child process of `eventpipe` while the daemon is down or
 * hangs. */
static void answer_from_store(const struct cli *cli, const char *request_line, int answer_fd)
{
    struct error error = {0};
    struct store *store = NULL;
    struct store_options options = {.url = cli->store_url, .instance = cli->instance, .readonly = true};
    if (cli->daemon_alive)
        options.start_number = atomic_load(&cli->segment.header->start_number);
    if (cli->store_url == NULL) {
        control_end(answer_fd, CONTROL_DOWN, "the location of its store is not known: give -c FILE");
        return;
    }
    if (store_open(&options, &store, &error) != EP_OK) {
        control_end(answer_fd, error.code == EP_ESTORE ? CONTROL_FAILED : CONTROL_DOWN,
                    "its store cannot be read: %s", error.message);
        return;
    }
    cJSON *request = cJSON_Parse(request_line);
    const struct admin admin = {.store = store, .config = cli->config, .daemon_up = false};
    control_admin_serve(&admin, request, answer_fd, NULL);
    cJSON_Delete(request);
    store_close(&store);
}

/* Gets a request answered from the store while the daemon is down or hangs: forks a child that reads the
 * store, and receives its answer like the daemon's, so that each command of `eventpipe` handles only one
 * kind of answer. Returns the exit status in the answer, or a negative code with a message. */
static int ask_store_in_child(struct cli *cli, const struct control_question *question,
                              control_on_line *on_line, void *user, struct error *error)
{
    int sockets[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0)
        return base_error_set(error, EP_ESYSTEM, "cannot create a socket to read the store: %s",
                              strerror(errno));
    fflush(NULL);
    pid_t child_pid = fork();
    if (child_pid == 0) {
        close(sockets[0]);
        answer_from_store(cli, question->line, sockets[1]);
        _exit(0);
    }
    close(sockets[1]);
    struct control_question question_without_limit = *question;
    question_without_limit.on_silence = NULL;
    question_without_limit.patience_ms = UINT64_MAX; /* the child always ends, so no limit is needed */
    int code = child_pid < 0 ? base_error_set(error, EP_ESYSTEM,
                                              "cannot start a process to read the store: %s", strerror(errno))
                             : control_ask(sockets[0], &question_without_limit, on_line, user, error);
    close(sockets[0]);
    while (child_pid > 0 && waitpid(child_pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    return code;
}

/* ---- a request and its answer ---- */

struct answer_reader {
    struct cli *cli;
    struct cli_answer *answer;
};

/* Called for each data line of an answer from the daemon or the store. Passes it to the command of
 * `eventpipe` that asked, or prints it unchanged (--json), then writes what stdout takes. Returns 0, or a
 * negative code to stop reading the answer. */
static int on_answer_line(const char *line, size_t bytes, void *user)
{
    struct answer_reader *reader = user;
    struct cli *cli = reader->cli;
    int code = EP_OK;
    reader->answer->line_count++;
    if (reader->answer->on_line != NULL) {
        code = reader->answer->on_line(line, bytes, reader->answer->user);
    } else {
        base_text_append_bytes(&cli->out, line, bytes);
        base_text_append(&cli->out, "\n");
    }
    cli_write_available_output(cli);
    return code != EP_OK ? code : cli->output_failed ? EP_ESYSTEM : EP_OK;
}

/* Prints for a command of `eventpipe` that the daemon is down, or that it runs but gives no answer (`reason`
 * says why). The message adds that nothing was changed, since no request was sent, or, for a command that
 * only reads, that the command line now reads the store itself. Returns CONTROL_DOWN, an exit status. */
static int report_daemon_unavailable(const struct cli *cli, const struct error *reason, bool only_reads)
{
    if (cli->daemon_alive)
        cli_print_message("%s: the daemon runs (pid %d), but %s%s", cli->instance,
                          (int)cli->segment.header->supervisor_pid, reason->message,
                          only_reads ? "; reading its store instead" : "; nothing was changed");
    else
        cli_print_message("%s: the daemon is down%s", cli->instance,
                          only_reads
                              ? "; reading its store instead"
                              : ": nothing was changed; start the daemon, then give the command again");
    return CONTROL_DOWN;
}

/* Keeps the message at the end of an answer until cli_finish_output prints it after the command's data.
 * `eventpipe inject` gets several answers; the message kept before is printed first. */
static void keep_final_message(struct cli *cli, const char *message)
{
    if (cli->final_message[0] != '\0')
        cli_print_message("%s", cli->final_message);
    snprintf(cli->final_message, sizeof cli->final_message, "%s: %s", cli->instance, message);
}

/* Sends a command's request to the daemon's control socket and receives the answer, for all commands of
 * `eventpipe` that the daemon carries out. If the daemon is down or hangs, commands that only read are
 * answered from the store, and the others fail. Returns an exit status. */
int cli_send_request(struct cli *cli, const struct control_question *question, struct cli_answer *answer)
{
    struct error error = {0};
    struct answer_reader reader = {cli, answer};
    const struct control_command *command = cli->command;
    bool only_reads =
        command->server == CONTROL_BY_KEEPER && !command->changes && !cli_has_option(cli, CLI_OPTION_SET);
    int control_fd = -1, code = control_connect(cli->control_path, &control_fd, &error);
    bool is_connected = code == EP_OK, must_read_store = code == EP_ENOENT;
    struct control_question limited_question = *question;
    if (only_reads)
        limited_question.first_ms = CLI_SILENCE_LIMIT_MS;
    if (is_connected) {
        code = control_ask(control_fd, &limited_question, on_answer_line, &reader, &error);
        close(control_fd);
    }
    if (code == EP_ESTATE && only_reads && answer->line_count == 0) {
        must_read_store = true; /* the supervisor or the keeper hangs; reading must still work */
        base_error_set(&error, EP_ESTATE, "it does not answer");
    }
    if (must_read_store) {
        int status = report_daemon_unavailable(cli, &error, only_reads);
        if (!only_reads)
            return status;
        code = ask_store_in_child(cli, question, on_answer_line, &reader, &error);
    }
    if (cli->output_failed)
        return CONTROL_FAILED;
    if (error.message[0] != '\0' && !(code == CONTROL_DONE && answer->quiet && answer->line_count > 0))
        keep_final_message(cli, error.message);
    return code < 0 ? CONTROL_FAILED : code;
}
