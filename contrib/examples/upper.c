/* SPDX-License-Identifier: MIT */
/*
 * An exec stage in C: a program of its own, which may link what it likes and crash as it likes. Writes the
 * text of the event's payload in capitals into context.upper; an event whose payload is no text is passed on
 * as it is.
 *
 *     exec: [/opt/upper]
 *
 * One JSON line in, one JSON line out, and a flush after each: that is all there is to it.
 *
 * Build: cc -o upper upper.c -lcjson
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include <cjson/cJSON.h>

static cJSON *answer_for(const cJSON *call)
{
    const cJSON *event = cJSON_GetObjectItemCaseSensitive(call, "event");
    const cJSON *payload = cJSON_GetObjectItemCaseSensitive(event, "payload");
    cJSON *answer = cJSON_CreateObject();

    cJSON_AddTrueToObject(answer, "processed");
    if (cJSON_IsString(payload)) {
        /* A context that is answered replaces the old one: begin with a copy of it. */
        cJSON *context = cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(call, "context"), 1);
        cJSON_DeleteItemFromObjectCaseSensitive(context, "upper");
        cJSON *upper = cJSON_AddStringToObject(context, "upper", payload->valuestring);
        for (char *c = upper != NULL ? upper->valuestring : NULL; c != NULL && *c != '\0'; c++)
            *c = (char)toupper((unsigned char)*c);
        cJSON_AddItemToObject(answer, "context", context);
    }
    return answer;
}

int main(void)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t length;

    while ((length = getline(&line, &room, stdin)) > 0) {
        cJSON *call = cJSON_ParseWithLength(line, (size_t)length);
        cJSON *answer = answer_for(call);
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
