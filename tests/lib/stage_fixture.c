/* SPDX-License-Identifier: MIT */
/* Calls for stages, and comparisons that show what they found. */
#include "tests/lib/stage_fixture.h"

void stage_fixture_call(struct ep_call *call, const char *event, const char *context)
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

const struct stage_env *stage_fixture_env(void)
{
    static const struct stage_env env = {.instance = "trial", .source = "quakes", .worker = 3};
    return &env;
}

bool stage_fixture_same(const char *found, const char *expected)
{
    bool same = found != NULL && strcmp(found, expected) == 0;
    if (!same)
        fprintf(stderr, "\nexpected: %s\nfound:    %s\n", expected, found != NULL ? found : "(none)");
    return same;
}

bool stage_fixture_contains(const char *found, const char *part)
{
    bool contains = found != NULL && strstr(found, part) != NULL;
    if (!contains)
        fprintf(stderr, "\nexpected: ...%s...\nfound:    %s\n", part, found != NULL ? found : "(none)");
    return contains;
}
