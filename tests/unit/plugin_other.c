/* SPDX-License-Identifier: MIT */
/* A shared object for test_stage_plugin that is no plugin. */
#include "src/eventpipe.h"

EP_API int other_answer(void);
int other_answer(void)
{
    return 42;
}
