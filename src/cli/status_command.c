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

#define WIDTH_MOST 120
#define TURN_MS 1000
#define STARTING_MS 2000

/* `eventpipe status` calls this if the daemon is down: reads the store or, if that fails, the shared memory
 * that a crashed daemon left. why: the first reason that the user sees. */
static int read_status_while_down(struct cli *cli, const char *why, struct status *status,
                                  struct error *error)
{
    struct store *store = NULL;
    struct store_options options = {.url = cli->storage, .instance = cli->instance, .readonly = true};
    struct error reason = {0};
    if (cli->storage == NULL)
        base_error_set(&reason, EP_ENOENT, "the location of its store is not known (give -c FILE)");
    else
        store_open(&options, &store, &reason);
    if (store == NULL && cli->attached == 0) {
        int code = cli_status_read_segment(&cli->segment, status);
        return code == EP_OK ? EP_OK : base_error_set(error, code, "out of memory");
    }
    const char *url = cli->storage != NULL ? cli->storage : "?";
    int code = cli_status_read_store(store, cli->config, cli->instance, url, why, status, error);
    if (code == EP_OK && store == NULL)
        code = cli_status_add_reason(status, "its store cannot be read: %s", reason.message);
    store_close(&store);
    return code;
}

/* Attaches the segment; waits a moment for one that is just being created. */
static void attach_segment(struct cli *cli)
{
    uint64_t start_ns = shm_now_ns();
    while (cli_instance_attach(cli) == -EAGAIN && shm_now_ns() - start_ns < STARTING_MS * UINT64_C(1000000))
        poll(NULL, 0, 20);
}

/* Reads one snapshot for `eventpipe status`: from shared memory if the daemon runs, else from the store. 0,
 * or a negative code with the message in `error`. */
static int read_status(struct cli *cli, struct status *status, struct error *error)
{
    char why[200] = "the daemon is not running";
    attach_segment(cli);
    if (cli->attached == 0 && cli->alive) {
        int code = cli_status_read_segment(&cli->segment, status);
        return code == EP_OK ? EP_OK : base_error_set(error, code, "out of memory");
    }
    if (cli->attached == -EACCES)
        return base_error_set(error, EP_EACCESS,
                              "not allowed to read %s: run as root or as the daemon's user", cli->instance);
    if (cli->attached == -EPROTO)
        return base_error_set(error, EP_ESTATE, "the daemon of %s has another version than this program",
                              cli->instance);
    if (cli->attached == 0)
        snprintf(why, sizeof why, "the daemon (pid %d) no longer runs and did not end cleanly",
                 (int)cli->segment.header->supervisor_pid);
    else if (cli->attached == -EAGAIN)
        snprintf(why, sizeof why, "the daemon is still starting");
    else if (cli->attached != -ENOENT)
        snprintf(why, sizeof why, "its segment cannot be read: %s", strerror(-cli->attached));
    return read_status_while_down(cli, why, status, error);
}

static int health_exit_status(enum status_health health)
{
    return health == STATUS_OK ? CONTROL_DONE : health == STATUS_DOWN ? CONTROL_DOWN : CONTROL_NO;
}

/* Writes one snapshot of `eventpipe status` into the output buffer, as text or JSON. Returns the exit status,
 * which follows from the instance's health. */
static int write_status_once(struct cli *cli)
{
    struct status status = {0};
    struct error error = {0};
    int code = read_status(cli, &status, &error);
    size_t width = cli_terminal_width();
    int exit_code = code == EP_OK ? health_exit_status(status.health) : CONTROL_NO;
    if (code != EP_OK)
        cli_print_message("%s", error.message);
    else if (cli_given(cli, CLI_OPTION_JSON))
        cli_status_write_json(&status, &cli->out);
    else
        cli_status_write_text(&status, width < WIDTH_MOST ? width : WIDTH_MOST, cli_use_colours(), &cli->out);
    cli_status_close(&status);
    return exit_code;
}

/* ---- watch ---- */

struct watch {
    int signals;
    bool keys, redraw; /* stdin gives single keys; stdout is a terminal that can be drawn on */
    struct termios before;
};

/* Begins `eventpipe status --watch`: blocks the ending signals and reads them from a signalfd, and lets the
 * terminal deliver single keys. Returns the signalfd, or a negative value on failure. */
static int open_watch(struct watch *watch, bool text)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGWINCH);
    sigprocmask(SIG_BLOCK, &set, NULL);
    watch->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    watch->redraw = text && isatty(STDOUT_FILENO);
    watch->keys = watch->redraw && tcgetattr(STDIN_FILENO, &watch->before) == 0;
    if (watch->keys) {
        struct termios raw = watch->before;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    return watch->signals;
}

static void close_watch(struct watch *watch)
{
    if (watch->keys)
        tcsetattr(STDIN_FILENO, TCSANOW, &watch->before);
    close(watch->signals);
}

/* `eventpipe status --watch` waits here between two snapshots: a second, or less if the window's size
 * changes. Returns true if a key or a signal ends the watch. */
static bool wait_for_next_turn(const struct watch *watch)
{
    struct pollfd waiting[2] = {{.fd = watch->signals, .events = POLLIN},
                                {.fd = watch->keys ? STDIN_FILENO : -1, .events = POLLIN}};
    struct signalfd_siginfo signal;
    char key;
    poll(waiting, 2, TURN_MS);
    if ((waiting[0].revents & POLLIN) != 0 && read(watch->signals, &signal, sizeof signal) == sizeof signal)
        return signal.ssi_signo != SIGWINCH;
    if (waiting[1].revents == 0)
        return false;
    ssize_t got = read(STDIN_FILENO, &key, 1);
    return got <= 0 || key == 'q' || key == 'Q' || key == 3;
}

/* Prepares a snapshot of `eventpipe status --watch` for redrawing the terminal: each line clears the rest of
 * its row, and the last one all rows below. Clearing the whole screen first would flicker. */
static void add_clear_codes(struct text *out)
{
    struct text drawn = {0};
    base_text_append(&drawn, "\033[H");
    for (size_t at = 0; at < out->bytes;) {
        const char *feed = memchr(out->text + at, '\n', out->bytes - at);
        size_t bytes = feed != NULL ? (size_t)(feed - out->text) - at : out->bytes - at;
        base_text_append_bytes(&drawn, out->text + at, bytes);
        base_text_append(&drawn, "\033[K\n");
        at += bytes + 1;
    }
    base_text_append(&drawn, "\033[J");
    base_text_free(out);
    *out = drawn;
}

/* `eventpipe status --watch`: prints a snapshot every second, until the user presses q or Ctrl-C. Returns the
 * exit status of the last snapshot. */
static int watch_status(struct cli *cli)
{
    bool text = !cli_given(cli, CLI_OPTION_JSON);
    struct watch watch = {0};
    if (open_watch(&watch, text) < 0) {
        cli_print_message("cannot receive signals for --watch: %s", strerror(errno));
        return CONTROL_NO;
    }
    base_text_append(&cli->out, watch.redraw ? "\033[2J" : "");
    cli_finish_output(cli, 0);
    int status;
    do {
        status = write_status_once(cli);
        if (watch.redraw)
            add_clear_codes(&cli->out);
        else if (text)
            base_text_append(&cli->out, "\n");
        cli_finish_output(cli, 0);
    } while (!cli->output_failed && !wait_for_next_turn(&watch));
    close_watch(&watch);
    return status;
}

int cli_status(struct cli *cli)
{
    return cli_given(cli, CLI_OPTION_WATCH) ? watch_status(cli) : write_status_once(cli);
}
