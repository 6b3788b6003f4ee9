/* SPDX-License-Identifier: MIT */
/*
 * The stage types in one table, and the check of a stage before it is started. Any process; owns nothing.
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
    return stage_native_check(config->function, "function", error);
}

static const struct {
    const struct stage_ops *ops;
    int (*check)(const struct stage_config *config, struct error *error);
} types[] = {
    [STAGE_FUNCTION] = {&stage_function_ops, function_check},
    [STAGE_PLUGIN] = {&stage_plugin_ops, stage_plugin_check},
    [STAGE_EXEC] = {&stage_exec_ops, stage_exec_check},
    [STAGE_HTTP] = {&stage_http_ops, stage_http_check},
};
static_assert(sizeof types / sizeof types[0] == STAGE_HTTP + 1, "every type has its line");

const struct stage_ops *stage_ops_for(enum stage_type type)
{
    return (size_t)type < sizeof types / sizeof types[0] ? types[type].ops : NULL;
}

/* Checks a configured stage on this machine: its program is executable, its plugin loads, or its URL is
 * valid. Returns 0 or an error code with a message. `eventpiped -t`, `eventpipe check` and `eventpipe
 * chaos` call it before any process starts. */
int stage_check(const struct stage_config *config, struct error *error)
{
    if ((size_t)config->type >= sizeof types / sizeof types[0])
        return base_error_set(error, EP_EINVAL, "unknown stage type %d", (int)config->type);
    return types[config->type].check(config, error);
}
