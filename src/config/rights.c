/* SPDX-License-Identifier: MIT */
/*
 * Whether this process may do what the configuration asks for: run stages as other users, and within limits
 * that hold. Runs in the supervisor, before anything is started; an operator's command reads the same file
 * without these rights, so this is no part of config_validate.
 */
#include <stdio.h>
#include <string.h>

#include "src/config/config.h"
#include "src/config/user.h"
#include "src/config/limits.h"

/* The words begin with the key, which may be one within `within`. */
static void tell(const struct config *config, size_t source, size_t stage, const char *within,
                 const char *words, config_report *report, void *user)
{
    const struct stage_config *found = &config->sources[source].stages[stage];
    const char *colon = strchr(words, ':');
    char key[160];

    snprintf(key, sizeof key, "sources[%zu].stages[%zu].%s%.*s", source, stage, within, (int)(colon - words),
             words);
    const struct config_problem problem = {
        .file = config->path != NULL ? config->path : "",
        .line = within[0] != '\0'                ? found->limits_line
                : strncmp(words, "user", 4) == 0 ? found->user_line
                                                 : found->group_line,
        .key = key,
        .words = colon + 2,
    };
    if (report != NULL)
        report(&problem, user);
}

int config_check_rights(const struct config *config, config_report *report, void *user)
{
    int result = 0;

    for (size_t i = 0; i < config->source_count; i++)
        for (size_t j = 0; j < config->sources[i].stage_count; j++) {
            const struct stage_config *stage = &config->sources[i].stages[j];
            struct exec_user as = {.changes = false};
            struct error error = {0};
            if (exec_user_find(stage, &as, &error) != 0) {
                tell(config, i, j, "", error.words, report, user);
                result = EP_ECONFIG;
                continue;
            }
            if (limits_check(&stage->limits, as.uid, &error) != 0) {
                tell(config, i, j, "limits.", error.words, report, user);
                result = EP_ECONFIG;
            }
            exec_user_free(&as);
        }
    return result;
}
