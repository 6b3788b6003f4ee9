/* SPDX-License-Identifier: MIT */
/*
 * Converts YAML to JSON text. The supervisor (before it forks) and `eventpipe` commands use it for
 * `options`, which may be any YAML and goes to a plugin; `eventpipe chaos` uses it for a whole file.
 *
 * Invariants
 *  1. A plain scalar that is a JSON number, true, false or null (also in capitals; ~ and nothing for
 *     null) becomes that, with the same digits, so that 64-bit integers survive.
 *  2. Every other scalar, and everything in quotes, becomes a string: "007", "yes" and "0x1f" are
 *     strings.
 */
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "src/config/yaml.h"

/* In the supervisor or `eventpipe`: returns whether a text in the configuration file without quotes is a
 * number in JSON's form; 007 and 0x1f are not and become strings. */
static bool is_json_number(const char *position)
{
    position += *position == '-';
    size_t integer_digits = strspn(position, "0123456789");
    if (integer_digits == 0 || (position[0] == '0' && integer_digits > 1))
        return false;
    position += integer_digits;
    if (*position == '.') {
        size_t fraction_digits = strspn(position + 1, "0123456789");
        if (fraction_digits == 0)
            return false;
        position += 1 + fraction_digits;
    }
    if (*position == 'e' || *position == 'E') {
        position++;
        position += *position == '-' || *position == '+';
        size_t exponent_digits = strspn(position, "0123456789");
        if (exponent_digits == 0)
            return false;
        position += exponent_digits;
    }
    return *position == '\0';
}

static bool is_one_of(const char *text, const char *small, const char *capital, const char *large)
{
    return strcmp(text, small) == 0 || strcmp(text, capital) == 0 || strcmp(text, large) == 0;
}

/* In the supervisor or `eventpipe`: converts a single value of the configuration file to JSON: null, true,
 * false, a number with the same digits, or a string. Returns NULL if out of memory. */
static cJSON *convert_scalar(const yaml_node_t *node)
{
    const char *text = (const char *)node->data.scalar.value;
    if (config_yaml_value_is_null(node))
        return cJSON_CreateNull();
    if (node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return cJSON_CreateString(text);
    if (is_one_of(text, "true", "True", "TRUE"))
        return cJSON_CreateTrue();
    if (is_one_of(text, "false", "False", "FALSE"))
        return cJSON_CreateFalse();
    return is_json_number(text) ? cJSON_CreateRaw(text) : cJSON_CreateString(text);
}

static cJSON *convert_node(struct reader *reader, const yaml_node_t *node, unsigned depth);

/* In the supervisor or `eventpipe`: converts a list of the configuration file to a JSON array. `depth`
 * counts the lists and mappings around it. Returns NULL after a problem or if out of memory. */
static cJSON *convert_list(struct reader *reader, const yaml_node_t *node, unsigned depth)
{
    cJSON *array = cJSON_CreateArray();
    const yaml_node_item_t *item = node->data.sequence.items.start;
    for (; array != NULL && item < node->data.sequence.items.top; item++) {
        cJSON *element = convert_node(reader, config_yaml_get_node(reader, *item), depth + 1);
        if (element == NULL || !cJSON_AddItemToArray(array, element)) {
            cJSON_Delete(element);
            cJSON_Delete(array);
            return NULL;
        }
    }
    return array;
}

/* In the supervisor or `eventpipe`: converts one key and value of the configuration file and adds them to a
 * JSON object. Returns false after a problem or if out of memory. A repeated key is a problem, since a JSON
 * reader would silently take one of the two. */
static bool add_mapping_member(struct reader *reader, cJSON *object, const yaml_node_t *key,
                               const yaml_node_t *value, unsigned depth)
{
    const char *name = NULL;
    if (config_yaml_charge_visit(reader, key))
        name = key->type == YAML_SCALAR_NODE && key->data.scalar.length == 0
                   ? ""
                   : config_yaml_value_read_scalar(reader, key, "a name");
    if (name == NULL)
        return false;
    size_t outer_length = config_yaml_enter_key(reader, name, config_yaml_get_line(key));
    cJSON *member_value = NULL;
    if (cJSON_GetObjectItemCaseSensitive(object, name) != NULL)
        config_yaml_report_problem(reader, "given twice, expected once");
    else
        member_value = convert_node(reader, value, depth + 1);
    config_yaml_leave_key(reader, outer_length);
    if (member_value != NULL && cJSON_AddItemToObject(object, name, member_value))
        return true;
    cJSON_Delete(member_value);
    return false;
}

/* In the supervisor or `eventpipe`: converts a mapping of the configuration file to a JSON object. `depth`
 * counts the lists and mappings around it. Returns NULL after a problem or if out of memory. */
static cJSON *convert_mapping(struct reader *reader, const yaml_node_t *node, unsigned depth)
{
    const yaml_node_pair_t *pair = node->data.mapping.pairs.start, *top = node->data.mapping.pairs.top;
    if (top - pair > SCHEMA_PAIRS_MAX) { /* each name is compared with all before it */
        config_yaml_report_problem(reader, "expected at most %d names in one mapping, found %zu",
                                   SCHEMA_PAIRS_MAX, (size_t)(top - pair));
        return NULL;
    }
    cJSON *object = cJSON_CreateObject();
    for (; object != NULL && pair < top; pair++)
        if (!add_mapping_member(reader, object, config_yaml_get_node(reader, pair->key),
                                config_yaml_get_node(reader, pair->value), depth)) {
            cJSON_Delete(object);
            return NULL;
        }
    return object;
}

/* In the supervisor or `eventpipe`: converts any value of the configuration file to JSON, with everything
 * in it. Returns NULL after a problem or if out of memory. It limits the depth, since an alias may contain
 * itself. */
static cJSON *convert_node(struct reader *reader, const yaml_node_t *node, unsigned depth)
{
    if (depth > READER_DEPTH_MAX) {
        config_yaml_report_problem(
            reader, "expected at most %d levels of lists and mappings, found more (or an alias to itself)",
            READER_DEPTH_MAX);
        return NULL;
    }
    if (!config_yaml_charge_visit(reader, node))
        return NULL;
    cJSON *json;
    if (node->type == YAML_SEQUENCE_NODE)
        json = convert_list(reader, node, depth);
    else if (node->type == YAML_MAPPING_NODE)
        json = convert_mapping(reader, node, depth);
    else if (strlen((const char *)node->data.scalar.value) == node->data.scalar.length)
        json = convert_scalar(node);
    else {
        config_yaml_report_problem(reader, "expected a text without a NUL character in it");
        return NULL;
    }
    if (json == NULL && reader->problem_count == 0 && !reader->budget_exhausted)
        reader->no_memory = true;
    return json;
}

/* In the supervisor or `eventpipe`: reads a value of the configuration file that may be any YAML, such as a
 * plugin stage's `options` or an Idefix source's `meta`, and keeps it as JSON text, which a plugin or the
 * backend gets. */
void config_yaml_json_read_any_value(struct reader *reader, const struct schema_key *key,
                                     const yaml_node_t *node, void *base)
{
    char **destination = (char **)(void *)((char *)base + key->offset);
    cJSON *json = convert_node(reader, node, 0);
    if (json == NULL)
        return;
    char *text = cJSON_PrintUnformatted(json);
    cJSON_Delete(json);
    if (text == NULL) {
        reader->no_memory = true;
        return;
    }
    free(*destination);
    *destination = text;
}

/* ---- a whole file ---- */

/* In the supervisor or `eventpipe`: returns the entry of a key in a table of the configuration's schema, or
 * NULL if there is none. The conversion of a whole file to JSON learns from it which values are paths. */
static const struct schema_key *find_schema_key_by_name(const struct schema_key *keys, const char *name)
{
    for (const struct schema_key *key = keys; key != NULL && key->name != NULL; key++)
        if (strcmp(key->name, name) == 0)
            return key;
    return NULL;
}

/* Converts a single value of the configuration file to a JSON string or null for `eventpipe chaos`. True
 * stays the text True, since only `options` and `meta` have numbers and booleans. Paths become absolute. */
static cJSON *convert_file_text(struct reader *reader, const yaml_node_t *node, const struct schema_key *key)
{
    if (config_yaml_value_is_null(node))
        return cJSON_CreateNull();
    bool is_path = key != NULL && (key->read == config_yaml_value_read_path ||
                                   key->read == config_yaml_list_read_token_file);
    char *absolute_path = is_path ? config_yaml_value_read_absolute_path(reader, node) : NULL;
    cJSON *json =
        cJSON_CreateString(absolute_path != NULL ? absolute_path : (const char *)node->data.scalar.value);
    free(absolute_path);
    return json;
}

static cJSON *convert_file_node(struct reader *reader, const yaml_node_t *node, const struct schema_key *key,
                                unsigned depth);

/* Converts a list of the configuration file to a JSON array for `eventpipe chaos`. An element that cannot
 * be converted sets reader->no_memory, so that the whole conversion fails. */
static cJSON *convert_file_list(struct reader *reader, const yaml_node_t *node, const struct schema_key *key,
                                unsigned depth)
{
    cJSON *array = cJSON_CreateArray();
    for (const yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top;
         item++)
        if (!cJSON_AddItemToArray(array, convert_file_node(reader, config_yaml_get_node(reader, *item), key,
                                                           depth + 1)))
            reader->no_memory = true;
    return array;
}

/* Converts the keys and values of the configuration file to a JSON object for `eventpipe chaos`, each
 * value as its key in the schema requires. A failure sets reader->no_memory. */
static cJSON *convert_file_mapping(struct reader *reader, const yaml_node_t *node,
                                   const struct schema_key *children, unsigned depth)
{
    cJSON *object = cJSON_CreateObject();
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top;
         pair++) {
        const char *name =
            config_yaml_value_read_scalar(reader, config_yaml_get_node(reader, pair->key), "a name");
        const struct schema_key *key = name != NULL ? find_schema_key_by_name(children, name) : NULL;
        cJSON *value = convert_file_node(reader, config_yaml_get_node(reader, pair->value), key, depth + 1);
        if (name == NULL || !cJSON_AddItemToObject(object, name, value))
            reader->no_memory = true;
    }
    return object;
}

/* Converts a value of the configuration file to JSON for `eventpipe chaos`, as its key in the schema
 * requires; without a key (NULL), it is a text or consists of texts. Returns NULL after a problem or if out
 * of memory. */
static cJSON *convert_file_node(struct reader *reader, const yaml_node_t *node, const struct schema_key *key,
                                unsigned depth)
{
    if (key != NULL && key->read == config_yaml_json_read_any_value)
        return convert_node(reader, node, depth);
    if (depth > READER_DEPTH_MAX || !config_yaml_charge_visit(reader, node))
        return NULL;
    if (node->type == YAML_SEQUENCE_NODE)
        return convert_file_list(reader, node, key, depth);
    if (node->type == YAML_MAPPING_NODE)
        return convert_file_mapping(reader, node, key != NULL ? key->children : NULL, depth);
    return convert_file_text(reader, node, key);
}

/* Converts a whole configuration file to one JSON object, with relative paths made absolute. Returns 0
 * with *out set, which the caller frees, or EP_ECONFIG with a message. `eventpipe chaos`, which tests the
 * stages while it kills their processes, passes the result to its helper program, which reads no YAML. */
int config_convert_to_json(const char *path, char **out, struct error *error)
{
    static const struct schema_key root_key = {.children = config_yaml_schema_top};
    struct reader reader = {.file = path};
    const yaml_node_t *root = config_yaml_load_file(&reader);
    cJSON *json = root != NULL ? convert_file_node(&reader, root, &root_key, 0) : NULL;
    char *text = reader.no_memory || reader.budget_exhausted ? NULL : cJSON_PrintUnformatted(json);
    cJSON_Delete(json);
    config_yaml_unload_file(&reader, root);
    if (text == NULL)
        return base_error_set(
            error, EP_ECONFIG,
            "cannot convert %s to JSON: out of memory, or the file changed while it was read; try again",
            path);
    *out = text;
    return EP_OK;
}
