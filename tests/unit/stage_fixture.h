/* SPDX-License-Identifier: MIT */
/* What the stage tests share: a call to run, and looks at what became of it. */
#ifndef STAGE_FIXTURE_H
#define STAGE_FIXTURE_H

#include "src/stage/stage.h"
#include "tests/unit/unit.h"

static inline void fixture_call(struct ep_call *call, const char *event, const char *context)
{
    memset(call, 0, sizeof *call);
    call->source = "quakes";
    call->stage = "locate";
    call->uid = "u-1";
    call->event = event;
    call->event_bytes = strlen(event);
    call->context = context;
    call->context_bytes = strlen(context);
    call->attempt = 1;
    stage_call_open(call);
}

static inline const struct stage_env *fixture_env(void)
{
    static const struct stage_env env = {.instance = "trial", .source = "quakes", .worker = 3};
    return &env;
}

/* Says what was found when it is not what was expected. */
static inline bool fixture_same(const char *found, const char *expected)
{
    bool same = found != NULL && strcmp(found, expected) == 0;
    if (!same)
        fprintf(stderr, "\nexpected: %s\nfound:    %s\n", expected, found != NULL ? found : "(none)");
    return same;
}

static inline bool fixture_contains(const char *found, const char *part)
{
    bool contains = found != NULL && strstr(found, part) != NULL;
    if (!contains)
        fprintf(stderr, "\nexpected: ...%s...\nfound:    %s\n", part, found != NULL ? found : "(none)");
    return contains;
}

#endif
