/* SPDX-License-Identifier: MIT */
/*
 * An exec stage in C: a separate program, which may use any library. If it crashes, eventpipe starts
 * it again in a new worker. Writes the text of the event's payload in capitals into context.upper. If the
 * payload is not a string, the event passes unchanged.
 *
 *     exec: [/opt/upper]
 *
 * The protocol: read one line of JSON, write one line of JSON, flush.
 *
 * Build: cc -o upper upper.c -lcjson
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include <cjson/cJSON.h>

/* Builds the answer to one call: the event is processed, and its context gets the payload in capitals. The
 * worker reads this answer from our stdout. */
static cJSON *make_answer(const cJSON *call)
{
    const cJSON *event = cJSON_GetObjectItemCaseSensitive(call, "event");
    const cJSON *payload = cJSON_GetObjectItemCaseSensitive(event, "payload");
    cJSON *answer = cJSON_CreateObject();

    cJSON_AddTrueToObject(answer, "processed");
    if (cJSON_IsString(payload)) {
        /* The context in the answer replaces the old one: begin with a copy of it. */
        cJSON *context = cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(call, "context"), 1);
        cJSON_DeleteItemFromObjectCaseSensitive(context, "upper");
        cJSON *upper = cJSON_AddStringToObject(context, "upper", payload->valuestring);
        for (char *c = upper != NULL ? upper->valuestring : NULL; c != NULL && *c != '\0'; c++)
            *c = (char)toupper((unsigned char)*c);
        cJSON_AddItemToObject(answer, "context", context);
    }
    return answer;
}

/* The program that an exec stage runs as a worker's child: answers each line on stdin with one on stdout,
 * until stdin ends. */
int main(void)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t length;

    while ((length = getline(&line, &room, stdin)) > 0) {
        cJSON *call = cJSON_ParseWithLength(line, (size_t)length);
        cJSON *answer = make_answer(call);
        char *text = cJSON_PrintUnformatted(answer);
        cJSON_Delete(answer);
        cJSON_Delete(call);
        if (text == NULL || puts(text) == EOF || fflush(stdout) != 0)
            return EXIT_FAILURE; /* eventpipe starts us again */
        free(text);
    }
    free(line);
    return EXIT_SUCCESS;
}
