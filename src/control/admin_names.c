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

/* Control command, in the keeper or an offline `eventpipe`: appends a copy of the name to a list of source
 * or stage names, which ends with NULL. */
static int add_name(char ***list, size_t count, const char *name)
{
    char **grown = realloc(*list, (count + 2) * sizeof *grown);
    if (grown == NULL)
        return EP_ENOMEM;
    *list = grown;
    grown[count] = strdup(name);
    grown[count + 1] = NULL;
    return grown[count] == NULL ? EP_ENOMEM : EP_OK;
}

/* Control command, in the keeper or an offline `eventpipe`: adds a source, still without stages, to the list
 * of known names. */
static int add_source(struct admin_names *names, const char *name)
{
    char ***chains = realloc(names->chains, (names->count + 1) * sizeof *chains);
    if (chains == NULL)
        return EP_ENOMEM;
    names->chains = chains;
    chains[names->count] = calloc(1, sizeof **chains);
    int code = chains[names->count] == NULL ? EP_ENOMEM : add_name(&names->sources, names->count, name);
    if (code == EP_OK)
        names->count++;
    else
        free(chains[names->count]);
    return code;
}

/* Control command, in the keeper or an offline `eventpipe`: adds a stage to the source that was added last.
 * Names must therefore come source by source. */
static int add_stage(struct admin_names *names, const char *name)
{
    char ***chain = &names->chains[names->count - 1];
    size_t count = 0;
    while ((*chain)[count] != NULL)
        count++;
    return add_name(chain, count, name);
}

static int on_stage(int64_t id, const char *name, void *user)
{
    (void)id;
    return add_stage(user, name);
}

/* The sources found so far, and their ids. The stages are read only after all sources: the store runs one
 * statement at a time. */
struct store_ids {
    struct admin_names *names;
    int64_t *ids;
};

/* Control command: callback of the store's list of sources; adds the source and remembers its id, by which
 * its stages are read afterwards. Runs in a child of `eventpipe` without a configuration, while the daemon
 * is down. */
static int on_source(int64_t id, const char *name, void *user)
{
    struct store_ids *found = user;
    int64_t *grown = realloc(found->ids, (found->names->count + 1) * sizeof *grown);
    if (grown == NULL)
        return EP_ENOMEM;
    found->ids = grown;
    grown[found->names->count] = id;
    return add_source(found->names, name);
}

/* Control command without a configuration: reads the names of sources and stages from the store. Only
 * `eventpipe` without -c needs it, while the daemon is down. */
static int read_names_from_store(struct store *store, struct admin_names *names, struct error *error)
{
    struct store_ids found = {names, NULL};
    int code = store_each_source(store, on_source, &found);
    size_t count = names->count;
    for (size_t i = 0; code == EP_OK && i < count; i++) {
        names->count = i + 1; /* add_stage adds to the last one */
        code = store_each_stage(store, found.ids[i], on_stage, names);
    }
    names->count = count;
    free(found.ids);
    return code == EP_OK ? EP_OK : base_error_set(error, code, "%s", store_errmsg(store));
}

/* Control command, in the keeper or an offline `eventpipe`: takes the names of sources and stages, in order,
 * from the configuration. */
static int read_names_from_config(const struct config *config, struct admin_names *names)
{
    int code = EP_OK;
    for (size_t i = 0; code == EP_OK && i < config->source_count; i++) {
        code = add_source(names, config->sources[i].id);
        for (size_t j = 0; code == EP_OK && j < config->sources[i].stage_count; j++)
            code = add_stage(names, config->sources[i].stages[j].name);
    }
    return code;
}

/* Control command, in the keeper or an offline `eventpipe`: makes the list of sources and their stages from
 * the configuration or, without one, from the store. Read for every request: filters by stage, the order of
 * stages and "did you mean" need it. */
int control_admin_names_read(const struct admin *admin, struct admin_names **out, struct error *error)
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
    control_admin_names_free(names);
    return code == EP_ENOMEM ? base_error_set(error, EP_ENOMEM, "out of memory") : code;
}

static void free_names(char **list)
{
    for (size_t i = 0; list != NULL && list[i] != NULL; i++)
        free(list[i]);
    free(list);
}

/* Frees a list of sources and stages. Called at the end of each control command, in the keeper or in a
 * child of `eventpipe`. Accepts NULL. */
void control_admin_names_free(struct admin_names *names)
{
    if (names == NULL)
        return;
    for (size_t i = 0; i < names->count; i++)
        free_names(names->chains[i]);
    free(names->chains);
    free_names(names->sources);
    free(names);
}

/* Control command, in the keeper or an offline `eventpipe`: returns whether any source has this stage. If
 * none has it, *near is a similar name for "did you mean", or NULL. */
static bool find_stage(const struct admin_names *names, const char *stage, const char **near)
{
    *near = NULL;
    for (size_t i = 0; i < names->count; i++) {
        for (char **name = names->chains[i]; *name != NULL; name++)
            if (strcmp(*name, stage) == 0)
                return true;
        if (*near == NULL)
            *near = base_suggest_near(stage, (const char *const *)names->chains[i]);
    }
    return false;
}

/* Control command, in the keeper or an offline `eventpipe`: if the request names a source or stage that does
 * not exist, writes this with a similar name into the buffer, otherwise "". `eventpipe queue`, `retry` and
 * the like add it to "nothing matched", which a typing error often causes. */
void control_admin_unknown_name(const struct admin_request *request, char *buffer, size_t size)
{
    const struct admin_names *names = request->names;
    const char *source = request->select.source, *stage = request->select.stage, *near = NULL;
    bool known = source == NULL;
    for (size_t i = 0; i < names->count && !known; i++)
        known = strcmp(names->sources[i], source) == 0;
    buffer[0] = '\0';
    if (!known)
        near = base_suggest_near(source, (const char *const *)names->sources);
    else if (stage == NULL || find_stage(names, stage, &near))
        return;
    snprintf(buffer, size, "; there is no %s \"%s\"%s%s%s", known ? "stage" : "source",
             known ? stage : source, near != NULL ? ": did you mean \"" : "", near != NULL ? near : "",
             near != NULL ? "\"?" : "");
}
