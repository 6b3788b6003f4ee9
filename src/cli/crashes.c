/* SPDX-License-Identifier: MIT */
/*
 * crashes: lists which processes crashed, when, how, after what uptime, over which event, and their
 * last stderr output. Runs in eventpipe and needs no other process: crashes that the keeper has stored
 * come from the store, the others from the segment, even from one that a killed daemon left.
 *
 * The segment is read first. A crash that is stored in between appears in both and is shown once.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/crash_log.h"
#include "src/cli/cli.h"
#include "src/cli/status.h"
#include "src/cli/table.h"
#include "src/control/admin.h"

struct segment_crash {
    bool is_stored; /* the store has it, too */
    struct crash_record crash;
};

struct crash_list {
    struct cli *cli;
    const char *source, *stage; /* only these; NULL = all */
    size_t source_bytes;
    bool has_source, has_stage;
    struct text *crash_lines; /* one JSON text a crash that is to be shown */
    size_t crash_count;
    struct segment_crash *segment_crashes; /* in the segment only, as far as is known yet */
    size_t segment_crash_count;
};

/* Returns whether the user wants to see this crash: `eventpipe crashes SOURCE[/STAGE]` lists only crashes
 * of that source and stage, without an argument all crashes. */
static bool is_crash_wanted(const struct crash_list *list, const struct crash_record *crash)
{
    if (list->source == NULL)
        return true;
    return strlen(crash->source) == list->source_bytes &&
           memcmp(crash->source, list->source, list->source_bytes) == 0 &&
           (list->stage == NULL || strcmp(crash->stage, list->stage) == 0);
}

/* Appends ,"name":value to a JSON object that already has a member. `eventpipe crashes` writes each crash
 * with it. */
static void write_int_member(struct text *out, const char *name, int64_t value)
{
    base_text_append(out, ",\"");
    base_text_append(out, name);
    base_text_append(out, "\":");
    json_write_int(out, value);
}

static const char *make_empty_text_null(const char *text)
{
    return text[0] != '\0' ? text : NULL;
}

/* Writes a crash from the store or from shared memory as one JSON object. `eventpipe crashes --json` prints
 * it; the table for people is made from the same object, so that both show the same values. */
static void write_crash_json(const struct crash_record *crash, struct text *out)
{
    char crashed_text[32];
    control_admin_format_time(crash->crashed_ms, crashed_text, sizeof crashed_text);
    base_text_append(out, "{\"crashed\":");
    json_write_string(out, crashed_text, strlen(crashed_text));
    control_admin_write_member(out, "process", crash->process);
    control_admin_write_member(out, "kind", crash->kind);
    control_admin_write_member(out, "source", make_empty_text_null(crash->source));
    control_admin_write_member(out, "stage", make_empty_text_null(crash->stage));
    write_int_member(out, "pid", crash->pid);
    write_int_member(out, "uptime_ms", (int64_t)crash->uptime_ms);
    control_admin_write_member(out, "cause", crash->cause);
    write_int_member(out, "code", crash->code);
    control_admin_write_member(out, "how", crash->how);
    if (crash->event != 0)
        write_int_member(out, "number", (int64_t)store_event_number(crash->event));
    else
        base_text_append(out, ",\"number\":null");
    control_admin_write_member(out, "uid", make_empty_text_null(crash->uid));
    control_admin_write_member(out, "last_output", make_empty_text_null(crash->last_output));
    base_text_append(out, "}");
}

/* Adds a crash to the list of `eventpipe crashes`, unless it is of another source or stage than the user
 * asked for. Returns 0 or EP_ENOMEM. */
static int add_crash(struct crash_list *list, const struct crash_record *crash)
{
    if (!is_crash_wanted(list, crash))
        return EP_OK;
    struct text *larger_list = reallocarray(list->crash_lines, list->crash_count + 1, sizeof *larger_list);
    if (larger_list == NULL)
        return EP_ENOMEM;
    list->crash_lines = larger_list;
    larger_list[list->crash_count] = (struct text){0};
    write_crash_json(crash, &larger_list[list->crash_count]);
    return larger_list[list->crash_count++].failed ? EP_ENOMEM : EP_OK;
}

/* Called for each crash in the store, oldest first, while `eventpipe crashes` reads it. Adds the crash to
 * the list. If shared memory holds the same crash, it is marked there as stored, so that it is listed only
 * once. Returns 0 or EP_ENOMEM. */
static int on_stored_crash(const struct crash_record *crash, void *user)
{
    struct crash_list *list = user;
    for (size_t i = 0; i < list->segment_crash_count; i++)
        if (list->segment_crashes[i].crash.crashed_ms == crash->crashed_ms &&
            list->segment_crashes[i].crash.pid == crash->pid)
            list->segment_crashes[i].is_stored = true;
    return add_crash(list, crash);
}

/* Copies the crashes from the instance's shared memory before `eventpipe crashes` reads the store. They
 * include those that the keeper has not stored yet, for example because the daemon was killed. Returns 0
 * (also without shared memory) or EP_ENOMEM. */
static int read_segment_crashes(struct crash_list *list)
{
    const struct segment *segment = &list->cli->segment;
    if (list->cli->attach_error != 0)
        return EP_OK;
    list->segment_crashes = calloc(SHM_CRASHES, sizeof *list->segment_crashes);
    if (list->segment_crashes == NULL)
        return EP_ENOMEM;
    uint64_t log_end = crash_log_end(segment);
    for (uint64_t log_position = crash_log_first(segment);
         log_position < log_end && list->segment_crash_count < SHM_CRASHES; log_position++)
        if (crash_log_read(segment, log_position, &list->segment_crashes[list->segment_crash_count].crash))
            list->segment_crash_count++;
    return EP_OK;
}

/* ---- whether the source and the stage exist ---- */

/* Returns whether this is the source that the user named in `eventpipe crashes SOURCE[/STAGE]`. */
static bool is_wanted_source(const struct crash_list *list, const char *name)
{
    return strlen(name) == list->source_bytes && memcmp(name, list->source, list->source_bytes) == 0;
}

static bool is_wanted_stage(const struct crash_list *list, const char *name)
{
    return list->stage != NULL && strcmp(name, list->stage) == 0;
}

/* Looks up the source and stage that the user named in `eventpipe crashes SOURCE[/STAGE]` in the
 * configuration, so that a misspelt name can be told from a process that never crashed. */
static void find_names_in_config(struct crash_list *list, const struct config *config)
{
    for (size_t i = 0; i < config->source_count; i++) {
        const struct source_config *source = &config->sources[i];
        if (!is_wanted_source(list, source->id))
            continue;
        list->has_source = true;
        for (size_t j = 0; j < source->stage_count; j++)
            list->has_stage |= is_wanted_stage(list, source->stages[j].name);
    }
}

struct source_search {
    struct crash_list *list;
    int64_t id; /* of the source that is asked for, 0 = not found */
};

/* Called for each source in the store: if the user named it in `eventpipe crashes SOURCE[/STAGE]`, keeps
 * its id, because the store finds the stages of a source by that id. */
static int on_stored_source(int64_t source_id, const char *source_name, void *user)
{
    struct source_search *search = user;
    if (is_wanted_source(search->list, source_name))
        search->id = source_id;
    return EP_OK;
}

/* Called for each stage that the store has of the named source: records whether it is the stage that the
 * user named in `eventpipe crashes SOURCE/STAGE`. */
static int on_stored_stage(int64_t stage_id, const char *stage_name, void *user)
{
    struct crash_list *list = user;
    (void)stage_id;
    list->has_stage |= is_wanted_stage(list, stage_name);
    return EP_OK;
}

/* Looks up the source and stage that the user named for `eventpipe crashes` in the store. It still has
 * those that were removed from the configuration, whose crashes are listed, too. Returns 0 or an error code
 * of the store. */
static int find_names_in_store(struct crash_list *list, struct store *store)
{
    struct source_search search = {.list = list};
    int code = store_each_source(store, on_stored_source, &search);
    list->has_source |= search.id != 0;
    return code == EP_OK && search.id != 0 ? store_each_stage(store, search.id, on_stored_stage, list) : code;
}

/* Prints why the list of `eventpipe crashes` is empty: no process has crashed, or there is no source or
 * stage of the name that the user gave. */
static void report_empty_list(const struct crash_list *list)
{
    const struct cli *cli = list->cli;
    if (list->source == NULL)
        cli_print_message("%s: no process of this instance has crashed", cli->instance);
    else if (!list->has_source)
        cli_print_message("%s: there is no source %.*s", cli->instance, (int)list->source_bytes,
                          list->source);
    else if (list->stage != NULL && !list->has_stage)
        cli_print_message("%s: source %.*s has no stage %s", cli->instance, (int)list->source_bytes,
                          list->source, list->stage);
    else
        cli_print_message("%s: no process of %s has crashed", cli->instance, cli->args[0]);
}

/* Reads the stored crashes into the list of `eventpipe crashes`. The store is opened for reading only, so
 * the daemon may run meanwhile. *dropped_count is set to the number of crashes that the store no longer has
 * or never got. Returns 0 or a negative code with a message. */
static int read_store_crashes(struct crash_list *list, uint64_t *dropped_count, struct error *error)
{
    const struct cli *cli = list->cli;
    struct store_options options = {.url = cli->store_url, .instance = cli->instance, .readonly = true};
    struct store *store = NULL;
    if (cli->store_url == NULL)
        return base_error_set(error, EP_ENOENT, "the location of its store is not known: give -c FILE");
    int code = store_open(&options, &store, error);
    if (code != EP_OK)
        return code;
    code = store_each_crash(store, on_stored_crash, list, dropped_count);
    if (code == EP_OK && list->source != NULL)
        code = find_names_in_store(list, store);
    if (code != EP_OK)
        base_error_set(error, code, "%s", code == EP_ENOMEM ? "out of memory" : store_errmsg(store));
    store_close(&store);
    return code;
}

/* ---- for people ---- */

static const struct table_column crash_columns[] = {
    {"CRASHED", false, false, false}, {"PROCESS", false, true, false}, {"PID", true, false, false},
    {"UPTIME", true, false, false},   {"EVENT", false, true, false},   {"HOW", false, true, false},
};

static void add_member_cell(struct table *table, struct json_span line, const char *pointer)
{
    char *text = cli_queue_read_text(line, pointer);
    cli_table_add_cell(table, text != NULL && text[0] != '\0' ? text : "-", NULL);
    free(text);
}

/* The UID; if it is not known, the number that log and status show. */
static void add_event_cell(struct table *table, struct json_span line)
{
    char *uid = cli_queue_read_text(line, "/uid");
    add_member_cell(table, line, uid != NULL && uid[0] != '\0' ? "/uid" : "/number");
    free(uid);
}

/* Fills the HOW cell of a row in the table of `eventpipe crashes`: how the process ended, and the last
 * output that it wrote to stderr, which often names the reason. */
static void add_how_cell(struct table *table, struct json_span line)
{
    char *how = cli_queue_read_text(line, "/how"), *last_output = cli_queue_read_text(line, "/last_output"),
         how_text[1024];
    if (how != NULL && last_output != NULL) {
        snprintf(how_text, sizeof how_text, "%s%s%s", how,
                 last_output[0] != '\0' ? "; last stderr output: " : "", last_output);
        cli_table_add_cell(table, how_text, NULL);
    } else {
        table->failed = true;
    }
    free(how);
    free(last_output);
}

/* Prints the list of `eventpipe crashes` as a table for people, beginning with the crash at
 * `first_index`. */
static void print_table(const struct crash_list *list, size_t first_index)
{
    struct table table = {0};
    cli_table_open(&table, crash_columns, sizeof crash_columns / sizeof crash_columns[0]);
    for (size_t i = first_index; i < list->crash_count; i++) {
        struct json_span line = {list->crash_lines[i].text, list->crash_lines[i].bytes}, value;
        int64_t uptime_ms = 0;
        char age[40];
        add_member_cell(&table, line, "/crashed");
        add_member_cell(&table, line, "/process");
        add_member_cell(&table, line, "/pid");
        if (json_find(line, "/uptime_ms", &value))
            json_int64(value, &uptime_ms);
        cli_status_format_age((uint64_t)uptime_ms, age, sizeof age);
        cli_table_add_cell(&table, age, NULL);
        add_event_cell(&table, line);
        add_how_cell(&table, line);
    }
    cli_table_print(&table, &list->cli->out, cli_terminal_width(), 0, true);
    cli_table_close(&table);
}

/* Prints the last `limit` crashes of the list that `eventpipe crashes` has read: as a table, or with --json
 * as one JSON object per line. */
static void print_crashes(const struct crash_list *list, uint64_t limit)
{
    size_t first_index = list->crash_count > limit ? list->crash_count - (size_t)limit : 0;
    if (!cli_has_option(list->cli, CLI_OPTION_JSON)) {
        print_table(list, first_index);
        return;
    }
    for (size_t i = first_index; i < list->crash_count; i++) {
        base_text_append_bytes(&list->cli->out, list->crash_lines[i].text, list->crash_lines[i].bytes);
        base_text_append(&list->cli->out, "\n");
    }
}

/* ---- the command ---- */

/* Reads the number in `eventpipe crashes --limit N` into *limit, which is UINT64_MAX if the option is not
 * given. Returns 0, or CONTROL_USAGE after a message. */
static int parse_limit(const struct cli *cli, uint64_t *limit)
{
    const char *text = cli->values[CLI_OPTION_LIMIT];
    char *number_end;
    *limit = UINT64_MAX;
    if (text == NULL)
        return 0;
    errno = 0;
    *limit = strtoull(text, &number_end, 10);
    if (text[0] >= '0' && text[0] <= '9' && *number_end == '\0' && errno == 0 && *limit > 0)
        return 0;
    cli_print_message("--limit: expected a number of 1 or more, found \"%s\"", text);
    return CONTROL_USAGE;
}

static int report_store_failure(const struct crash_list *list, const struct error *error)
{
    cli_print_message("%s: its store cannot be read: %s%s", list->cli->instance, error->message,
                      list->crash_count > 0 ? "; the list has only crashes that are in shared memory" : "");
    return CONTROL_FAILED;
}

/* Does the work of `eventpipe crashes`: reads shared memory, then the store, and prints the crashes of
 * both. In this order no crash is missed; one that the keeper stores in between is found in both and listed
 * once. Returns an exit status. */
static int list_crashes(struct crash_list *list, uint64_t limit)
{
    struct cli *cli = list->cli;
    struct error error = {0};
    uint64_t dropped_count = 0;
    if (cli->attach_error == 0 && !cli->daemon_alive)
        cli_print_message("%s: the daemon (pid %d) no longer runs and did not end cleanly: its next start "
                          "records the crash",
                          cli->instance, (int)cli->segment.header->supervisor_pid);
    int memory_error = read_segment_crashes(list);
    if (list->source != NULL && cli->config != NULL)
        find_names_in_config(list, cli->config);
    int store_code = memory_error == EP_OK ? read_store_crashes(list, &dropped_count, &error) : EP_OK;
    for (size_t i = 0; memory_error == EP_OK && i < list->segment_crash_count; i++)
        if (!list->segment_crashes[i].is_stored)
            memory_error = add_crash(list, &list->segment_crashes[i].crash);
    if (memory_error != EP_OK) {
        cli_print_message("out of memory");
        return CONTROL_FAILED;
    }
    int exit_status = list->crash_count > 0 ? CONTROL_DONE : CONTROL_NOTHING;
    if (store_code != EP_OK)
        exit_status = report_store_failure(list, &error);
    else if (list->crash_count == 0)
        report_empty_list(list);
    if (list->crash_count > 0)
        print_crashes(list, limit);
    if (dropped_count > 0)
        cli_print_message("%s: %" PRIu64 " more crashes are no longer kept or were never recorded",
                          cli->instance, dropped_count);
    return exit_status;
}

/* Runs `eventpipe crashes [SOURCE[/STAGE]]`, which lists the processes that crashed, when, why and over
 * which event. Reads shared memory and the store itself, so it works while the daemon hangs or is down.
 * Returns an exit status. */
int cli_crashes(struct cli *cli)
{
    struct crash_list list = {.cli = cli};
    uint64_t limit;
    int status = parse_limit(cli, &limit);
    if (cli->arg_count > 0) {
        const char *slash = strchr(cli->args[0], '/');
        list.source = cli->args[0];
        list.source_bytes = slash != NULL ? (size_t)(slash - list.source) : strlen(list.source);
        list.stage = slash != NULL ? slash + 1 : NULL;
    }
    if (status == 0)
        status = list_crashes(&list, limit);
    for (size_t i = 0; i < list.crash_count; i++)
        base_text_free(&list.crash_lines[i]);
    free(list.crash_lines);
    free(list.segment_crashes);
    return status;
}
