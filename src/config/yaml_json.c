/* SPDX-License-Identifier: MIT */
/*
 * Converts YAML to JSON text. The supervisor uses it before the first fork for `options`, which may be
 * any YAML and goes to a plugin; `eventpipe chaos` uses it for a whole file.
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

static bool is_number(const char *at)
{
    at += *at == '-';
    size_t whole = strspn(at, "0123456789");
    if (whole == 0 || (at[0] == '0' && whole > 1))
        return false;
    at += whole;
    if (*at == '.') {
        size_t part = strspn(at + 1, "0123456789");
        if (part == 0)
            return false;
        at += 1 + part;
    }
    if (*at == 'e' || *at == 'E') {
        at++;
        at += *at == '-' || *at == '+';
        size_t power = strspn(at, "0123456789");
        if (power == 0)
            return false;
        at += power;
    }
    return *at == '\0';
}

static bool is_one_of(const char *text, const char *small, const char *capital, const char *large)
{
    return strcmp(text, small) == 0 || strcmp(text, capital) == 0 || strcmp(text, large) == 0;
}

static cJSON *scalar_json(const yaml_node_t *node)
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
    return is_number(text) ? cJSON_CreateRaw(text) : cJSON_CreateString(text);
}

static cJSON *node_json(struct reader *reader, const yaml_node_t *node, unsigned depth);

static cJSON *list_json(struct reader *reader, const yaml_node_t *node, unsigned depth)
{
    cJSON *list = cJSON_CreateArray();
    const yaml_node_item_t *item = node->data.sequence.items.start;
    for (; list != NULL && item < node->data.sequence.items.top; item++) {
        cJSON *json = node_json(reader, config_yaml_node(reader, *item), depth + 1);
        if (json == NULL || !cJSON_AddItemToArray(list, json)) {
            cJSON_Delete(json);
            cJSON_Delete(list);
            return NULL;
        }
    }
    return list;
}

static bool add_member(struct reader *reader, cJSON *object, const yaml_node_t *key, const yaml_node_t *value,
                       unsigned depth)
{
    const char *name = NULL;
    if (config_yaml_visit(reader, key))
        name = key->type == YAML_SCALAR_NODE && key->data.scalar.length == 0
                   ? ""
                   : config_yaml_value_scalar(reader, key, "a name");
    if (name == NULL)
        return false;
    size_t outer = config_yaml_enter(reader, name, config_yaml_line(key));
    cJSON *json = NULL;
    if (cJSON_GetObjectItemCaseSensitive(object, name) != NULL)
        config_yaml_problem(reader, "given twice, expected once");
    else
        json = node_json(reader, value, depth + 1);
    config_yaml_leave(reader, outer);
    if (json != NULL && cJSON_AddItemToObject(object, name, json))
        return true;
    cJSON_Delete(json);
    return false;
}

static cJSON *mapping_json(struct reader *reader, const yaml_node_t *node, unsigned depth)
{
    const yaml_node_pair_t *pair = node->data.mapping.pairs.start, *top = node->data.mapping.pairs.top;
    if (top - pair > SCHEMA_PAIRS_MAX) { /* each name is compared with all before it */
        config_yaml_problem(reader, "expected at most %d names in one mapping, found %zu", SCHEMA_PAIRS_MAX,
                            (size_t)(top - pair));
        return NULL;
    }
    cJSON *object = cJSON_CreateObject();
    for (; object != NULL && pair < top; pair++)
        if (!add_member(reader, object, config_yaml_node(reader, pair->key),
                        config_yaml_node(reader, pair->value), depth)) {
            cJSON_Delete(object);
            return NULL;
        }
    return object;
}

/* Converts a node; NULL after a problem or without memory. */
static cJSON *node_json(struct reader *reader, const yaml_node_t *node, unsigned depth)
{
    if (depth > READER_DEPTH_MAX) {
        config_yaml_problem(
            reader, "expected at most %d levels of lists and mappings, found more (or an alias to itself)",
            READER_DEPTH_MAX);
        return NULL;
    }
    if (!config_yaml_visit(reader, node))
        return NULL;
    cJSON *json;
    if (node->type == YAML_SEQUENCE_NODE)
        json = list_json(reader, node, depth);
    else if (node->type == YAML_MAPPING_NODE)
        json = mapping_json(reader, node, depth);
    else if (strlen((const char *)node->data.scalar.value) == node->data.scalar.length)
        json = scalar_json(node);
    else {
        config_yaml_problem(reader, "expected a text without a NUL character in it");
        return NULL;
    }
    if (json == NULL && reader->problem_count == 0 && !reader->spent)
        reader->no_memory = true;
    return json;
}

void config_yaml_json_options(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                              void *base)
{
    char **options = (char **)(void *)((char *)base + key->offset);
    cJSON *json = node_json(reader, node, 0);
    if (json == NULL)
        return;
    char *text = cJSON_PrintUnformatted(json);
    cJSON_Delete(json);
    if (text == NULL) {
        reader->no_memory = true;
        return;
    }
    free(*options);
    *options = text;
}

/* ---- a whole file ---- */

static const struct schema_key *key_named(const struct schema_key *keys, const char *name)
{
    for (const struct schema_key *key = keys; key != NULL && key->name != NULL; key++)
        if (strcmp(key->name, name) == 0)
            return key;
    return NULL;
}

/* Converts to a string, so that True stays True: only `options` has numbers and booleans. */
static cJSON *text_json(struct reader *reader, const yaml_node_t *node, const struct schema_key *key)
{
    if (config_yaml_value_is_null(node))
        return cJSON_CreateNull();
    bool path = key != NULL && (key->read == config_yaml_value_path || key->read == config_yaml_token_file);
    char *absolute = path ? config_yaml_value_absolute(reader, node) : NULL;
    cJSON *json = cJSON_CreateString(absolute != NULL ? absolute : (const char *)node->data.scalar.value);
    free(absolute);
    return json;
}

static cJSON *file_json(struct reader *reader, const yaml_node_t *node, const struct schema_key *key,
                        unsigned depth);

/* Converts a list. A NULL child, after a problem, cannot be added, so the whole list fails. */
static cJSON *file_list_json(struct reader *reader, const yaml_node_t *node, const struct schema_key *key,
                             unsigned depth)
{
    cJSON *list = cJSON_CreateArray();
    for (const yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top;
         item++)
        if (!cJSON_AddItemToArray(list, file_json(reader, config_yaml_node(reader, *item), key, depth + 1)))
            reader->no_memory = true;
    return list;
}

static cJSON *file_mapping_json(struct reader *reader, const yaml_node_t *node,
                                const struct schema_key *children, unsigned depth)
{
    cJSON *object = cJSON_CreateObject();
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top;
         pair++) {
        const char *name = config_yaml_value_scalar(reader, config_yaml_node(reader, pair->key), "a name");
        const struct schema_key *key = name != NULL ? key_named(children, name) : NULL;
        cJSON *value = file_json(reader, config_yaml_node(reader, pair->value), key, depth + 1);
        if (name == NULL || !cJSON_AddItemToObject(object, name, value))
            reader->no_memory = true;
    }
    return object;
}

/* Converts a value as its key in the schema requires. Without a key, it is a text or consists of texts. */
static cJSON *file_json(struct reader *reader, const yaml_node_t *node, const struct schema_key *key,
                        unsigned depth)
{
    if (key != NULL && key->read == config_yaml_json_options)
        return node_json(reader, node, depth);
    if (depth > READER_DEPTH_MAX || !config_yaml_visit(reader, node))
        return NULL;
    if (node->type == YAML_SEQUENCE_NODE)
        return file_list_json(reader, node, key, depth);
    if (node->type == YAML_MAPPING_NODE)
        return file_mapping_json(reader, node, key != NULL ? key->children : NULL, depth);
    return text_json(reader, node, key);
}

int config_json(const char *path, char **out, struct error *error)
{
    static const struct schema_key whole = {.children = config_yaml_schema_top};
    struct reader reader = {.file = path};
    const yaml_node_t *root = config_yaml_load(&reader);
    cJSON *json = root != NULL ? file_json(&reader, root, &whole, 0) : NULL;
    char *text = reader.no_memory || reader.spent ? NULL : cJSON_PrintUnformatted(json);
    cJSON_Delete(json);
    config_yaml_unload(&reader, root);
    if (text == NULL)
        return base_error_set(error, EP_ECONFIG,
                              "%s: it changed while it was read, or memory is out: try again", path);
    *out = text;
    return EP_OK;
}
