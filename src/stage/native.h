/* SPDX-License-Identifier: MIT */
/* A stage that is C code in the worker: what function stages and plugins share. */
#ifndef STAGE_NATIVE_H
#define STAGE_NATIVE_H

#include "src/stage/stage.h"

struct native {
    const struct ep_stage *stage; /* borrowed */
    void *state;                  /* the stage's own */
    void *library;                /* plugin: from dlopen, NULL for a function */
};

/* Checks the description. `stage_label` begins the message, such as "plugin /x.so". */
int stage_native_check(const struct ep_stage *stage, const char *stage_label, struct error *error);
/* Checks the description and calls init. Without init the state is `user`. */
int stage_native_open(struct native *native, const struct stage_config *config, const char *stage_label,
                      void *user, struct error *error);
enum stage_result stage_native_process(void *native, struct ep_call *call, struct stage_failure *failure);
void stage_native_close(struct native *native); /* calls fini; frees nothing else */

#endif
