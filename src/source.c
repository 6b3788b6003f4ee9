/* SPDX-License-Identifier: MIT */
/* Which table of functions runs a source of a type. Pure. */
#include "src/source.h"

const struct source_ops *source_ops_for(enum source_type type)
{
    switch (type) {
    case SOURCE_HTTP:
        return &source_http_ops;
    case SOURCE_FILE:
        return &source_file_ops;
    case SOURCE_GENERATE:
        return &source_generate_ops;
    case SOURCE_CLIENT:
        return &source_client_ops;
    case SOURCE_IDEFIX:
        break;
    }
    return NULL;
}
