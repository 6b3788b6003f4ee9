/* SPDX-License-Identifier: MIT */
/* A plugin for test_stage_plugin: does what its options say, and counts its calls. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/eventpipe.h"

struct trial {
    int calls;
    cJSON *options;
};

static int trial_init(const char *options, void **state, char *errbuf, size_t errbuf_size)
{
    cJSON *tree = cJSON_Parse(options);
    const cJSON *fail = cJSON_GetObjectItem(tree, "fail");
    if (cJSON_IsString(fail)) {
        snprintf(errbuf, errbuf_size, "%s", fail->valuestring);
        cJSON_Delete(tree);
        return 17;
    }
    struct trial *trial = calloc(1, sizeof *trial);
    if (trial == NULL) {
        cJSON_Delete(tree);
        return EP_ENOMEM;
    }
    trial->options = tree;
    *state = trial;
    return 0;
}

static enum ep_answer trial_process(ep_call *call, void *state)
{
    struct trial *trial = state;
    const cJSON *answer = cJSON_GetObjectItem(trial->options, "answer");
    cJSON_AddNumberToObject(ep_call_context(call), "calls", ++trial->calls);
    ep_call_set_reason(call, "said by %s", ep_call_key(call));
    ep_call_set_retry_after(call, 250);
    return (enum ep_answer)(cJSON_IsNumber(answer) ? answer->valueint : EP_PROCESSED);
}

/* Leaves a trace where its options name a file. */
static void trial_fini(void *state)
{
    struct trial *trial = state;
    const char *trace = cJSON_GetStringValue(cJSON_GetObjectItem(trial->options, "trace"));
    FILE *file = trace != NULL ? fopen(trace, "w") : NULL;
    if (file != NULL) {
        fprintf(file, "%d calls", trial->calls);
        fclose(file);
    }
    cJSON_Delete(trial->options);
    free(trial);
}

EP_API extern const struct ep_stage ep_plugin_stage;
const struct ep_stage ep_plugin_stage = {
    .abi = EP_STAGE_ABI,
    .name = "trial",
    .init = trial_init,
    .process = trial_process,
    .fini = trial_fini,
};
