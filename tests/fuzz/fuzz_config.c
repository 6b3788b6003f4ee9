/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: a configuration file. Whatever stands in it, reading it describes each problem with a message
 * that can be shown, or gives a configuration that holds its own rules.
 */
#include "tests/lib/fuzz.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "src/config/config.h"

static unsigned problems;

static void on_problem(const struct config_problem *problem, void *user)
{
    (void)user;
    problems++;
    fuzz_check_message(problem->message);
    if (problem->key[0] != '\0')
        fuzz_check_message(problem->key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct config *config = NULL;
    char path[64];
    int file = memfd_create("eventpipe-fuzz", MFD_CLOEXEC);

    PROMISE(file >= 0 && write(file, data, bytes) == (ssize_t)bytes);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    problems = 0;
    int code = config_read(path, on_problem, NULL, &config);
    close(file);
    PROMISE(code == EP_OK || code == EP_ECONFIG);
    PROMISE((code == EP_OK) == (problems == 0) && (code == EP_OK) == (config != NULL));
    if (config != NULL) {
        PROMISE(config_validate(config, on_problem, NULL) == EP_OK && problems == 0);
        PROMISE(config->source_count > 0 && config->sources[0].stage_count > 0);
    }
    config_close(&config);
    return 0;
}
