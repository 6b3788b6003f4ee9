/* SPDX-License-Identifier: MIT */
/*
 * The kinds of stages in one table; a look at a stage before it is started; and the backoff between attempts.
 * Any process; owns nothing.
 */
#include "src/stage/stage.h"

#include <assert.h>
#include <string.h>

#include "src/stage/exec_process.h"
#include "src/stage/http.h"
#include "src/stage/native.h"
#include "src/stage/plugin.h"

static int function_check(const struct stage_config *config, struct error *error)
{
    return native_check(config->function, "function", error);
}

static const struct {
    const struct stage_ops *ops;
    int (*check)(const struct stage_config *config, struct error *error);
} kinds[] = {
    [STAGE_FUNCTION] = {&stage_function_ops, function_check},
    [STAGE_PLUGIN] = {&stage_plugin_ops, plugin_check},
    [STAGE_EXEC] = {&stage_exec_ops, exec_process_check},
    [STAGE_HTTP] = {&stage_http_ops, http_check},
};
static_assert(sizeof kinds / sizeof kinds[0] == STAGE_HTTP + 1, "every kind has its line");

const struct stage_ops *stage_ops_for(enum stage_kind kind)
{
    return (size_t)kind < sizeof kinds / sizeof kinds[0] ? kinds[kind].ops : NULL;
}

int stage_check(const struct stage_config *config, struct error *error)
{
    if ((size_t)config->kind >= sizeof kinds / sizeof kinds[0])
        return error_set(error, EP_EINVAL, "no kind of stage has the number %d", (int)config->kind);
    return kinds[config->kind].check(config, error);
}
