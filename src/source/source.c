/* SPDX-License-Identifier: MIT */
/* Finds the function table of a source type. Producers, `eventpipe check` and `eventpiped -t` call this. */
#include "src/source/source.h"

/* Returns the functions (open, fetch, close) of a source type such as file or http, or NULL if the type
 * is unknown. A producer calls this when it starts its fetcher thread, source_check before it tests a
 * configuration. */
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

/* Opens a source and closes it again, without network, so that a wrong configuration or an unreadable
 * ca_file is found before a producer starts. `eventpiped -t` and `eventpipe check` call this for each
 * source. Returns 0 or the code of the source's open function, with its error. */
int source_check(const struct source_config *config, struct error *error)
{
    const struct source_ops *ops = source_ops_for(config->type);
    void *state;
    int code = ops != NULL ? ops->open(config, &state, error) : 0;

    if (code == 0 && ops != NULL)
        ops->close(state);
    return code;
}
