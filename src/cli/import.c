/* SPDX-License-Identifier: MIT */
/*
 * import: imports a database of the original eventpipe (Go). Runs in eventpipe, without the daemon: it
 * holds the store as a daemon would, so that none can start meanwhile, and fails while one runs.
 *
 * A trial (--dry-run) does everything but the last step: it reads the store if there is one, and creates
 * nothing.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/slot.h"
#include "src/cli/cli.h"
#include "src/cli/table.h"
#include "src/import/import.h"

struct import_job {
    struct cli *cli;
    struct import_go *database;
    struct import_plan plan;
    struct store *store;
    int lock_fd;
    bool is_trial;
    struct error error;
};

/* ---- the file ---- */

/* Fills the set of signals that end `eventpipe import`. They stay blocked while files of the private copy
 * of the database exist, so that an interrupted import leaves none behind. */
static void fill_termination_signals(sigset_t *signal_set)
{
    sigemptyset(signal_set);
    sigaddset(signal_set, SIGINT);
    sigaddset(signal_set, SIGTERM);
    sigaddset(signal_set, SIGHUP);
    sigaddset(signal_set, SIGPIPE);
}

/* Called repeatedly while the Go database is copied. Returns true once the user or the system has sent a
 * signal that ends `eventpipe import` (it is blocked, thus pending); the copying then stops and removes its
 * files. */
static bool is_termination_requested(void *user)
{
    sigset_t pending_signals, termination_signals;
    (void)user;
    fill_termination_signals(&termination_signals);
    sigpending(&pending_signals);
    return sigandset(&pending_signals, &pending_signals, &termination_signals) == 0 &&
           !sigisemptyset(&pending_signals);
}

/* Opens the file that the user named for `eventpipe import`, as a private copy. Signals that end the
 * program are blocked until the copy's files are deleted, and take effect then. Returns an exit status,
 * with the message in job->error. */
static int open_go_database(struct import_job *job)
{
    sigset_t termination_signals, old_mask;
    fill_termination_signals(&termination_signals);
    sigprocmask(SIG_BLOCK, &termination_signals, &old_mask);
    int code = import_go_open(job->cli->args[0], is_termination_requested, NULL, &job->database, &job->error);
    sigprocmask(SIG_SETMASK, &old_mask, NULL); /* a pending signal ends the program here */
    return code == EP_OK ? CONTROL_DONE : CONTROL_FAILED;
}

/* Decides for `eventpipe import` which source of the Go database becomes which source of the configuration
 * (--source, --as). Returns an exit status, with the message in job->error. */
static int plan_import(struct import_job *job)
{
    const struct cli *cli = job->cli;
    int code = import_make_plan(job->database, cli->config, cli->values[CLI_OPTION_SOURCE],
                                cli->values[CLI_OPTION_AS], &job->plan, &job->error);
    return code == EP_OK       ? CONTROL_DONE
           : code == EP_ENOENT ? CONTROL_NOTHING
           : code == EP_EINVAL ? CONTROL_USAGE
                               : CONTROL_FAILED;
}

/* ---- the store ---- */

/* Returns the options with which `eventpipe import` opens the store: those of the configuration, and
 * read-only for --dry-run, which must change nothing. */
static struct store_options make_store_options(const struct import_job *job)
{
    const struct config *config = job->cli->config;
    return (struct store_options){.url = config->storage,
                                  .instance = config->instance,
                                  .synchronous = config->synchronous,
                                  .readonly = job->is_trial};
}

/* Takes the store's lock for `eventpipe import`, as a daemon does at its start, so that none can start
 * before the import ends. Returns 0, EP_EBUSY if a daemon runs, or another negative code; the message is in
 * job->error. */
static int lock_store(struct import_job *job)
{
    struct store_options options = make_store_options(job);
    int code = store_hold(&options, 0, &job->lock_fd, &job->error);
    if (code == EP_EBUSY)
        base_error_prefix(&job->error, "stop the daemon first");
    return code;
}

/* Creates or migrates the store for `eventpipe import`, as the keeper does when the daemon starts, and
 * registers the planned sources and their stages in it. Their ids go into the plan. The three arrays are
 * the caller's and have room for all of them. Returns 0 or a negative code with a message. */
static int register_sources(struct import_job *job, struct store_options *options,
                            struct store_names *source_names, const char **stage_names, int64_t *stage_ids)
{
    struct import_plan *plan = &job->plan;
    for (size_t i = 0; i < plan->mapping_count; i++) {
        const struct source_config *source = plan->mappings[i].source;
        source_names[i] = (struct store_names){source->id, stage_names, source->stage_count, 0, stage_ids};
        for (size_t j = 0; j < source->stage_count; j++)
            stage_names[j] = source->stages[j].name;
        stage_names += source->stage_count;
        stage_ids += source->stage_count;
    }
    int code = store_prepare(options, source_names, plan->mapping_count, &options->start_number, &job->error);
    for (size_t i = 0; code == EP_OK && i < plan->mapping_count; i++)
        plan->mappings[i].store_id = source_names[i].source_id;
    return code;
}

/* Makes the store ready for `eventpipe import` to write: creates or migrates it, registers the sources, and
 * opens it. --dry-run does not call it, because it must create nothing. Returns 0 or a negative code with a
 * message. */
static int prepare_and_open_store(struct import_job *job)
{
    const struct import_plan *plan = &job->plan;
    struct store_options options = make_store_options(job);
    size_t stage_count = 0;
    for (size_t i = 0; i < plan->mapping_count; i++)
        stage_count += plan->mappings[i].source->stage_count;
    struct store_names *source_names = calloc(plan->mapping_count + 1, sizeof *source_names);
    const char **stage_names = calloc(stage_count + 1, sizeof *stage_names);
    int64_t *stage_ids = calloc(stage_count + 1, sizeof *stage_ids);
    int code = source_names == NULL || stage_names == NULL || stage_ids == NULL
                   ? base_error_set(&job->error, EP_ENOMEM, "out of memory")
                   : register_sources(job, &options, source_names, stage_names, stage_ids);
    if (code == EP_OK)
        code = store_open(&options, &job->store, &job->error);
    free(source_names);
    free(stage_names);
    free(stage_ids);
    return code;
}

/* Called for each source in the store during `eventpipe import --dry-run`: puts its id into the plan. A
 * planned source that gets no id is new, so that all its events count as new. */
static int on_stored_source(int64_t source_id, const char *source_name, void *user)
{
    struct import_plan *plan = user;
    for (size_t i = 0; i < plan->mapping_count; i++)
        if (strcmp(plan->mappings[i].source->id, source_name) == 0)
            plan->mappings[i].store_id = source_id;
    return EP_OK;
}

/* Opens the store for `eventpipe import --dry-run`, which creates nothing; if there is no store yet,
 * job->store stays NULL. It takes the lock, too, so that a trial fails while a daemon runs, as the
 * import would. Returns 0 or a negative code with a message. */
static int open_store_read_only(struct import_job *job)
{
    struct store_options options = make_store_options(job);
    int code = store_open(&options, &job->store, &job->error);
    if (code == EP_ENOENT)
        return EP_OK; /* there is none yet: job->store stays NULL */
    if (code == EP_OK)
        code = lock_store(job);
    if (code == EP_OK)
        code = store_each_source(job->store, on_stored_source, &job->plan);
    return code;
}

/* Imports the planned events of the Go database into the store in one transaction; with --dry-run it only
 * counts them. Closes the store and releases its lock in every case. Returns the exit status of `eventpipe
 * import`. */
static int import_into_store(struct import_job *job)
{
    int code = job->is_trial ? open_store_read_only(job) : lock_store(job);
    if (code == EP_OK && !job->is_trial)
        code = prepare_and_open_store(job);
    if (code == EP_OK)
        code = import_run(&job->plan, job->store, job->is_trial, shm_realtime_ms(), &job->error);
    store_close(&job->store);
    if (job->lock_fd >= 0)
        close(job->lock_fd);
    return code == EP_OK ? CONTROL_DONE : CONTROL_FAILED;
}

/* ---- the report, for people ---- */

/* Prints one line of the report of `eventpipe import` for people. Control characters are replaced, because
 * names and UIDs come from a foreign file. */
__attribute__((format(printf, 2, 3))) static void print_line(struct text *out, const char *format, ...)
{
    char text[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    cli_table_write_text(out, text, 0);
    base_text_append(out, "\n");
}

static const char *event_or_events(uint64_t count)
{
    return count == 1 ? "event" : "events";
}

/* Prints, for one source of `eventpipe import`, how many imported events wait for each stage, and how many
 * have passed all stages. `would_prefix` is "would " for --dry-run, else "". */
static void print_stage_counts(struct text *out, const struct import_mapping *mapping,
                               const char *would_prefix)
{
    for (size_t i = 0; i < mapping->source->stage_count; i++)
        if (mapping->stage_event_counts[i] > 0)
            print_line(out, "  %s: %" PRIu64 " %s %sgo on here", mapping->source->stages[i].name,
                       mapping->stage_event_counts[i], event_or_events(mapping->stage_event_counts[i]),
                       would_prefix);
    if (mapping->complete_count > 0)
        print_line(out, "  all stages done: %" PRIu64 " %s %sbe completed at once", mapping->complete_count,
                   event_or_events(mapping->complete_count), *would_prefix != '\0' ? would_prefix : "will ");
}

/* Prints, for one source of `eventpipe import`, what the user should check: stages that the Go database
 * names and the configuration lacks, and events whose data has another uid than their row. */
static void print_source_warnings(struct text *out, const struct import_mapping *mapping)
{
    for (size_t i = 0; i < mapping->unknown_stage_count; i++) {
        const struct import_unknown_stage *unknown = &mapping->unknown_stages[i];
        print_line(out,
                   "  warning: the configuration has no stage \"%s\", which %" PRIu64 " %s done and %" PRIu64
                   " %s not",
                   unknown->name, unknown->done_count, unknown->done_count == 1 ? "event has" : "events have",
                   unknown->waiting_count, unknown->waiting_count == 1 ? "has" : "have");
    }
    if (mapping->other_uid_count > 0)
        print_line(
            out,
            "  warning: %" PRIu64
            " %s another uid than the row (first: row \"%s\", event \"%s\"); the import uses the row's",
            mapping->other_uid_count, mapping->other_uid_count == 1 ? "event names" : "events name",
            mapping->first_row_uid, mapping->first_event_uid);
}

/* Prints the report of `eventpipe import` about one source for people: how many events were imported, the
 * cursor, the stages they wait for, and warnings. With `is_trial` it says what would be done. */
static void print_source_report(struct text *out, const struct import_mapping *mapping, bool is_trial)
{
    const char *would = is_trial ? "would " : "", *would_be = is_trial ? "would be " : "";
    bool is_renamed = strcmp(mapping->from_id, mapping->source->id) != 0;
    print_line(out,
               "%s%s%s%s: %" PRIu64 " %s %simported, %" PRIu64 " already known, %" PRIu64 " corrupt, %" PRIu64
               " %s locked",
               mapping->source->id, is_renamed ? " (" : "", is_renamed ? mapping->from_id : "",
               is_renamed ? " in the file)" : "", mapping->imported_count,
               event_or_events(mapping->imported_count), would_be, mapping->known_count,
               mapping->corrupt_count, mapping->locked_count, mapping->locked_count == 1 ? "was" : "were");
    if (mapping->cursor == NULL || mapping->cursor[0] == '\0')
        print_line(out, "  cursor: the file has none");
    else if (mapping->is_cursor_set)
        print_line(out, "  cursor: %sset to %s", would_be, mapping->cursor);
    else
        print_line(out, "  cursor: %skept, the store has one; in the file it is %s", would_be,
                   mapping->cursor);
    print_stage_counts(out, mapping, would);
    print_source_warnings(out, mapping);
}

/* ---- the report, for programs ---- */

static void write_bool_member(struct text *out, const char *name, bool flag)
{
    json_write_key(out, name);
    base_text_append(out, flag ? "true" : "false");
}

/* Writes the stages of one source into the report of `eventpipe import --json`: how many events wait for
 * each, and which stages of the Go database the configuration lacks. */
static void write_stage_members(struct text *out, const struct import_mapping *mapping)
{
    base_text_append(out, ",\"stages\":[");
    for (size_t i = 0; i < mapping->source->stage_count; i++) {
        base_text_append(out, i > 0 ? ",{\"name\":" : "{\"name\":");
        json_write_string(out, mapping->source->stages[i].name, strlen(mapping->source->stages[i].name));
        json_write_member_uint(out, "events", mapping->stage_event_counts[i]);
        base_text_append(out, "}");
    }
    base_text_append(out, "],\"unknown_stages\":[");
    for (size_t i = 0; i < mapping->unknown_stage_count; i++) {
        base_text_append(out, i > 0 ? ",{\"name\":" : "{\"name\":");
        json_write_string(out, mapping->unknown_stages[i].name, strlen(mapping->unknown_stages[i].name));
        json_write_member_uint(out, "done", mapping->unknown_stages[i].done_count);
        json_write_member_uint(out, "waiting", mapping->unknown_stages[i].waiting_count);
        base_text_append(out, "}");
    }
    base_text_append(out, "]");
}

/* Writes the report of `eventpipe import --json` about one source as one JSON line. eventpipe(1) documents
 * each member. */
static void write_source_report_json(struct text *out, const struct import_mapping *mapping, bool is_trial)
{
    base_text_append(out, "{\"source\":");
    json_write_string(out, mapping->source->id, strlen(mapping->source->id));
    json_write_member_text(out, "from", mapping->from_id);
    write_bool_member(out, "dry_run", is_trial);
    json_write_member_uint(out, "imported", mapping->imported_count);
    json_write_member_uint(out, "known", mapping->known_count);
    json_write_member_uint(out, "corrupt", mapping->corrupt_count);
    json_write_member_uint(out, "locked", mapping->locked_count);
    json_write_member_text(out, "cursor", mapping->cursor);
    write_bool_member(out, "cursor_set", mapping->is_cursor_set);
    write_stage_members(out, mapping);
    json_write_member_uint(out, "complete", mapping->complete_count);
    json_write_member_uint(out, "other_uids", mapping->other_uid_count);
    base_text_append(out, "}\n");
}

/* ---- the command ---- */

/* Checks, before `eventpipe import` does anything, that the configuration has no problems and that its
 * store outlives the daemon. Returns an exit status, with the message in `error`. */
static int check_import_config(const struct cli *cli, struct error *error)
{
    if (cli->config == NULL)
        return base_error_set(
            error, cli->config_path == NULL ? CONTROL_USAGE : CONTROL_FAILED,
            cli->config_path == NULL
                ? "import needs the configuration: give -c FILE"
                : "import needs a configuration without problems (eventpipe check lists them)");
    if (strncmp(cli->config->storage, "sqlite:", strlen("sqlite:")) != 0)
        return base_error_set(
            error, CONTROL_FAILED,
            "storage %s is lost when the daemon ends: import needs a persistent store, sqlite:PATH",
            cli->config->storage);
    return CONTROL_DONE;
}

/* Runs `eventpipe import FILE`, which imports the events and cursors of the Go program's database into the
 * store while the daemon is down. Prints a report on each source and returns an exit status. */
int cli_import(struct cli *cli)
{
    struct import_job job = {.cli = cli, .lock_fd = -1, .is_trial = cli_has_option(cli, CLI_OPTION_DRY_RUN)};
    int status = check_import_config(cli, &job.error);
    if (status == CONTROL_DONE)
        status = open_go_database(&job);
    if (status == CONTROL_DONE)
        status = plan_import(&job);
    if (status == CONTROL_DONE)
        status = import_into_store(&job);
    for (size_t i = 0; status == CONTROL_DONE && i < job.plan.mapping_count; i++) {
        if (cli_has_option(cli, CLI_OPTION_JSON))
            write_source_report_json(&cli->out, &job.plan.mappings[i], job.is_trial);
        else
            print_source_report(&cli->out, &job.plan.mappings[i], job.is_trial);
    }
    if (status != CONTROL_DONE)
        cli_print_message("%s", job.error.message);
    else if (job.plan.mapping_count == 0)
        cli_print_message("%s contains no sources and no events", cli->args[0]);
    import_close(&job.plan);
    import_go_close(&job.database);
    return status;
}
