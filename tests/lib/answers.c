/* SPDX-License-Identifier: MIT */
/* A keeper in a child process that serves one request. */
#include "tests/lib/answers.h"

#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

int answers_take(const char *line, size_t bytes, void *user)
{
    struct answers *answers = user;
    cJSON *json = cJSON_ParseWithLength(line, bytes);
    CU_ASSERT_FATAL(json != NULL && answers->count < sizeof answers->lines / sizeof answers->lines[0]);
    answers->lines[answers->count++] = json;
    return EP_OK;
}

void answers_clear(struct answers *answers)
{
    for (size_t i = 0; i < answers->count; i++)
        cJSON_Delete(answers->lines[i]);
    *answers = (struct answers){0};
}

uint64_t answers_ask(const struct store_options *options, const struct config *config, const char *request,
                     const char *body, size_t body_bytes, struct answers *answers)
{
    int ends[2] = {-1, -1}, done[2] = {-1, -1};
    uint64_t changed = 0;
    CU_ASSERT_FATAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0 && pipe(done) == 0);
    fflush(NULL);
    pid_t pid = fork();
    CU_ASSERT_FATAL(pid >= 0);
    if (pid == 0) { /* the keeper */
        close(ends[0]);
        char line[CONTROL_REQUEST_BYTES];
        size_t used = 0;
        while (used < sizeof line && read(ends[1], line + used, 1) == 1 && line[used] != '\n')
            used++;
        cJSON *json = cJSON_ParseWithLength(line, used);
        struct admin admin = {.config = config, .daemon_up = !options->readonly};
        if (store_open(options, &admin.store, NULL) != EP_OK || admin.store == NULL)
            _exit(2);
        control_admin_serve(&admin, json, ends[1], &changed);
        store_close(&admin.store);
        cJSON_Delete(json);
        bool told = write(done[1], &changed, sizeof changed) == sizeof changed;
        _exit(told ? 0 : 1);
    }
    close(ends[1]);
    close(done[1]);
    struct control_question question = {.line = request,
                                        .body = body,
                                        .body_bytes = body_bytes,
                                        .patience_ms = 20000};
    answers_clear(answers);
    answers->code = control_ask(ends[0], &question, answers_take, answers, &answers->error);
    close(ends[0]);
    int status = 0;
    CU_ASSERT(read(done[0], &changed, sizeof changed) == sizeof changed);
    CU_ASSERT(waitpid(pid, &status, 0) == pid && status == 0);
    close(done[0]);
    return changed;
}

const char *answers_text(const struct answers *answers, size_t line, const char *member)
{
    if (line >= answers->count)
        return "(no such line)";
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(answers->lines[line], member));
    return text != NULL ? text : "(no such text)";
}

double answers_number(const struct answers *answers, size_t line, const char *member)
{
    const cJSON *item =
        line < answers->count ? cJSON_GetObjectItemCaseSensitive(answers->lines[line], member) : NULL;
    return item != NULL && cJSON_IsNumber(item) ? item->valuedouble : -1;
}
