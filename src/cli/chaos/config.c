/* SPDX-License-Identifier: MIT */
/*
 * The configuration of a trial: the user's own, node by node, so that keys which this file knows nothing of
 * stay what they are; but with an instance, store and socket of its own, a file of ours in place of each
 * source, short pauses, and a witness after the last stage. Runs in `eventpipe chaos`, which has read the
 * file without a problem before.
 *
 * Invariants
 *  1. The user's file is only read.
 *  2. Relative paths begin at the user's file: they are made absolute, by the reader's own table of keys.
 *  3. Nothing of a source but its stages is taken over, and where events have their type, time and device.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/cli/chaos/chaos.h"
#include "src/config/yaml.h"

#define PAUSE_MIN "50ms"
#define PAUSE_MAX "500ms"
#define CRASHES_MAX "50" /* the storm's kills count as crashes of the event in hand, too */

struct writer {
    const struct chaos_config *config;
    yaml_document_t from, to;
    char *directory; /* of the user's file */
    bool failed;
};

static int scalar(struct writer *writer, const char *text)
{
    int node = yaml_document_add_scalar(&writer->to, NULL, (const yaml_char_t *)text, (int)strlen(text),
                                        YAML_DOUBLE_QUOTED_SCALAR_STYLE);
    writer->failed = writer->failed || node == 0;
    return node;
}

static int plain(struct writer *writer, const char *text)
{
    int node = yaml_document_add_scalar(&writer->to, NULL, (const yaml_char_t *)text, (int)strlen(text),
                                        YAML_PLAIN_SCALAR_STYLE);
    writer->failed = writer->failed || node == 0;
    return node;
}

static void put(struct writer *writer, int mapping, const char *key, int value)
{
    int name = plain(writer, key);
    if (!writer->failed && !yaml_document_append_mapping_pair(&writer->to, mapping, name, value))
        writer->failed = true;
}

static void add(struct writer *writer, int sequence, int value)
{
    if (!writer->failed && !yaml_document_append_sequence_item(&writer->to, sequence, value))
        writer->failed = true;
}

static int new_mapping(struct writer *writer)
{
    int node = yaml_document_add_mapping(&writer->to, NULL, YAML_BLOCK_MAPPING_STYLE);
    writer->failed = writer->failed || node == 0;
    return node;
}

static int new_sequence(struct writer *writer)
{
    int node = yaml_document_add_sequence(&writer->to, NULL, YAML_BLOCK_SEQUENCE_STYLE);
    writer->failed = writer->failed || node == 0;
    return node;
}

static int retry(struct writer *writer)
{
    int mapping = new_mapping(writer);
    put(writer, mapping, "min", plain(writer, PAUSE_MIN));
    put(writer, mapping, "max", plain(writer, PAUSE_MAX));
    return mapping;
}

/* ---- the user's nodes ---- */

static const yaml_node_t *value_of(struct writer *writer, const yaml_node_t *mapping, const char *key)
{
    if (mapping == NULL || mapping->type != YAML_MAPPING_NODE)
        return NULL;
    for (const yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
         pair < mapping->data.mapping.pairs.top; pair++) {
        const yaml_node_t *name = yaml_document_get_node(&writer->from, pair->key);
        if (name->type == YAML_SCALAR_NODE && strcmp((const char *)name->data.scalar.value, key) == 0)
            return yaml_document_get_node(&writer->from, pair->value);
    }
    return NULL;
}

static const char *text_of(struct writer *writer, const yaml_node_t *mapping, const char *key)
{
    const yaml_node_t *node = value_of(writer, mapping, key);
    return node != NULL && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : "";
}

static int copy_path(struct writer *writer, const char *path)
{
    char *whole = NULL;
    if (path[0] == '/' || asprintf(&whole, "%s/%s", writer->directory, path) < 0)
        whole = NULL;
    int node = scalar(writer, whole != NULL ? whole : path);
    writer->failed = writer->failed || (whole == NULL && path[0] != '/');
    free(whole);
    return node;
}

static const struct schema_key *key_of(const struct schema_key *keys, const char *name)
{
    for (const struct schema_key *key = keys; key != NULL && key->name != NULL; key++)
        if (strcmp(key->name, name) == 0)
            return key;
    return NULL;
}

static int copy(struct writer *writer, const yaml_node_t *node, const struct schema_key *key);

static int copy_mapping(struct writer *writer, const yaml_node_t *node, const struct schema_key *keys)
{
    int mapping = new_mapping(writer);
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         !writer->failed && pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *name = yaml_document_get_node(&writer->from, pair->key);
        const yaml_node_t *value = yaml_document_get_node(&writer->from, pair->value);
        const char *word = name->type == YAML_SCALAR_NODE ? (const char *)name->data.scalar.value : "";
        int left = copy(writer, name, NULL), right = copy(writer, value, key_of(keys, word));
        if (!writer->failed && !yaml_document_append_mapping_pair(&writer->to, mapping, left, right))
            writer->failed = true;
    }
    return mapping;
}

/* `key` says what the value means, NULL = nothing that matters here. */
static int copy(struct writer *writer, const yaml_node_t *node, const struct schema_key *key)
{
    if (node->type == YAML_MAPPING_NODE)
        return copy_mapping(writer, node, key != NULL ? key->children : NULL);
    if (node->type == YAML_SEQUENCE_NODE) {
        int sequence = new_sequence(writer);
        for (const yaml_node_item_t *item = node->data.sequence.items.start;
             !writer->failed && item < node->data.sequence.items.top; item++)
            add(writer, sequence, copy(writer, yaml_document_get_node(&writer->from, *item), key));
        return sequence;
    }
    const char *text = (const char *)node->data.scalar.value;
    if (key != NULL && (key->read == value_path || key->read == value_token_file) && text[0] != '\0')
        return copy_path(writer, text);
    int scalar = yaml_document_add_scalar(&writer->to, node->tag, node->data.scalar.value,
                                          (int)node->data.scalar.length, node->data.scalar.style);
    writer->failed = writer->failed || scalar == 0;
    return scalar;
}

/* Every pair but those of these names. */
static int copy_but(struct writer *writer, const yaml_node_t *node, const struct schema_key *keys,
                    const char *const *without)
{
    int mapping = new_mapping(writer);
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         !writer->failed && pair < node->data.mapping.pairs.top; pair++) {
        const char *name = (const char *)yaml_document_get_node(&writer->from, pair->key)->data.scalar.value;
        bool left_out = false;
        for (size_t i = 0; without[i] != NULL; i++)
            left_out = left_out || strcmp(without[i], name) == 0;
        if (!left_out)
            put(writer, mapping, name,
                copy(writer, yaml_document_get_node(&writer->from, pair->value), key_of(keys, name)));
    }
    return mapping;
}

/* ---- what is ours ---- */

static int stage(struct writer *writer, const yaml_node_t *node, const struct schema_key *keys)
{
    int mapping =
        copy_but(writer, node, keys, (const char *const[]){"retry", "restart_max", "max_crashes", NULL});
    put(writer, mapping, "retry", retry(writer));
    put(writer, mapping, "restart_max", plain(writer, PAUSE_MAX));
    put(writer, mapping, "max_crashes", plain(writer, CRASHES_MAX));
    return mapping;
}

static int witness(struct writer *writer, size_t index)
{
    char path[CHAOS_PATH_BYTES];
    chaos_witness_path(writer->config->folder, index, path, sizeof path);
    int mapping = new_mapping(writer), program = new_sequence(writer);
    add(writer, program, scalar(writer, writer->config->program));
    add(writer, program, scalar(writer, CHAOS_WITNESS_ARGUMENT));
    add(writer, program, scalar(writer, path));
    put(writer, mapping, "name", scalar(writer, CHAOS_WITNESS_STAGE));
    put(writer, mapping, "exec", program);
    put(writer, mapping, "retry", retry(writer));
    put(writer, mapping, "restart_max", plain(writer, PAUSE_MAX));
    put(writer, mapping, "max_crashes", plain(writer, "0"));
    put(writer, mapping, "timeout", plain(writer, "0s"));
    return mapping;
}

static int source(struct writer *writer, const yaml_node_t *node, size_t index, const struct schema_key *keys)
{
    static const char *const pointers[] = {"event_type", "timestamp", "device"};
    char path[CHAOS_PATH_BYTES];
    chaos_feed_path(writer->config->folder, index, path, sizeof path);
    int mapping = new_mapping(writer), stages = new_sequence(writer);
    const char *type = text_of(writer, node, "type");
    const yaml_node_t *page = value_of(writer, node, "page"), *list = value_of(writer, node, "stages");
    put(writer, mapping, "id", scalar(writer, text_of(writer, node, "id")));
    put(writer, mapping, "type", plain(writer, "file"));
    put(writer, mapping, "path", scalar(writer, path));
    put(writer, mapping, "format", plain(writer, "json"));
    put(writer, mapping, "retry", retry(writer));
    if (page != NULL)
        put(writer, mapping, "page", copy(writer, page, NULL));
    for (size_t i = 0; i < sizeof pointers / sizeof pointers[0]; i++)
        if (value_of(writer, node, pointers[i]) != NULL &&
            (strcmp(type, "http") == 0 || strcmp(type, "file") == 0))
            put(writer, mapping, pointers[i], copy(writer, value_of(writer, node, pointers[i]), NULL));
    const struct schema_key *stage_keys = key_of(keys, "stages")->children;
    for (const yaml_node_item_t *item = list->data.sequence.items.start; item < list->data.sequence.items.top;
         item++)
        add(writer, stages, stage(writer, yaml_document_get_node(&writer->from, *item), stage_keys));
    add(writer, stages, witness(writer, index));
    put(writer, mapping, "stages", stages);
    return mapping;
}

static void whole(struct writer *writer)
{
    const yaml_node_t *root = yaml_document_get_root_node(&writer->from);
    const struct schema_key *keys = key_of(schema_top, "sources")->children;
    int mapping =
        copy_but(writer, root, schema_top,
                 (const char *const[]){"instance", "storage", "control", "control_mode", "sources", NULL});
    put(writer, mapping, "instance", scalar(writer, writer->config->instance));
    put(writer, mapping, "storage", scalar(writer, writer->config->storage));
    put(writer, mapping, "control", scalar(writer, writer->config->control));
    int list = new_sequence(writer);
    const yaml_node_t *sources = value_of(writer, root, "sources");
    size_t index = 0;
    for (const yaml_node_item_t *item = sources->data.sequence.items.start;
         item < sources->data.sequence.items.top; item++, index++) {
        const yaml_node_t *node = yaml_document_get_node(&writer->from, *item);
        if (writer->config->only_source == NULL ||
            strcmp(writer->config->only_source, text_of(writer, node, "id")) == 0)
            add(writer, list, source(writer, node, index, keys));
    }
    put(writer, mapping, "sources", list);
}

/* ---- files ---- */

static int load(const char *path, yaml_document_t *document, struct error *error)
{
    yaml_parser_t parser;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return error_set(error, EP_ESYSTEM, "%s: %s", path, strerror(errno));
    int good = yaml_parser_initialize(&parser);
    if (good) {
        yaml_parser_set_input_file(&parser, file);
        good = yaml_parser_load(&parser, document);
        yaml_parser_delete(&parser);
    }
    fclose(file);
    return good ? EP_OK : error_set(error, EP_ECONFIG, "%s has changed, and cannot be read any more", path);
}

/* Takes the document over. */
static int save(const char *path, yaml_document_t *document, struct error *error)
{
    yaml_emitter_t emitter;
    FILE *file = fopen(path, "wxe");
    bool good = file != NULL && yaml_emitter_initialize(&emitter);
    if (!good) {
        yaml_document_delete(document);
    } else {
        yaml_emitter_set_output_file(&emitter, file);
        yaml_emitter_set_unicode(&emitter, 1);
        yaml_emitter_set_width(&emitter, -1);
        good = yaml_emitter_dump(&emitter, document);
        yaml_emitter_delete(&emitter);
    }
    if (file != NULL && fclose(file) != 0)
        good = false;
    return good ? EP_OK : error_set(error, EP_ESYSTEM, "%s cannot be written: %s", path, strerror(errno));
}

void chaos_feed_path(const char *folder, size_t source, char *buffer, size_t size)
{
    snprintf(buffer, size, "%s/feed.%zu", folder, source);
}

void chaos_witness_path(const char *folder, size_t source, char *buffer, size_t size)
{
    snprintf(buffer, size, "%s/witness.%zu", folder, source);
}

static char *directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *parent = slash == NULL   ? strdup(".")
                   : slash == path ? strdup("/")
                                   : strndup(path, (size_t)(slash - path));
    char *whole = parent != NULL ? realpath(parent, NULL) : NULL;
    free(parent);
    return whole;
}

int chaos_config_write(const struct chaos_config *config, const char *path, struct error *error)
{
    struct writer writer = {.config = config, .directory = directory_of(config->user_path)};
    if (writer.directory == NULL)
        return error_set(error, EP_ESYSTEM, "%s: its directory cannot be found", config->user_path);
    int code = load(config->user_path, &writer.from, error);
    if (code == EP_OK) {
        if (yaml_document_initialize(&writer.to, NULL, NULL, NULL, 1, 1)) {
            whole(&writer);
            code = writer.failed ? error_set(error, EP_ENOMEM, "out of memory") : EP_OK;
            if (code == EP_OK)
                code = save(path, &writer.to, error);
            else
                yaml_document_delete(&writer.to);
        } else {
            code = error_set(error, EP_ENOMEM, "out of memory");
        }
        yaml_document_delete(&writer.from);
    }
    free(writer.directory);
    return code;
}
