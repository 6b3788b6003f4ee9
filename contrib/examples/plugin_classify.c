/* SPDX-License-Identifier: MIT */
/*
 * A plugin: puts each event into a class by a number in its context, as seismologists do by magnitude.
 *
 *     plugin: /usr/lib/eventpipe/plugin_classify.so
 *     options: {thresholds: [2.0, 4.0, 5.0, 6.0, 7.0, 8.0]}
 *
 * reads context.magnitude and writes context.class: below the first threshold it is "micro", from there on
 * "minor", then "light", and so on; "unknown" if there is no magnitude. Without thresholds in the
 * options those above apply.
 *
 * A worker loads the plugin and calls init once, process for each event, fini at its end, all in one thread.
 * When process crashes, only that worker crashes: eventpipe starts another and tries the event again.
 *
 * Build: cc -shared -fPIC -o plugin_classify.so plugin_classify.c $(pkg-config --cflags libeventpipe)
 */
#include <stdio.h>
#include <stdlib.h>

#include "src/eventpipe.h" /* <eventpipe.h> where the library is installed */

#define THRESHOLDS_MAX 6
static const char *const class_names[THRESHOLDS_MAX + 1] = {"micro",  "minor", "light", "moderate",
                                                            "strong", "major", "great"};
static const double usual_thresholds[THRESHOLDS_MAX] = {2.0, 4.0, 5.0, 6.0, 7.0, 8.0};

struct classify {
    double thresholds[THRESHOLDS_MAX]; /* rising */
    int count;
};

/* Reads the thresholds from the plugin's options, rising numbers; 0 if they are anything else. Only
 * classify_init calls this. */
static int read_thresholds(const cJSON *thresholds, struct classify *classify)
{
    const cJSON *threshold;
    int count = 0;

    if (!cJSON_IsArray(thresholds))
        return 0;
    cJSON_ArrayForEach(threshold, thresholds)
    {
        if (count == THRESHOLDS_MAX || !cJSON_IsNumber(threshold))
            return 0;
        if (count > 0 && threshold->valuedouble <= classify->thresholds[count - 1])
            return 0;
        classify->thresholds[count++] = threshold->valuedouble;
    }
    classify->count = count;
    return count > 0;
}

/* Reads the plugin's options. A worker calls this once after it has loaded the plugin; if it fails, its
 * message goes to eventpipe's log, so it says what was expected and what was found. */
static int classify_init(const char *options, void **state, char *errbuf, size_t errbuf_size)
{
    struct classify *classify = calloc(1, sizeof *classify);
    if (classify == NULL) {
        snprintf(errbuf, errbuf_size, "out of memory");
        return EP_ENOMEM;
    }
    cJSON *tree = cJSON_Parse(options);
    const cJSON *thresholds = cJSON_GetObjectItemCaseSensitive(tree, "thresholds");
    int fine = 1;
    if (thresholds != NULL) {
        fine = read_thresholds(thresholds, classify);
    } else {
        for (int i = 0; i < THRESHOLDS_MAX; i++)
            classify->thresholds[i] = usual_thresholds[i];
        classify->count = THRESHOLDS_MAX;
    }
    cJSON_Delete(tree);
    if (!fine) {
        snprintf(errbuf, errbuf_size, "options.thresholds: expected 1 to %d rising numbers, found %s",
                 THRESHOLDS_MAX, options);
        free(classify);
        return EP_EINVAL;
    }
    *state = classify;
    return EP_OK;
}

/* Writes the class of one event into its context, by the context's magnitude. A worker calls this for each
 * event. EP_ERROR lets eventpipe try the event again later. */
static enum ep_answer classify_process(ep_call *call, void *state)
{
    const struct classify *classify = state;
    cJSON *context = ep_call_context(call); /* changes in it are stored with the answer */
    if (context == NULL) {
        ep_call_set_reason(call, "the context cannot be read");
        return EP_ERROR; /* tried again later */
    }
    const cJSON *magnitude = cJSON_GetObjectItemCaseSensitive(context, "magnitude");
    const char *name = "unknown";
    if (cJSON_IsNumber(magnitude)) {
        int rank = 0;
        while (rank < classify->count && magnitude->valuedouble >= classify->thresholds[rank])
            rank++;
        name = class_names[rank];
    }
    /* A second attempt may find the class of the first: replace it. */
    cJSON_DeleteItemFromObjectCaseSensitive(context, "class");
    if (cJSON_AddStringToObject(context, "class", name) == NULL) {
        ep_call_set_reason(call, "out of memory");
        return EP_ERROR;
    }
    return EP_PROCESSED;
}

static void classify_fini(void *state)
{
    free(state);
}

EP_API extern const struct ep_stage ep_plugin_stage;
const struct ep_stage ep_plugin_stage = {
    .abi = EP_STAGE_ABI,
    .name = "classify",
    .init = classify_init,
    .process = classify_process,
    .fini = classify_fini,
};
