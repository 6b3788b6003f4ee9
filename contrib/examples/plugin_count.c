/* SPDX-License-Identifier: MIT */
/*
 * An example plugin: reads one member of the event's context (options {"member": "action"}), puts the event
 * into a class by it, and writes the class and a running number into the context. A worker loads the plugin
 * and calls init once, process for each event, fini at its end. Each worker counts for itself: use
 * concurrency 1 to count all events of a class.
 *
 * Build: cc -shared -fPIC -o plugin_count.so plugin_count.c $(pkg-config --cflags libeventpipe)
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "src/eventpipe.h" /* <eventpipe.h> where the library is installed */

/* The actions of dpkg's log and the class each belongs to; the last line is for all others. */
static const struct {
    const char *action, *class;
} classes[] = {
    {"install", "requested"},
    {"upgrade", "requested"},
    {"configure", "requested"},
    {"trigproc", "requested"},
    {"remove", "removed"},
    {"purge", "removed"},
    {"config-files", "removed"},
    {"not-installed", "removed"},
    {"installed", "installed"},
    {"half-installed", "underway"},
    {"half-configured", "underway"},
    {"unpacked", "underway"},
    {"triggers-pending", "underway"},
    {"triggers-awaited", "underway"},
    {"startup", "dpkg"},
    {NULL, "other"},
};
#define CLASS_COUNT (sizeof classes / sizeof classes[0])

struct count {
    char member[64];
    uint64_t seen[CLASS_COUNT]; /* by the first line of each class in the table */
};

/* Reads from the plugin's options which member of the context to classify by. A worker calls this once after
 * it has loaded the plugin. */
static int count_init(const char *options, void **state, char *errbuf, size_t errbuf_size)
{
    struct count *count = calloc(1, sizeof *count);
    cJSON *tree = cJSON_Parse(options);
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(tree, "member");
    int code = EP_EINVAL;
    if (count == NULL)
        snprintf(errbuf, errbuf_size, "out of memory");
    else if (!cJSON_IsString(member) || strlen(member->valuestring) >= sizeof count->member)
        snprintf(errbuf, errbuf_size, "options: expected {\"member\": \"NAME\"}, found %s", options);
    else
        code = EP_OK;
    if (code == EP_OK) {
        strcpy(count->member, member->valuestring);
        *state = count;
    } else {
        free(count);
    }
    cJSON_Delete(tree);
    return code;
}

/* Returns the first line in the table of the class that an action belongs to; that line holds the class's
 * counter. */
static size_t find_class_line(const char *action)
{
    size_t line = 0;
    while (classes[line].action != NULL && strcmp(classes[line].action, action) != 0)
        line++;
    for (size_t first = 0; first < line; first++)
        if (strcmp(classes[first].class, classes[line].class) == 0)
            return first;
    return line;
}

/* Writes class and running number of one event into its context. A worker calls this for each event; EP_ERROR
 * lets eventpipe try the event again later. */
static enum ep_answer count_process(ep_call *call, void *state)
{
    struct count *count = state;
    cJSON *context = ep_call_context(call);
    if (context == NULL) {
        ep_call_set_reason(call, "out of memory");
        return EP_ERROR;
    }
    const cJSON *action = cJSON_GetObjectItemCaseSensitive(context, count->member);
    size_t class = find_class_line(cJSON_IsString(action) ? action->valuestring : "");
    count->seen[class]++;
    /* A second attempt may find the members of the first: replace them. */
    cJSON_DeleteItemFromObjectCaseSensitive(context, "class");
    cJSON_DeleteItemFromObjectCaseSensitive(context, "number");
    cJSON_AddStringToObject(context, "class", classes[class].class);
    cJSON_AddNumberToObject(context, "number", (double)count->seen[class]);
    return EP_PROCESSED;
}

static void count_fini(void *state)
{
    free(state);
}

EP_API extern const struct ep_stage ep_plugin_stage;
const struct ep_stage ep_plugin_stage = {
    .abi = EP_STAGE_ABI,
    .name = "count",
    .init = count_init,
    .process = count_process,
    .fini = count_fini,
};
