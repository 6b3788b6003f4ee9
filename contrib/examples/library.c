/* SPDX-License-Identifier: MIT */
/*
 * A program of one's own around libeventpipe, with a client of its own: takes the lines of a text file as
 * events, weighs each in one of four processes, and appends the results to a report.
 *
 *     library FILE STORE REPORT
 *
 * It ends at the end of the file. Run again on the same store, it takes only the lines that have been added
 * since. SIGINT and SIGTERM stop it gracefully: what is not done then is done by the next run.
 *
 * Build: cc -o library library.c $(pkg-config --cflags --libs libeventpipe)
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "src/eventpipe.h" /* <eventpipe.h> where the library is installed */

/* ---- the client: a page is up to `limit` lines, the cursor that follows it is their end in the file. */

static int lines_open(void *user, const struct ep_filter *filter, void **session, char *errbuf,
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

/* An event is a line: its uid is where it begins, its payload the line as a JSON string. */
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

static int lines_get(void *session, const struct ep_filter *filter, const char *cursor, uint32_t limit,
                     uint64_t wait_ms, ep_page *page)
{
    FILE *file = session;
    long long at = cursor != NULL ? atoll(cursor) : 0;
    char *line = NULL, end[32];
    size_t room = 0;
    ssize_t length = 0;
    int result = EP_OK;

    (void)filter;
    (void)wait_ms; /* the end of a file need not be waited for */
    if (fseeko(file, at, SEEK_SET) != 0)
        return ep_page_fail(page, 0, "cannot go to byte %lld: %s", at, strerror(errno));
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

static void lines_close(void *session)
{
    fclose(session);
}

static const struct ep_client lines = {.open = lines_open, .events_get = lines_get, .close = lines_close};

/* ---- the stages */

static enum ep_answer weigh(ep_call *call, void *state)
{
    const char *line = cJSON_GetStringValue(cJSON_GetObjectItem(ep_call_event(call), "payload"));
    int words = 0;

    (void)state;
    if (line == NULL)
        return EP_REJECT;
    if (line[0] == '\0')
        return EP_REMOVE; /* an empty line is no news */
    for (const char *at = line; *at != '\0'; at++)
        words += *at != ' ' && (at == line || at[-1] == ' ');
    cJSON_AddNumberToObject(ep_call_context(call), "words", words);
    return EP_PROCESSED;
}

/* The report, opened once in the worker. Its path is in the stage's options, JSON text. */
static int report_open(const char *options, void **state, char *errbuf, size_t errbuf_size)
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

static enum ep_answer report(ep_call *call, void *state)
{
    double words = cJSON_GetNumberValue(cJSON_GetObjectItem(ep_call_context(call), "words"));

    /* After a crash a line may stand there twice: the key tells. */
    if (fprintf(state, "%s\t%.0f\n", ep_call_key(call), words) > 0)
        return EP_PROCESSED;
    clearerr(state);
    ep_call_set_reason(call, "cannot write the report: %s", strerror(errno));
    return EP_ERROR; /* the disk is full, perhaps: again in a while */
}

static void report_close(void *state)
{
    fclose(state);
}

static const struct ep_stage weighs = {.abi = EP_STAGE_ABI, .name = "weigh", .process = weigh};
static const struct ep_stage reports = {
    .abi = EP_STAGE_ABI, .name = "report", .init = report_open, .process = report, .fini = report_close};

/* ---- the program */

static ep_manager *manager;

static void stop(int signal)
{
    (void)signal;
    ep_manager_stop(manager);
}

/* The options of the reporting stage, to be freed. */
static char *report_options(const char *path)
{
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "path", path);
    char *text = cJSON_PrintUnformatted(tree);
    cJSON_Delete(tree);
    return text;
}

static int run(const char *path, const char *report_path)
{
    struct ep_source_params params = {.id = "lines",
                                      .client = &lines,
                                      .client_user = (void *)path,
                                      .page_size = 200};
    struct ep_stage_options four = EP_STAGE_OPTIONS_INIT, one = EP_STAGE_OPTIONS_INIT;
    struct ep_metrics *metrics = NULL;
    ep_source *source;

    four.concurrency = 4;
    char *options = report_options(report_path);
    one.options = options;
    int result = ep_source_add(manager, &params, &source);
    if (result == EP_OK)
        result = ep_source_push(source, &weighs, &four);
    if (result == EP_OK)
        result = ep_source_push(source, &reports, &one);
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
    sigaction(SIGINT, &(struct sigaction){.sa_handler = stop}, NULL);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = stop}, NULL);
    result = run(argv[1], argv[3]);
    sigaction(SIGINT, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
    ep_manager_close(&manager);
    return result == EP_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
