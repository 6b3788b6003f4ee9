/* SPDX-License-Identifier: MIT */
/*
 * A program that uses libeventpipe with its own client: reads the lines of a text file as events, counts the
 * words of each in one of four worker processes, and appends the results to a report.
 *
 *     library FILE STORE REPORT
 *
 * It ends at the end of the file. The next run on the same store reads only the lines added since. SIGINT and
 * SIGTERM stop it gracefully: the next run processes the remaining events.
 *
 * Build: cc -o library library.c $(pkg-config --cflags --libs libeventpipe)
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "src/eventpipe.h" /* <eventpipe.h> where the library is installed */

/* ---- the client: a page has up to `limit` lines; its cursor is the offset after them */

/* Opens the file whose lines become events. eventpipe calls this in the source's producer process before the
 * first fetch. */
static int open_lines(void *user, const struct ep_filter *filter, void **session, char *errbuf,
                      size_t errbuf_size)
{
    const char *path = user;
    FILE *file = fopen(path, "r");

    (void)filter;
    if (file == NULL) {
        snprintf(errbuf, errbuf_size, "%s: %s", path, strerror(errno));
        return EP_EBACKEND;
    }
    *session = file;
    return EP_OK;
}

/* Adds a line to the page as an event: the UID is its offset in the file, the payload the line as a JSON
 * string. */
static int add_line(ep_page *page, long long at, char *line)
{
    char uid[32];
    line[strcspn(line, "\n")] = '\0';
    cJSON *text = cJSON_CreateString(line);
    char *payload = cJSON_PrintUnformatted(text);
    snprintf(uid, sizeof uid, "%lld", at);
    int result =
        payload == NULL ? EP_ENOMEM : ep_page_add(page, &(struct ep_event){.uid = uid, .payload = payload});
    cJSON_free(payload);
    cJSON_Delete(text);
    return result;
}

/* Fetches a page: up to `limit` lines after the cursor, which is an offset in the file. eventpipe calls this
 * in the producer process again and again, until it returns EP_END at the end of the file. */
static int fetch_lines(void *session, const struct ep_filter *filter, const char *cursor, uint32_t limit,
                       uint64_t wait_ms, ep_page *page)
{
    FILE *file = session;
    long long at = cursor != NULL ? atoll(cursor) : 0;
    char *line = NULL, end[32];
    size_t room = 0;
    ssize_t length = 0;
    int result = EP_OK;

    (void)filter;
    (void)wait_ms; /* a file needs no waiting */
    if (fseeko(file, at, SEEK_SET) != 0)
        return ep_page_fail(page, 0, "cannot seek to byte %lld: %s", at, strerror(errno));
    bool over = false;
    for (uint32_t count = 0; result == EP_OK && !over && count < limit; count++) {
        length = getline(&line, &room, file);
        over = length <= 0 || line[length - 1] != '\n'; /* the end, or a line that is still being written */
        if (!over) {
            result = add_line(page, at, line);
            at += length;
        }
    }
    free(line);
    if (ferror(file))
        return ep_page_fail(page, 0, "cannot read: %s", strerror(errno));
    snprintf(end, sizeof end, "%lld", at);
    if (result == EP_OK)
        result = ep_page_set_cursor(page, end);
    return result == EP_OK && over ? EP_END : result;
}

static void close_lines(void *session)
{
    fclose(session);
}

static const struct ep_client lines = {.open = open_lines, .events_get = fetch_lines, .close = close_lines};

/* ---- the stages */

/* The first stage: counts the words of a line into the event's context. A worker calls this for each event;
 * EP_REMOVE drops an empty line, EP_REJECT makes the event a dead letter. */
static enum ep_answer count_words(ep_call *call, void *state)
{
    const char *line = cJSON_GetStringValue(cJSON_GetObjectItem(ep_call_event(call), "payload"));
    int words = 0;

    (void)state;
    if (line == NULL)
        return EP_REJECT;
    if (line[0] == '\0')
        return EP_REMOVE; /* skip empty lines */
    for (const char *at = line; *at != '\0'; at++)
        words += *at != ' ' && (at == line || at[-1] == ' ');
    cJSON_AddNumberToObject(ep_call_context(call), "words", words);
    return EP_PROCESSED;
}

/* Opens the report for the second stage; its path comes from the stage's options (JSON text). Each worker of
 * the stage calls this once when it starts. */
static int open_report(const char *options, void **state, char *errbuf, size_t errbuf_size)
{
    cJSON *tree = cJSON_Parse(options);
    const char *path = cJSON_GetStringValue(cJSON_GetObjectItem(tree, "path"));
    FILE *report = path != NULL ? fopen(path, "a") : NULL;

    if (report == NULL)
        snprintf(errbuf, errbuf_size, "%s: %s", path != NULL ? path : "no path", strerror(errno));
    else
        setvbuf(report, NULL, _IOLBF, BUFSIZ);
    cJSON_Delete(tree);
    *state = report;
    return report != NULL ? 0 : -1;
}

/* The second stage: appends the event's key and word count to the report. A worker calls this for each event.
 * EP_ERROR lets eventpipe try the event again later, for example when the disk is full. */
static enum ep_answer write_report_line(ep_call *call, void *state)
{
    double words = cJSON_GetNumberValue(cJSON_GetObjectItem(ep_call_context(call), "words"));

    /* After a crash the report may have a line twice: both have the same key. */
    if (fprintf(state, "%s\t%.0f\n", ep_call_key(call), words) > 0)
        return EP_PROCESSED;
    clearerr(state);
    ep_call_set_reason(call, "cannot write the report: %s", strerror(errno));
    return EP_ERROR; /* perhaps the disk is full: eventpipe tries again later */
}

static void close_report(void *state)
{
    fclose(state);
}

static const struct ep_stage weigh_stage = {.abi = EP_STAGE_ABI, .name = "weigh", .process = count_words};
static const struct ep_stage report_stage = {.abi = EP_STAGE_ABI,
                                             .name = "report",
                                             .init = open_report,
                                             .process = write_report_line,
                                             .fini = close_report};

/* ---- the program */

static ep_manager *manager;

static void on_stop_signal(int signal)
{
    (void)signal;
    ep_manager_stop(manager);
}

/* Makes the options of the report stage as JSON text; the caller frees it. */
static char *make_report_options(const char *path)
{
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "path", path);
    char *text = cJSON_PrintUnformatted(tree);
    cJSON_Delete(tree);
    return text;
}

/* Adds the source and its two stages to the manager, runs them until the file ends, and prints metrics or the
 * error. */
static int run_pipeline(const char *path, const char *report_path)
{
    struct ep_source_params params = {.id = "lines",
                                      .client = &lines,
                                      .client_user = (void *)path,
                                      .page_size = 200};
    struct ep_stage_options four_workers = EP_STAGE_OPTIONS_INIT, report_options = EP_STAGE_OPTIONS_INIT;
    struct ep_metrics *metrics = NULL;
    ep_source *source;

    four_workers.concurrency = 4;
    char *options = make_report_options(report_path);
    report_options.options = options;
    int result = ep_source_add(manager, &params, &source);
    if (result == EP_OK)
        result = ep_source_push(source, &weigh_stage, &four_workers);
    if (result == EP_OK)
        result = ep_source_push(source, &report_stage, &report_options);
    if (result == EP_OK)
        result = ep_source_run_and_measure(source, &metrics);
    if (result == EP_OK)
        ep_metrics_print(metrics, stdout);
    else
        fprintf(stderr, "library: %s\n", ep_errmsg(manager));
    ep_metrics_free(&metrics);
    free(options);
    return result;
}

/* The program: opens a manager, runs the pipeline in child processes and closes the manager. SIGINT and
 * SIGTERM stop the run gracefully. */
int main(int argc, char **argv)
{
    char storage[4096];

    if (argc != 4) {
        fprintf(stderr, "usage: library FILE STORE REPORT\n");
        return EXIT_FAILURE;
    }
    snprintf(storage, sizeof storage, "sqlite:%s", argv[2]);
    int result = ep_manager_open(&(struct ep_manager_params){.storage = storage}, &manager);
    if (result != EP_OK) {
        fprintf(stderr, "library: %s\n", ep_strerror(result));
        return EXIT_FAILURE;
    }
    sigaction(SIGINT, &(struct sigaction){.sa_handler = on_stop_signal}, NULL);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_stop_signal}, NULL);
    result = run_pipeline(argv[1], argv[3]);
    sigaction(SIGINT, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
    ep_manager_close(&manager);
    return result == EP_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
