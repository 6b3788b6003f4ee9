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

/* Returns dlopen's error message about a stage's plugin without the path at its beginning, which the
 * caller's message already has. Runs in a starting worker, `eventpiped -t` and `eventpipe check`. */
static const char *get_loader_message(const char *path)
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

/* Loads a plugin stage's shared object and checks the stage description that it exports. Returns 0 and
 * sets *native, or an error code with a message. stage_label gets the plugin's name for messages, "plugin
 * PATH". Runs in a starting worker, `eventpiped -t`, `eventpipe check` and `eventpipe chaos`. */
static int load_plugin(const struct stage_config *config, struct native *native, char *stage_label,
                       size_t stage_label_size, struct error *error)
{
    if (config->plugin == NULL || config->plugin[0] == '\0')
        return base_error_set(error, EP_EINVAL, "no path is given: set `plugin`");
    /* A name without a slash would be searched among the system's libraries. */
    char path[4096];
    int length =
        snprintf(path, sizeof path, "%s%s", strchr(config->plugin, '/') == NULL ? "./" : "", config->plugin);
    if (length < 0 || (size_t)length >= sizeof path)
        return base_error_set(error, EP_EINVAL, "plugin %.64s...: its path is too long", config->plugin);
    snprintf(stage_label, stage_label_size, "plugin %s", config->plugin);

    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return base_error_set(error, EP_ENOENT, "cannot load %s: %s", stage_label, get_loader_message(path));
    const struct ep_stage *stage = dlsym(library, EP_PLUGIN_SYMBOL);
    if (stage == NULL) {
        dlclose(library);
        return base_error_set(error, EP_EINVAL,
                              "%s exports no %s: a plugin defines `const struct ep_stage %s`", stage_label,
                              EP_PLUGIN_SYMBOL, EP_PLUGIN_SYMBOL);
    }
    int code = stage_native_check(stage, stage_label, error);
    if (code != 0) {
        dlclose(library);
        return code;
    }
    *native = (struct native){.stage = stage, .library = library};
    return 0;
}

/* Loads a plugin, checks its description without calling init, and unloads it. Returns 0 or an error
 * code with a message. `eventpiped -t`, `eventpipe check` and `eventpipe chaos` call it before any
 * process starts. */
int stage_plugin_check(const struct stage_config *config, struct error *error)
{
    struct native native = {0};
    char stage_label[512];
    int code = load_plugin(config, &native, stage_label, sizeof stage_label, error);
    unload_library(native.library);
    return code;
}

/* Loads the stage's plugin and calls its init. Returns 0, or an error code with a message, which is a
 * failed start. A worker calls it once, when it starts. */
static int plugin_open(const struct stage_config *config, const struct stage_env *env, void **state,
                       struct error *error)
{
    struct native loaded = {0};
    char stage_label[512];

    (void)env;
    int code = load_plugin(config, &loaded, stage_label, sizeof stage_label, error);
    if (code != 0)
        return code;
    struct native *native = malloc(sizeof *native);
    if (native == NULL) {
        unload_library(loaded.library);
        return base_error_set(error, EP_ENOMEM, "out of memory");
    }
    *native = loaded;
    code = stage_native_open(native, config, stage_label, NULL, error);
    if (code != 0) {
        unload_library(native->library);
        free(native);
        return code;
    }
    *state = native;
    return 0;
}

/* Calls the plugin's fini and unloads it. A worker calls it at a graceful shutdown. Accepts NULL. */
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
