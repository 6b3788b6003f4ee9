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

static const char *const stage_type_keys[] = {NULL, "plugin", "exec", "url"}; /* by enum stage_type */

/* ---- names ---- */

static bool key_fits_variant(const struct schema_key *key, const struct schema_variant *variant)
{
    return key->variant_bits == 0 || variant->bit == 0 || (key->variant_bits & variant->bit) != 0;
}

/* In the supervisor or `eventpipe`: returns the entry of a key of the configuration file in `keys`, a table
 * of the schema (which lists all keys), for this type of source or stage. If only other types have the key,
 * returns one of their entries; if none has it, NULL. */
static const struct schema_key *find_schema_key(const struct schema_key *keys,
                                                const struct schema_variant *variant, const char *name)
{
    const struct schema_key *misplaced_key = NULL;
    for (const struct schema_key *key = keys; key->name != NULL; key++)
        if (strcmp(key->name, name) == 0) {
            if (key_fits_variant(key, variant))
                return key;
            misplaced_key = key;
        }
    return misplaced_key;
}

/* In the supervisor or `eventpipe`: reports an unknown key of the configuration file, with the most similar
 * key that is allowed there, or with all of them. */
static void report_unknown_key(struct reader *reader, const struct schema_key *keys,
                               const struct schema_variant *variant, const char *name)
{
    const char *names[NAMES_MAX + 1] = {NULL};
    size_t name_count = 0;
    for (const struct schema_key *key = keys; key->name != NULL && name_count < NAMES_MAX; key++)
        if (key_fits_variant(key, variant) && find_schema_key(keys, variant, key->name) == key)
            names[name_count++] = key->name;
    if (strcmp(name, "<<") == 0) {
        config_yaml_report_problem(
            reader, "merge keys (<<) are not supported; write the keys out, or give a whole value an "
                    "anchor (&name) and use it again (*name)");
        return;
    }
    const char *similar_name = base_suggest_find_nearest(name, names);
    if (similar_name != NULL) {
        config_yaml_report_problem(reader, "unknown key; did you mean `%s`?", similar_name);
        size_t path_length = strlen(reader->key_path), parent_length = path_length;
        char meant_key[256];
        while (parent_length > 0 && reader->key_path[parent_length] != '.')
            parent_length--;
        snprintf(meant_key, sizeof meant_key, "%.*s%s%s", (int)parent_length, reader->key_path,
                 parent_length > 0 ? "." : "", similar_name);
        config_yaml_note_meant_key(reader, meant_key);
        return;
    }
    char name_list[800] = "";
    for (size_t i = 0, used = 0; i < name_count && used < sizeof name_list; i++)
        used +=
            (size_t)snprintf(name_list + used, sizeof name_list - used, "%s%s", i > 0 ? ", " : "", names[i]);
    config_yaml_report_problem(reader, "unknown key; expected one of %s", name_list);
}

/* In the supervisor or `eventpipe`: reports a key of the configuration file that belongs to another type of
 * source or stage, and names the types that have it. */
static void report_misplaced_key(struct reader *reader, const struct schema_key *key,
                                 const struct schema_variant *variant)
{
    char allowed_types[200] = "";
    for (unsigned i = 0, used = 0; i < 32 && used < sizeof allowed_types; i++)
        if ((key->variant_bits & BIT(i)) != 0)
            used += (unsigned)snprintf(allowed_types + used, sizeof allowed_types - used, "%s%s %s",
                                       used > 0 ? " and " : "", variant->noun, variant->names[i]);
    unsigned own_type = (unsigned)__builtin_ctz(variant->bit);
    config_yaml_report_problem(reader, "`%s` is not for %s %s; it belongs to %s", key->name, variant->noun,
                               variant->names[own_type], allowed_types);
}

/* ---- mappings ---- */

/* In the supervisor or `eventpipe`: reads the value of one key of the configuration file as the schema
 * says, or reports that the key is unknown or misplaced. While the type of a source or stage is unknown,
 * keys of one type are skipped. */
static void read_key_value(struct reader *reader, const struct schema_key *keys,
                           const struct schema_variant *variant, const char *name, const yaml_node_t *value,
                           void *base)
{
    const struct schema_key *key = find_schema_key(keys, variant, name);
    if (key == NULL) {
        report_unknown_key(reader, keys, variant, name);
    } else if (!key_fits_variant(key, variant)) {
        report_misplaced_key(reader, key, variant);
    } else if (key->variant_bits == 0 || variant->bit != 0) {
        key->read(reader, key, value, base);
    }
}

/* In the supervisor or `eventpipe`: reports a key of the configuration file if an earlier key of the same
 * mapping has the same name, and returns true; otherwise returns false. */
static bool report_repeated_key(struct reader *reader, const yaml_node_t *mapping,
                                const yaml_node_pair_t *pair, const char *name)
{
    for (const yaml_node_pair_t *earlier_pair = mapping->data.mapping.pairs.start; earlier_pair < pair;
         earlier_pair++) {
        const yaml_node_t *earlier_key = config_yaml_get_node(reader, earlier_pair->key);
        if (earlier_key->type != YAML_SCALAR_NODE ||
            strcmp((const char *)earlier_key->data.scalar.value, name) != 0)
            continue;
        config_yaml_report_problem(reader, "given twice, first in line %u; expected once",
                                   config_yaml_get_line(earlier_key));
        return true;
    }
    return false;
}

/* In the supervisor or `eventpipe`: reads all keys of one mapping in the configuration file by a table of
 * the schema, and fills the struct at `base`. The reader calls it for the top of the file, each source,
 * each stage and each smaller mapping. */
void config_yaml_mapping_read_keys(struct reader *reader, const struct schema_key *keys,
                                   const struct schema_variant *variant, const yaml_node_t *node, void *base)
{
    char found_text[120];
    if (node->type != YAML_MAPPING_NODE) {
        config_yaml_report_problem(reader, "expected keys with values such as `%s: ...`, found %s",
                                   keys[0].name,
                                   config_yaml_value_describe(node, found_text, sizeof found_text));
        return;
    }
    const yaml_node_t *outer_mapping = reader->current_mapping;
    unsigned outer_line = reader->line;
    const yaml_node_pair_t *top = node->data.mapping.pairs.top;
    if (top - node->data.mapping.pairs.start > SCHEMA_PAIRS_MAX) {
        config_yaml_report_problem(reader, "expected at most %d keys here, found %zu", SCHEMA_PAIRS_MAX,
                                   (size_t)(top - node->data.mapping.pairs.start));
        return;
    }
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < top; pair++) {
        const yaml_node_t *key_node = config_yaml_get_node(reader, pair->key),
                          *value = config_yaml_get_node(reader, pair->value);
        if (!config_yaml_charge_visit(reader, key_node) || !config_yaml_charge_visit(reader, value))
            break;
        if (key_node->type != YAML_SCALAR_NODE) {
            reader->line = config_yaml_get_line(key_node);
            config_yaml_report_problem(reader, "expected a plain word as key, found %s",
                                       config_yaml_value_describe(key_node, found_text, sizeof found_text));
            continue;
        }
        const char *key_text = (const char *)key_node->data.scalar.value;
        size_t outer_length = config_yaml_enter_marked_key(reader, key_text, config_yaml_get_line(key_node));
        reader->current_mapping = node;
        if (!report_repeated_key(reader, node, pair, key_text))
            read_key_value(reader, keys, variant, key_text, value, base);
        config_yaml_leave_key(reader, outer_length);
    }
    reader->current_mapping = outer_mapping;
    reader->line = outer_line;
}

/* In the supervisor or `eventpipe`: reads the mapping that is the value of one key of the configuration
 * file, such as `retry` or `trace`, into its own struct. */
void config_yaml_mapping_read_children(struct reader *reader, const struct schema_key *key,
                                       const yaml_node_t *node, void *base)
{
    static const struct schema_variant no_variant = {.bit = 0};
    config_yaml_mapping_read_keys(reader, key->children, &no_variant, node, (char *)base + key->offset);
}

/* In the supervisor or `eventpipe`: returns the value of a key in a mapping of the configuration file, or
 * NULL if the key is not there or the node is not a mapping. The type of a source or stage is found this
 * way before its other keys are read. */
static const yaml_node_t *find_mapping_value(struct reader *reader, const yaml_node_t *mapping,
                                             const char *name)
{
    const yaml_node_t *outer_mapping = reader->current_mapping;
    reader->current_mapping = mapping;
    const yaml_node_t *value =
        mapping->type == YAML_MAPPING_NODE ? config_yaml_value_find_sibling(reader, name) : NULL;
    reader->current_mapping = outer_mapping;
    return value;
}

/* In the supervisor or `eventpipe`: returns the length of a list in the configuration file if it is between
 * 1 and max_length. Otherwise reports a problem, in which `elements` says what the list holds, and returns
 * 0. */
static size_t check_list_length(struct reader *reader, const yaml_node_t *node, const char *elements,
                                size_t max_length)
{
    char found_text[120];
    if (node->type != YAML_SEQUENCE_NODE) {
        config_yaml_report_problem(reader, "expected a list of %s, each beginning with '- ', found %s",
                                   elements, config_yaml_value_describe(node, found_text, sizeof found_text));
        return 0;
    }
    size_t length = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    if (length >= 1 && length <= max_length)
        return length;
    config_yaml_report_problem(reader, "expected a list of 1 to %zu %s, found %zu", max_length, elements,
                               length);
    return 0;
}

/* ---- stages ---- */

/* In the supervisor or `eventpipe`: finds which of the keys exec, plugin and url a stage of the
 * configuration file has and sets its type; that decides which other keys are allowed. Reports a problem if
 * it has several. */
static struct schema_variant find_stage_variant(struct reader *reader, const yaml_node_t *node,
                                                struct stage_config *stage)
{
    static const enum stage_type types[] = {STAGE_EXEC, STAGE_PLUGIN, STAGE_HTTP};
    struct schema_variant variant = {.noun = "a stage with", .names = stage_type_keys};
    const char *first_name = NULL;
    stage->type = STAGE_EXEC;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        const char *name = stage_type_keys[types[i]];
        const yaml_node_t *value = find_mapping_value(reader, node, name);
        if (value == NULL)
            continue;
        if (first_name == NULL) {
            first_name = name;
            stage->type = types[i];
            variant.bit = BIT(types[i]);
            continue;
        }
        size_t outer_length = config_yaml_enter_key(reader, name, config_yaml_get_line(value));
        config_yaml_report_problem(reader,
                                   "expected exactly one of exec, plugin and url, found `%s` beside `%s`",
                                   name, first_name);
        config_yaml_leave_key(reader, outer_length);
        variant.bit = 0;
    }
    return variant;
}

/* In the supervisor or `eventpipe`: returns the line of a key in the configuration file, or 0 if the
 * mapping does not have the key. Problems that are found later, such as an unknown user, name this line. */
static unsigned find_key_line(struct reader *reader, const yaml_node_t *mapping, const char *name)
{
    const yaml_node_t *value = find_mapping_value(reader, mapping, name);
    return value != NULL ? config_yaml_get_line(value) : 0;
}

/* In the supervisor or `eventpipe`: reports `message` at the line and the first of `alternative_names`, the
 * keys (ended by NULL) one of which the configuration file must have there; but not if an unknown key was
 * probably meant to be one of them, which is reported already. */
static void report_missing_key(struct reader *reader, unsigned line, const char *const *alternative_names,
                               const char *message)
{
    bool is_misspelt = false;
    for (size_t i = 0; alternative_names[i] != NULL; i++) {
        size_t outer_length = config_yaml_enter_key(reader, alternative_names[i], line);
        is_misspelt = is_misspelt || config_yaml_is_meant_key(reader, reader->key_path);
        config_yaml_leave_key(reader, outer_length);
    }
    size_t outer_length = config_yaml_enter_key(reader, alternative_names[0], line);
    if (is_misspelt) /* keeps config_validate from reporting it again */
        config_yaml_note_meant_key(reader, reader->key_path);
    else
        config_yaml_report_problem(reader, "%s", message);
    config_yaml_leave_key(reader, outer_length);
}

/* In the supervisor or `eventpipe`: reads the `stages` of one source in the configuration file: for each
 * stage sets the defaults, finds its type, and reads its keys. It keeps the lines of user, group and
 * limits, which config_rights_check reports problems with. */
void config_yaml_mapping_read_stages(struct reader *reader, const struct schema_key *key,
                                     const yaml_node_t *node, void *base)
{
    struct source_config *source = base;
    size_t stage_count = check_list_length(reader, node, "stages", 256);
    source->stages = calloc(stage_count + 1, sizeof *source->stages);
    if (source->stages == NULL) {
        reader->no_memory = true;
        return;
    }
    for (size_t i = 0; i < stage_count; i++) {
        const yaml_node_t *item = config_yaml_get_node(reader, node->data.sequence.items.start[i]);
        if (!config_yaml_charge_visit(reader, item))
            return;
        char index_text[24];
        snprintf(index_text, sizeof index_text, "[%zu]", i);
        size_t outer_length = config_yaml_enter_marked_key(reader, index_text, config_yaml_get_line(item));
        struct stage_config *stage = &source->stages[source->stage_count++];
        config_set_stage_defaults(stage);
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
        config_yaml_leave_key(reader, outer_length);
    }
}

/* In the supervisor or `eventpipe`: reads the `limits` of a stage in the configuration file, the kernel's
 * limits for the process that runs the stage's code. */
void config_yaml_mapping_read_limits(struct reader *reader, const struct schema_key *key,
                                     const yaml_node_t *node, void *base)
{
    static const struct schema_variant no_variant = {.bit = 0};
    struct stage_config *stage = base;
    config_yaml_mapping_read_keys(reader, key->children, &no_variant, node, &stage->limits);
}

/* ---- sources ---- */

/* In the supervisor or `eventpipe`: finds the type of a source in the configuration file before its other
 * keys are read, since it decides which keys are allowed and where their values go. A wrong type is
 * reported later, when the key itself is read. */
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

/* In the supervisor or `eventpipe`: reads the `sources` of the configuration file: for each source finds
 * its type, sets the defaults, and reads its keys and stages. */
void config_yaml_mapping_read_sources(struct reader *reader, const struct schema_key *key,
                                      const yaml_node_t *node, void *base)
{
    struct config *config = base;
    size_t source_count = check_list_length(reader, node, "sources", CONFIG_SOURCES_MAX);
    config->sources = calloc(source_count + 1, sizeof *config->sources);
    if (config->sources == NULL) {
        reader->no_memory = true;
        return;
    }
    for (size_t i = 0; i < source_count; i++) {
        const yaml_node_t *item = config_yaml_get_node(reader, node->data.sequence.items.start[i]);
        if (!config_yaml_charge_visit(reader, item))
            return;
        char index_text[24];
        snprintf(index_text, sizeof index_text, "[%zu]", i);
        size_t outer_length = config_yaml_enter_marked_key(reader, index_text, config_yaml_get_line(item));
        struct source_config *source = &config->sources[config->source_count++];
        struct schema_variant variant = find_source_variant(reader, item, source);
        config_set_source_defaults(source);
        config_yaml_mapping_read_keys(reader, key->children, &variant, item, source);
        if (find_mapping_value(reader, item, "type") == NULL && item->type == YAML_MAPPING_NODE)
            report_missing_key(reader, config_yaml_get_line(item), (const char *const[]){"type", NULL},
                               "is missing, expected idefix, http, file or generate");
        config_yaml_leave_key(reader, outer_length);
    }
}
