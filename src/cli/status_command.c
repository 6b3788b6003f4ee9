/* SPDX-License-Identifier: MIT */
/*
 * status: prints the snapshot, once or every second. Runs in eventpipe and needs no other process: it reads
 * the segment or, while the daemon is down, the store.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "shm/slot.h"
#include "src/cli/cli.h"
#include "src/cli/status.h"

#define WIDTH_MAX 120
#define REFRESH_MS 1000
#define START_WAIT_MS 2000

/* Reads the snapshot of `eventpipe status` while the daemon is down: from the store or, if that cannot be
 * opened, from the shared memory that a crashed daemon left. `down_reason` becomes the first reason that
 * the user sees. Returns 0 or a negative code with a message. */
static int read_status_while_down(struct cli *cli, const char *down_reason, struct status *status,
                                  struct error *error)
{
    struct store *store = NULL;
    struct store_options options = {.url = cli->store_url, .instance = cli->instance, .readonly = true};
    struct error store_error = {0};
    if (cli->store_url == NULL)
        base_error_set(&store_error, EP_ENOENT, "the location of its store is not known (give -c FILE)");
    else
        store_open(&options, &store, &store_error);
    if (store == NULL && cli->attach_error == 0) {
        int code = cli_status_read_segment(&cli->segment, status);
        return code == EP_OK ? EP_OK : base_error_set(error, code, "out of memory");
    }
    const char *url = cli->store_url != NULL ? cli->store_url : "?";
    int code = cli_status_read_store(store, cli->config, cli->instance, url, down_reason, status, error);
    if (code == EP_OK && store == NULL)
        code = cli_status_add_reason(status, "its store cannot be read: %s", store_error.message);
    store_close(&store);
    return code;
}

/* Attaches the segment; waits a moment for one that is just being created. */
static void attach_segment(struct cli *cli)
{
    uint64_t start_ns = shm_now_ns();
    while (cli_instance_attach(cli) == -EAGAIN && shm_now_ns() - start_ns < START_WAIT_MS * UINT64_C(1000000))
        poll(NULL, 0, 20);
}

/* Reads one snapshot for `eventpipe status`: from shared memory if the daemon runs, otherwise from the
 * store. Returns 0, or a negative code with a message if neither may or can be read. */
static int read_status(struct cli *cli, struct status *status, struct error *error)
{
    char down_reason[200] = "the daemon is not running";
    attach_segment(cli);
    if (cli->attach_error == 0 && cli->daemon_alive) {
        int code = cli_status_read_segment(&cli->segment, status);
        return code == EP_OK ? EP_OK : base_error_set(error, code, "out of memory");
    }
    if (cli->attach_error == -EACCES)
        return base_error_set(error, EP_EACCESS,
                              "not allowed to read %s: run as root or as the daemon's user", cli->instance);
    if (cli->attach_error == -EPROTO)
        return base_error_set(
            error, EP_ESTATE,
            "%s: the daemon has another version than this program; restart the daemon, or use the "
            "eventpipe of its version",
            cli->instance);
    if (cli->attach_error == 0)
        snprintf(down_reason, sizeof down_reason,
                 "the daemon (pid %d) no longer runs and did not end cleanly",
                 (int)cli->segment.header->supervisor_pid);
    else if (cli->attach_error == -EAGAIN)
        snprintf(down_reason, sizeof down_reason, "the daemon is still starting");
    else if (cli->attach_error != -ENOENT)
        snprintf(down_reason, sizeof down_reason, "its shared memory cannot be read: %s",
                 strerror(-cli->attach_error));
    return read_status_while_down(cli, down_reason, status, error);
}

/* Returns the exit status of `eventpipe status` for this health, which scripts test: 0 if the instance is
 * ok. */
static int health_exit_status(enum status_health health)
{
    return health == STATUS_OK ? CONTROL_DONE : health == STATUS_DOWN ? CONTROL_DOWN : CONTROL_FAILED;
}

/* Writes one snapshot of `eventpipe status` into the output buffer, as text or JSON. Returns the exit
 * status, which tells the instance's health. */
static int write_status_once(struct cli *cli)
{
    struct status status = {0};
    struct error error = {0};
    int code = read_status(cli, &status, &error);
    size_t width = cli_terminal_width();
    int exit_status = code == EP_OK ? health_exit_status(status.health) : CONTROL_FAILED;
    if (code != EP_OK)
        cli_print_message("%s", error.message);
    else if (cli_has_option(cli, CLI_OPTION_JSON))
        cli_status_write_json(&status, &cli->out);
    else
        cli_status_write_text(&status, width < WIDTH_MAX ? width : WIDTH_MAX, cli_may_use_colours(),
                              &cli->out);
    cli_status_close(&status);
    return exit_status;
}

/* ---- watch ---- */

struct watch {
    int signal_fd;
    bool reads_keys, redraws; /* stdin gives single keys; stdout is a terminal that can be drawn on */
    struct termios old_terminal;
};

/* Begins `eventpipe status --watch`: reads the signals that end it from a signalfd, so that the terminal
 * can be restored first, and lets the terminal deliver single keys. `as_text` is false for --json. Returns
 * the signalfd, or -1 with errno set. */
static int open_watch(struct watch *watch, bool as_text)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGWINCH);
    sigprocmask(SIG_BLOCK, &set, NULL);
    watch->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    watch->redraws = as_text && isatty(STDOUT_FILENO);
    watch->reads_keys = watch->redraws && tcgetattr(STDIN_FILENO, &watch->old_terminal) == 0;
    if (watch->reads_keys) {
        struct termios raw = watch->old_terminal;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    return watch->signal_fd;
}

static void close_watch(struct watch *watch)
{
    if (watch->reads_keys)
        tcsetattr(STDIN_FILENO, TCSANOW, &watch->old_terminal);
    close(watch->signal_fd);
}

/* Waits between two snapshots of `eventpipe status --watch`: a second, or until the window's size changes.
 * Returns true if the user pressed q or Ctrl-C, or a signal ends the watch. */
static bool wait_or_end_watch(const struct watch *watch)
{
    struct pollfd inputs[2] = {{.fd = watch->signal_fd, .events = POLLIN},
                               {.fd = watch->reads_keys ? STDIN_FILENO : -1, .events = POLLIN}};
    struct signalfd_siginfo signal;
    char key;
    poll(inputs, 2, REFRESH_MS);
    if ((inputs[0].revents & POLLIN) != 0 && read(watch->signal_fd, &signal, sizeof signal) == sizeof signal)
        return signal.ssi_signo != SIGWINCH;
    if (inputs[1].revents == 0)
        return false;
    ssize_t read_bytes = read(STDIN_FILENO, &key, 1);
    return read_bytes <= 0 || key == 'q' || key == 'Q' || key == 3;
}

/* Adds terminal codes to a snapshot of `eventpipe status --watch`, so that it overwrites the one before:
 * each line clears the rest of its row, and the last one all rows below. Clearing the whole screen first
 * would flicker. */
static void add_clear_codes(struct text *out)
{
    struct text with_codes = {0};
    base_text_append(&with_codes, "\033[H");
    for (size_t offset = 0; offset < out->bytes;) {
        const char *line_feed = memchr(out->text + offset, '\n', out->bytes - offset);
        size_t bytes = line_feed != NULL ? (size_t)(line_feed - out->text) - offset : out->bytes - offset;
        base_text_append_bytes(&with_codes, out->text + offset, bytes);
        base_text_append(&with_codes, "\033[K\n");
        offset += bytes + 1;
    }
    base_text_append(&with_codes, "\033[J");
    base_text_free(out);
    *out = with_codes;
}

/* Runs `eventpipe status --watch`: prints a snapshot every second until the user presses q or Ctrl-C.
 * Returns the exit status of the last snapshot, or CONTROL_FAILED if it cannot begin. */
static int watch_status(struct cli *cli)
{
    bool as_text = !cli_has_option(cli, CLI_OPTION_JSON);
    struct watch watch = {0};
    if (open_watch(&watch, as_text) < 0) {
        cli_print_message("cannot receive signals for --watch: %s", strerror(errno));
        return CONTROL_FAILED;
    }
    base_text_append(&cli->out, watch.redraws ? "\033[2J" : "");
    cli_finish_output(cli, 0);
    int status;
    do {
        status = write_status_once(cli);
        if (watch.redraws)
            add_clear_codes(&cli->out);
        else if (as_text)
            base_text_append(&cli->out, "\n");
        cli_finish_output(cli, 0);
    } while (!cli->output_failed && !wait_or_end_watch(&watch));
    close_watch(&watch);
    return status;
}

int cli_status(struct cli *cli)
{
    return cli_has_option(cli, CLI_OPTION_WATCH) ? watch_status(cli) : write_status_once(cli);
}
