/* SPDX-License-Identifier: MIT */
/*
 * Plugin stages: a shared object that exports one stage description. Runs in workers; stage_check also
 * runs in any process that checks a configuration. Owns the library's handle from open to close.
 *
 * The library is loaded with RTLD_NOW, so that a missing symbol is a failed start with a message, and not
 * a crash at the first event. It is loaded with RTLD_LOCAL, so that two plugins do not see each other's
 * symbols.
 */
#include "src/stage/plugin.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/stage/native.h"

/* Plugin stage: returns dlopen's error message without the path, which the caller's message already has.
 * Runs in a starting worker, `eventpiped -t` and `eventpipe check`. */
static const char *loader_message(const char *path)
{
    const char *message = dlerror();
    size_t length = strlen(path);

    if (message == NULL)
        return "unknown error of the loader";
    if (strncmp(message, path, length) == 0 && strncmp(message + length, ": ", 2) == 0)
        return message + length + 2;
    return message;
}

static void unload_library(void *library)
{
    if (library != NULL)
        dlclose(library);
}

/* Plugin stage: loads a shared object and checks the stage description that it exports. Runs in a starting
 * worker, `eventpiped -t`, `eventpipe check` and `eventpipe chaos`. `what` gets the plugin's name for
 * messages. */
static int load_plugin(const struct stage_config *config, struct native *native, char *what,
                       size_t what_bytes, struct error *error)
{
    if (config->plugin == NULL || config->plugin[0] == '\0')
        return base_error_set(error, EP_EINVAL, "plugin: no path is given");
    /* A name without a slash would be searched among the system's libraries. */
    char path[4096];
    int length =
        snprintf(path, sizeof path, "%s%s", strchr(config->plugin, '/') == NULL ? "./" : "", config->plugin);
    if (length < 0 || (size_t)length >= sizeof path)
        return base_error_set(error, EP_EINVAL, "plugin: its path is too long");
    snprintf(what, what_bytes, "plugin %s", config->plugin);

    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return base_error_set(error, EP_ENOENT, "cannot load %s: %s", what, loader_message(path));
    const struct ep_stage *stage = dlsym(library, EP_PLUGIN_SYMBOL);
    if (stage == NULL) {
        dlclose(library);
        return base_error_set(error, EP_EINVAL,
                              "%s exports no %s: a plugin defines `const struct ep_stage %s`", what,
                              EP_PLUGIN_SYMBOL, EP_PLUGIN_SYMBOL);
    }
    int code = stage_native_check(stage, what, error);
    if (code != 0) {
        dlclose(library);
        return code;
    }
    *native = (struct native){.stage = stage, .library = library};
    return 0;
}

/* Plugin stage: loads a plugin, checks its description without calling init, and unloads it. `eventpiped
 * -t`, `eventpipe check` and `eventpipe chaos` call it before any process starts. */
int stage_plugin_check(const struct stage_config *config, struct error *error)
{
    struct native native = {0};
    char what[512];
    int code = load_plugin(config, &native, what, sizeof what, error);
    unload_library(native.library);
    return code;
}

/* Plugin stage: a worker calls it once when it starts; it loads the plugin and calls its init. A failure
 * is a failed start. */
static int plugin_open(const struct stage_config *config, const struct stage_env *env, void **state,
                       struct error *error)
{
    struct native loaded = {0};
    char what[512];

    (void)env;
    int code = load_plugin(config, &loaded, what, sizeof what, error);
    if (code != 0)
        return code;
    struct native *native = malloc(sizeof *native);
    if (native == NULL) {
        unload_library(loaded.library);
        return base_error_set(error, EP_ENOMEM, "out of memory");
    }
    *native = loaded;
    code = stage_native_open(native, config, what, NULL, error);
    if (code != 0) {
        unload_library(native->library);
        free(native);
        return code;
    }
    *state = native;
    return 0;
}

/* Plugin stage: a worker calls it at a graceful shutdown; it calls the plugin's fini and unloads the
 * library. */
static void plugin_close(void *state, uint64_t wait_ms)
{
    struct native *native = state;

    (void)wait_ms;
    if (native == NULL)
        return;
    stage_native_close(native);
    unload_library(native->library);
    free(native);
}

const struct stage_ops stage_plugin_ops = {
    .type = "plugin",
    .open = plugin_open,
    .process = stage_native_process,
    .close = plugin_close,
};
