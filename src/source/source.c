/* SPDX-License-Identifier: MIT */
/* Which table of functions runs a source of a type. Pure, but for source_check, which opens and closes a
 * source. */
#include "src/source/source.h"

const struct source_ops *source_ops_for(enum source_type type)
{
    switch (type) {
    case SOURCE_UNKNOWN:
        break;
    case SOURCE_IDEFIX:
        return &source_idefix_ops;
    case SOURCE_HTTP:
        return &source_http_ops;
    case SOURCE_FILE:
        return &source_file_ops;
    case SOURCE_GENERATE:
        return &source_generate_ops;
    case SOURCE_CLIENT:
        return &source_client_ops;
    }
    return NULL;
}

int source_check(const struct source_config *config, struct error *error)
{
    const struct source_ops *ops = source_ops_for(config->type);
    void *state;
    int code = ops != NULL ? ops->open(config, &state, error) : 0;

    if (code == 0 && ops != NULL)
        ops->close(state);
    return code;
}
