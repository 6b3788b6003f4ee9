/* SPDX-License-Identifier: MIT */
/*
 * The names of sources and of their stages, in order. Stage order tells at which stage an event is.
 * The names come from the configuration; without one (the daemon is down and the user gave none) from
 * the store, in the order in which they first appeared. Runs in the keeper and in the command line.
 */
#include <stdlib.h>
#include <string.h>

#include "src/base/suggest.h"
#include "src/control/admin.h"

/* Appends a copy of a name to a list of source or stage names, which ends with NULL. Returns EP_OK or
 * EP_ENOMEM. Runs while a control command collects the known names, in the keeper or in a child of
 * `eventpipe`. */
static int append_name(char ***name_list, size_t count, const char *name)
{
    char **longer_list = realloc(*name_list, (count + 2) * sizeof *longer_list);
    if (longer_list == NULL)
        return EP_ENOMEM;
    *name_list = longer_list;
    longer_list[count] = strdup(name);
    longer_list[count + 1] = NULL;
    return longer_list[count] == NULL ? EP_ENOMEM : EP_OK;
}

/* Adds a source, still without stages, to the known names. Returns EP_OK or EP_ENOMEM; the names then stay
 * as they were. Runs while a control command collects the known names, in the keeper or in a child of
 * `eventpipe`. */
static int append_source(struct admin_names *names, const char *name)
{
    char ***chains = realloc(names->chains, (names->count + 1) * sizeof *chains);
    if (chains == NULL)
        return EP_ENOMEM;
    names->chains = chains;
    chains[names->count] = calloc(1, sizeof **chains);
    int code = chains[names->count] == NULL ? EP_ENOMEM : append_name(&names->sources, names->count, name);
    if (code == EP_OK)
        names->count++;
    else
        free(chains[names->count]);
    return code;
}

/* Adds a stage to the source that a control command has added last to the known names, so the stages of a
 * source must be added before the next source. Returns EP_OK or EP_ENOMEM. Runs in the keeper, or in a
 * child of `eventpipe` while the daemon is down. */
static int append_stage(struct admin_names *names, const char *name)
{
    char ***chain = &names->chains[names->count - 1];
    size_t count = 0;
    while ((*chain)[count] != NULL)
        count++;
    return append_name(chain, count, name);
}

static int on_stage(int64_t id, const char *name, void *user)
{
    (void)id;
    return append_stage(user, name);
}

/* The sources found so far, and their ids. The stages are read only after all sources: the store runs one
 * statement at a time. */
struct store_ids {
    struct admin_names *names;
    int64_t *ids;
};

/* Callback for each source in the store: adds its name, and keeps its id to read its stages afterwards.
 * Returns EP_OK, or EP_ENOMEM, which ends the reading. Runs in a child of `eventpipe` that has no
 * configuration, while the daemon is down. */
static int on_source(int64_t id, const char *name, void *user)
{
    struct store_ids *found_sources = user;
    int64_t *longer_ids = realloc(found_sources->ids, (found_sources->names->count + 1) * sizeof *longer_ids);
    if (longer_ids == NULL)
        return EP_ENOMEM;
    found_sources->ids = longer_ids;
    longer_ids[found_sources->names->count] = id;
    return append_source(found_sources->names, name);
}

/* Reads the names of sources and stages from the store. Only `eventpipe` without -c needs this, while
 * the daemon is down: then there is no configuration to take them from. Returns EP_OK or an error code
 * with a message. */
static int read_names_from_store(struct store *store, struct admin_names *names, struct error *error)
{
    struct store_ids found_sources = {names, NULL};
    int code = store_each_source(store, on_source, &found_sources);
    size_t count = names->count;
    for (size_t i = 0; code == EP_OK && i < count; i++) {
        names->count = i + 1; /* append_stage adds to the last one */
        code = store_each_stage(store, found_sources.ids[i], on_stage, names);
    }
    names->count = count;
    free(found_sources.ids);
    return code == EP_OK
               ? EP_OK
               : base_error_set(error, code, "cannot read the names of sources and stages from the store: %s",
                                store_errmsg(store));
}

/* Copies the names of sources and their stages, in order, from the configuration, for the checks of a
 * control request. Returns EP_OK or EP_ENOMEM. Runs in the keeper, or in `eventpipe` with -c while the
 * daemon is down. */
static int read_names_from_config(const struct config *config, struct admin_names *names)
{
    int code = EP_OK;
    for (size_t i = 0; code == EP_OK && i < config->source_count; i++) {
        code = append_source(names, config->sources[i].id);
        for (size_t j = 0; code == EP_OK && j < config->sources[i].stage_count; j++)
            code = append_stage(names, config->sources[i].stages[j].name);
    }
    return code;
}

/* Makes a control request's list of known sources and their stages, from the configuration or, without
 * one, from the store. Every control command needs it: for filters by stage, the order of stages and "did
 * you mean". On success the caller frees *out. Runs in the keeper, or in a child of `eventpipe` while the
 * daemon is down. */
int control_admin_read_names(const struct admin *admin, struct admin_names **out, struct error *error)
{
    struct admin_names *names = calloc(1, sizeof *names);
    int code = names == NULL ? EP_ENOMEM : EP_OK;
    if (code == EP_OK) {
        names->sources = calloc(1, sizeof *names->sources);
        code = names->sources == NULL ? EP_ENOMEM : EP_OK;
    }
    if (code == EP_OK && admin->config != NULL)
        code = read_names_from_config(admin->config, names);
    else if (code == EP_OK)
        code = read_names_from_store(admin->store, names, error);
    if (code == EP_OK) {
        *out = names;
        return EP_OK;
    }
    control_admin_free_names(names);
    return code == EP_ENOMEM ? base_error_set(error, EP_ENOMEM, "out of memory") : code;
}

static void free_name_list(char **name_list)
{
    for (size_t i = 0; name_list != NULL && name_list[i] != NULL; i++)
        free(name_list[i]);
    free(name_list);
}

/* Frees the list of known sources and stages; accepts NULL. The keeper calls it at the end of each
 * control command, and so does the child of `eventpipe` that reads the store. */
void control_admin_free_names(struct admin_names *names)
{
    if (names == NULL)
        return;
    for (size_t i = 0; i < names->count; i++)
        free_name_list(names->chains[i]);
    free(names->chains);
    free_name_list(names->sources);
    free(names);
}

/* Returns whether any source has a stage of this name. If none has, *similar_name is a name for "did you
 * mean", or NULL. Called when a control command matched no event, in the keeper or in a child of
 * `eventpipe`. */
static bool is_stage_known(const struct admin_names *names, const char *stage, const char **similar_name)
{
    *similar_name = NULL;
    for (size_t i = 0; i < names->count; i++) {
        for (char **name = names->chains[i]; *name != NULL; name++)
            if (strcmp(*name, stage) == 0)
                return true;
        if (*similar_name == NULL)
            *similar_name = base_suggest_find_nearest(stage, (const char *const *)names->chains[i]);
    }
    return false;
}

/* If the filters of a control request name a source or stage that does not exist, writes a phrase that
 * says so and suggests a similar name; otherwise writes "". The commands that list or change events add it
 * to "nothing matched", of which a typing error is the usual cause. Runs in the keeper, or in a child of
 * `eventpipe` while the daemon is down. */
void control_admin_describe_unknown_name(const struct admin_request *request, char *buffer, size_t size)
{
    const struct admin_names *names = request->names;
    const char *source = request->select.source, *stage = request->select.stage, *similar_name = NULL;
    bool is_source_known = source == NULL;
    for (size_t i = 0; i < names->count && !is_source_known; i++)
        is_source_known = strcmp(names->sources[i], source) == 0;
    buffer[0] = '\0';
    if (!is_source_known)
        similar_name = base_suggest_find_nearest(source, (const char *const *)names->sources);
    else if (stage == NULL || is_stage_known(names, stage, &similar_name))
        return;
    snprintf(buffer, size, "; there is no %s \"%s\"%s%s%s", is_source_known ? "stage" : "source",
             is_source_known ? stage : source, similar_name != NULL ? ": did you mean \"" : "",
             similar_name != NULL ? similar_name : "", similar_name != NULL ? "\"?" : "");
}
