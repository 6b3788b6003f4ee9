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

uint64_t retry_delay_ms(const struct retry_config *retry, uint32_t attempt, uint32_t random)
{
    uint64_t delay = retry->min_ms;
    uint32_t doublings = attempt > 1 ? attempt - 1 : 0;

    if (delay == 0)
        return 0;
    if (doublings >= 63 || delay > retry->max_ms >> doublings)
        delay = retry->max_ms;
    else
        delay <<= doublings;
    if (delay > UINT64_MAX / 2)
        delay = UINT64_MAX / 2; /* room for the factor */
    unsigned __int128 half = (unsigned __int128)(delay / 2);
    return delay - delay / 4 + (uint64_t)(half * random >> 32);
}
