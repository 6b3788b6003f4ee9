/* SPDX-License-Identifier: MIT */
/*
 * Reads the mappings of a configuration file by the schema's tables: known, unknown, repeated and
 * misplaced keys, and sources and stages, whose type decides which keys they have. Runs in the
 * supervisor before it forks, and in `eventpipe` commands.
 *
 * Invariants
 *  1. Until a source's type is known, nothing that belongs to a type is written (struct source_config
 *     has a union).
 *  2. At most SCHEMA_PAIRS_MAX keys of a mapping are read, since each key is compared with those before
 *     it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/suggest.h"
#include "src/config/yaml.h"

#define NAMES_MAX 40 /* keys in one table */
#define BIT(variant) (1u << (variant))

static const char *const type_keys[] = {NULL, "plugin", "exec", "url"}; /* by enum stage_type */

/* ---- names ---- */

static bool key_fits_variant(const struct schema_key *key, const struct schema_variant *variant)
{
    return key->only == 0 || variant->bit == 0 || (key->only & variant->bit) != 0;
}

/* In the supervisor or `eventpipe`: returns the schema's entry of a key in the configuration file for this
 * type of source or stage; otherwise one with the same name for another type; otherwise NULL. */
static const struct schema_key *find_schema_key(const struct schema_key *keys,
                                                const struct schema_variant *variant, const char *name)
{
    const struct schema_key *other = NULL;
    for (const struct schema_key *key = keys; key->name != NULL; key++)
        if (strcmp(key->name, name) == 0) {
            if (key_fits_variant(key, variant))
                return key;
            other = key;
        }
    return other;
}

/* In the supervisor or `eventpipe`: reports an unknown key of the configuration file with the most similar
 * key, or with the list of all keys. */
static void report_unknown_key(struct reader *reader, const struct schema_key *keys,
                               const struct schema_variant *variant, const char *name)
{
    const char *names[NAMES_MAX + 1] = {NULL};
    size_t count = 0;
    for (const struct schema_key *key = keys; key->name != NULL && count < NAMES_MAX; key++)
        if (key_fits_variant(key, variant) && find_schema_key(keys, variant, key->name) == key)
            names[count++] = key->name;
    if (strcmp(name, "<<") == 0) {
        config_yaml_report_problem(
            reader, "merge keys (<<) are not supported; write the keys out, or give a whole value an "
                    "anchor (&name) and use it again (*name)");
        return;
    }
    const char *near = base_suggest_near(name, names);
    if (near != NULL) {
        config_yaml_report_problem(reader, "unknown key; did you mean `%s`?", near);
        size_t inner = strlen(reader->path), outer = inner;
        char meant[256];
        while (outer > 0 && reader->path[outer] != '.')
            outer--;
        snprintf(meant, sizeof meant, "%.*s%s%s", (int)outer, reader->path, outer > 0 ? "." : "", near);
        config_yaml_note_meant_key(reader, meant);
        return;
    }
    char list[800] = "";
    for (size_t i = 0, used = 0; i < count && used < sizeof list; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i > 0 ? ", " : "", names[i]);
    config_yaml_report_problem(reader, "unknown key; expected one of %s", list);
}

/* In the supervisor or `eventpipe`: reports a key of the configuration file that belongs to another type of
 * source or stage. */
static void report_misplaced_key(struct reader *reader, const struct schema_key *key,
                                 const struct schema_variant *variant)
{
    char owners[200] = "";
    for (unsigned i = 0, used = 0; i < 32 && used < sizeof owners; i++)
        if ((key->only & BIT(i)) != 0)
            used += (unsigned)snprintf(owners + used, sizeof owners - used, "%s%s %s",
                                       used > 0 ? " and " : "", variant->noun, variant->names[i]);
    unsigned own = (unsigned)__builtin_ctz(variant->bit);
    config_yaml_report_problem(reader, "`%s` is not for %s %s; it belongs to %s", key->name, variant->noun,
                               variant->names[own], owners);
}

/* ---- mappings ---- */

/* In the supervisor or `eventpipe`: reads the value of one key of the configuration file as the schema says,
 * or reports that the key is unknown or misplaced. Skips keys of a type while the type is unknown. */
static void read_mapping_entry(struct reader *reader, const struct schema_key *keys,
                               const struct schema_variant *variant, const char *name,
                               const yaml_node_t *value, void *base)
{
    const struct schema_key *key = find_schema_key(keys, variant, name);
    if (key == NULL) {
        report_unknown_key(reader, keys, variant, name);
    } else if (!key_fits_variant(key, variant)) {
        report_misplaced_key(reader, key, variant);
    } else if (key->only == 0 || variant->bit != 0) {
        key->read(reader, key, value, base);
    }
}

/* In the supervisor or `eventpipe`: whether an earlier entry of the mapping in the configuration file has
 * the same name; reports a problem if so. */
static bool check_key_is_repeated(struct reader *reader, const yaml_node_t *mapping,
                                  const yaml_node_pair_t *pair, const char *name)
{
    for (const yaml_node_pair_t *at = mapping->data.mapping.pairs.start; at < pair; at++) {
        const yaml_node_t *other = config_yaml_get_node(reader, at->key);
        if (other->type != YAML_SCALAR_NODE || strcmp((const char *)other->data.scalar.value, name) != 0)
            continue;
        config_yaml_report_problem(reader, "given twice, first in line %u; expected once",
                                   config_yaml_get_line(other));
        return true;
    }
    return false;
}

/* In the supervisor or `eventpipe`: reads all keys of one mapping in the configuration file by a table of
 * the schema, and fills the struct `base`. The reader calls it for the top of the file, for each source,
 * stage and smaller group of keys. */
void config_yaml_mapping_read_keys(struct reader *reader, const struct schema_key *keys,
                                   const struct schema_variant *variant, const yaml_node_t *node, void *base)
{
    char found[120];
    if (node->type != YAML_MAPPING_NODE) {
        config_yaml_report_problem(reader, "expected keys with values such as `%s: ...`, found %s",
                                   keys[0].name, config_yaml_value_describe(node, found, sizeof found));
        return;
    }
    const yaml_node_t *around = reader->mapping;
    unsigned line = reader->line;
    const yaml_node_pair_t *top = node->data.mapping.pairs.top;
    if (top - node->data.mapping.pairs.start > SCHEMA_PAIRS_MAX) {
        config_yaml_report_problem(reader, "expected at most %d keys here", SCHEMA_PAIRS_MAX);
        return;
    }
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < top; pair++) {
        const yaml_node_t *name = config_yaml_get_node(reader, pair->key),
                          *value = config_yaml_get_node(reader, pair->value);
        if (!config_yaml_charge_visit(reader, name) || !config_yaml_charge_visit(reader, value))
            break;
        if (name->type != YAML_SCALAR_NODE) {
            reader->line = config_yaml_get_line(name);
            config_yaml_report_problem(reader, "expected a plain word as key, found %s",
                                       config_yaml_value_describe(name, found, sizeof found));
            continue;
        }
        const char *word = (const char *)name->data.scalar.value;
        size_t outer = config_yaml_enter_marked_key(reader, word, config_yaml_get_line(name));
        reader->mapping = node;
        if (!check_key_is_repeated(reader, node, pair, word))
            read_mapping_entry(reader, keys, variant, word, value, base);
        config_yaml_leave_key(reader, outer);
    }
    reader->mapping = around;
    reader->line = line;
}

/* In the supervisor or `eventpipe`: reads a group of keys below one key of the configuration file, such as
 * `retry` or `trace`, into its own struct. The schema names it for such keys. */
void config_yaml_mapping_read_children(struct reader *reader, const struct schema_key *key,
                                       const yaml_node_t *node, void *base)
{
    static const struct schema_variant plain = {.bit = 0};
    config_yaml_mapping_read_keys(reader, key->children, &plain, node, (char *)base + key->offset);
}

/* In the supervisor or `eventpipe`: returns the value of a key in any mapping of the configuration file;
 * NULL if there is none or the node is not a mapping. */
static const yaml_node_t *find_mapping_value(struct reader *reader, const yaml_node_t *mapping,
                                             const char *name)
{
    const yaml_node_t *around = reader->mapping;
    reader->mapping = mapping;
    const yaml_node_t *value =
        mapping->type == YAML_MAPPING_NODE ? config_yaml_value_find_sibling(reader, name) : NULL;
    reader->mapping = around;
    return value;
}

/* In the supervisor or `eventpipe`: checks that a value in the configuration file is a list of an allowed
 * length and returns the length; 0 after a problem. */
static size_t check_list_length(struct reader *reader, const yaml_node_t *node, const char *what, size_t most)
{
    char found[120];
    if (node->type != YAML_SEQUENCE_NODE) {
        config_yaml_report_problem(reader, "expected a list of %s, each beginning with '- ', found %s", what,
                                   config_yaml_value_describe(node, found, sizeof found));
        return 0;
    }
    size_t length = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    if (length >= 1 && length <= most)
        return length;
    config_yaml_report_problem(reader, "expected a list of 1 to %zu %s, found %zu", most, what, length);
    return 0;
}

/* ---- stages ---- */

/* In the supervisor or `eventpipe`: finds which of exec, plugin and url a stage of the configuration file
 * has, before its keys are read, since that decides which keys are allowed. Reports a problem if it has
 * several. */
static struct schema_variant find_stage_variant(struct reader *reader, const yaml_node_t *node,
                                                struct stage_config *stage)
{
    static const enum stage_type types[] = {STAGE_EXEC, STAGE_PLUGIN, STAGE_HTTP};
    struct schema_variant variant = {.noun = "a stage with", .names = type_keys};
    const char *first = NULL;
    stage->type = STAGE_EXEC;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        const char *name = type_keys[types[i]];
        const yaml_node_t *value = find_mapping_value(reader, node, name);
        if (value == NULL)
            continue;
        if (first == NULL) {
            first = name;
            stage->type = types[i];
            variant.bit = BIT(types[i]);
            continue;
        }
        size_t outer = config_yaml_enter_key(reader, name, config_yaml_get_line(value));
        config_yaml_report_problem(reader,
                                   "expected exactly one of exec, plugin and url, found `%s` beside `%s`",
                                   name, first);
        config_yaml_leave_key(reader, outer);
        variant.bit = 0;
    }
    return variant;
}

/* Returns the line of a key in the configuration file; 0 if the mapping does not have it. */
static unsigned find_key_line(struct reader *reader, const yaml_node_t *mapping, const char *name)
{
    const yaml_node_t *value = find_mapping_value(reader, mapping, name);
    return value != NULL ? config_yaml_get_line(value) : 0;
}

/* In the supervisor or `eventpipe`: reports a missing key of the configuration file, unless an unknown key
 * was probably meant to be one of `names` (ended by NULL). */
static void report_missing_key(struct reader *reader, unsigned line, const char *const *names,
                               const char *message)
{
    bool meant = false;
    for (size_t i = 0; names[i] != NULL; i++) {
        size_t outer = config_yaml_enter_key(reader, names[i], line);
        meant = meant || config_yaml_is_meant_key(reader, reader->path);
        config_yaml_leave_key(reader, outer);
    }
    size_t outer = config_yaml_enter_key(reader, names[0], line);
    if (meant)
        config_yaml_note_meant_key(reader, reader->path); /* so that the rules do not report it again */
    else
        config_yaml_report_problem(reader, "%s", message);
    config_yaml_leave_key(reader, outer);
}

/* In the supervisor or `eventpipe`: reads the `stages` of one source in the configuration file: sets the
 * defaults, finds each stage's type, and reads its keys. Keeps the lines of user, group and limits for the
 * check of rights. */
void config_yaml_mapping_read_stages(struct reader *reader, const struct schema_key *key,
                                     const yaml_node_t *node, void *base)
{
    struct source_config *source = base;
    size_t length = check_list_length(reader, node, "stages", 256);
    source->stages = calloc(length + 1, sizeof *source->stages);
    if (source->stages == NULL) {
        reader->no_memory = true;
        return;
    }
    for (size_t i = 0; i < length; i++) {
        const yaml_node_t *item = config_yaml_get_node(reader, node->data.sequence.items.start[i]);
        if (!config_yaml_charge_visit(reader, item))
            return;
        char name[24];
        snprintf(name, sizeof name, "[%zu]", i);
        size_t outer = config_yaml_enter_marked_key(reader, name, config_yaml_get_line(item));
        struct stage_config *stage = &source->stages[source->stage_count++];
        config_stage_defaults(stage);
        struct schema_variant variant = find_stage_variant(reader, item, stage);
        config_yaml_mapping_read_keys(reader, key->children, &variant, item, stage);
        stage->user_line = find_key_line(reader, item, "user");
        stage->group_line = find_key_line(reader, item, "group");
        stage->limits_line = find_key_line(reader, item, "limits");
        if (stage->type == STAGE_EXEC && find_mapping_value(reader, item, "exec") == NULL &&
            item->type == YAML_MAPPING_NODE)
            report_missing_key(reader, config_yaml_get_line(item),
                               (const char *const[]){"exec", "plugin", "url", NULL},
                               "expected exactly one of exec, plugin and url in a stage, found none");
        config_yaml_leave_key(reader, outer);
    }
}

/* In the supervisor or `eventpipe`: reads the `limits` of a stage in the configuration file. */
void config_yaml_mapping_read_limits(struct reader *reader, const struct schema_key *key,
                                     const yaml_node_t *node, void *base)
{
    static const struct schema_variant plain = {.bit = 0};
    struct stage_config *stage = base;
    config_yaml_mapping_read_keys(reader, key->children, &plain, node, &stage->limits);
}

/* ---- sources ---- */

/* In the supervisor or `eventpipe`: finds the type of a source in the configuration file first, since it
 * decides where other keys go. read_mapping_entry later reads and checks it. */
static struct schema_variant find_source_variant(struct reader *reader, const yaml_node_t *node,
                                                 struct source_config *source)
{
    struct schema_variant variant = {.noun = "type", .names = config_yaml_schema_types};
    const yaml_node_t *value = find_mapping_value(reader, node, "type");
    source->type = SOURCE_UNKNOWN;
    for (unsigned i = 0;
         value != NULL && value->type == YAML_SCALAR_NODE && config_yaml_schema_types[i] != NULL; i++)
        if (strcmp((const char *)value->data.scalar.value, config_yaml_schema_types[i]) == 0) {
            source->type = (enum source_type)i;
            variant.bit = BIT(i);
        }
    return variant;
}

/* In the supervisor or `eventpipe`: reads the `sources` of the configuration file: finds each source's type,
 * sets the defaults, and reads its keys and stages. */
void config_yaml_mapping_read_sources(struct reader *reader, const struct schema_key *key,
                                      const yaml_node_t *node, void *base)
{
    struct config *config = base;
    size_t length = check_list_length(reader, node, "sources", CONFIG_SOURCES_MAX);
    config->sources = calloc(length + 1, sizeof *config->sources);
    if (config->sources == NULL) {
        reader->no_memory = true;
        return;
    }
    for (size_t i = 0; i < length; i++) {
        const yaml_node_t *item = config_yaml_get_node(reader, node->data.sequence.items.start[i]);
        if (!config_yaml_charge_visit(reader, item))
            return;
        char name[24];
        snprintf(name, sizeof name, "[%zu]", i);
        size_t outer = config_yaml_enter_marked_key(reader, name, config_yaml_get_line(item));
        struct source_config *source = &config->sources[config->source_count++];
        struct schema_variant variant = find_source_variant(reader, item, source);
        config_source_defaults(source);
        config_yaml_mapping_read_keys(reader, key->children, &variant, item, source);
        if (find_mapping_value(reader, item, "type") == NULL && item->type == YAML_MAPPING_NODE)
            report_missing_key(reader, config_yaml_get_line(item), (const char *const[]){"type", NULL},
                               "is missing, expected idefix, http, file or generate");
        config_yaml_leave_key(reader, outer);
    }
}
