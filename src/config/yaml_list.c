/* SPDX-License-Identifier: MIT */
/*
 * Reads values of several texts (programs, headers, environments), and secrets. Runs in the supervisor
 * before the first fork.
 *
 * Invariants
 *  1. Possible secrets (header values, environment values, tokens) are never quoted in a problem.
 *  2. A struct strings is either complete, with a NULL at its end, or empty.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/secret.h"
#include "src/config/yaml.h"

#define DESTINATION(type) ((type *)(void *)((char *)base + key->offset))

/* Makes room for count texts and the NULL behind them. */
static bool strings_room(struct reader *reader, struct strings *strings, size_t count)
{
    if (strings->at != NULL) /* the key was given twice, which is reported elsewhere */
        return false;
    strings->at = calloc(count + 1, sizeof *strings->at);
    if (strings->at == NULL)
        reader->no_memory = true;
    return strings->at != NULL;
}

static void strings_add(struct reader *reader, struct strings *strings, const char *first,
                        const char *between, const char *second)
{
    char *text = NULL;
    if (asprintf(&text, "%s%s%s", first, between, second) < 0)
        reader->no_memory = true;
    else
        strings->at[strings->count++] = text;
}

/* Reads each text of a list. A problem says only that an element is not a text, and does not quote it. */
static void read_texts(struct reader *reader, const yaml_node_t *node, struct strings *strings)
{
    size_t length = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    unsigned line = reader->line;
    if (length > SCHEMA_PAIRS_MAX) {
        config_yaml_problem(reader, "expected at most %d texts in the list, found %zu", SCHEMA_PAIRS_MAX,
                            length);
        return;
    }
    if (!strings_room(reader, strings, length))
        return;
    for (size_t i = 0; i < length; i++) {
        const yaml_node_t *item = config_yaml_node(reader, node->data.sequence.items.start[i]);
        if (!config_yaml_visit(reader, item))
            return;
        char name[24];
        snprintf(name, sizeof name, "[%zu]", i);
        size_t outer = config_yaml_enter_marked(reader, name, config_yaml_line(item));
        const char *text =
            config_yaml_value_scalar(reader, item, "a text (in quotes if it is to be \"\" or null)");
        if (text != NULL)
            strings_add(reader, strings, text, "", "");
        config_yaml_leave(reader, outer);
    }
    reader->line = line;
}

static bool strings_have(const struct strings *strings, const char *name, char after)
{
    size_t length = strlen(name);
    for (char *const *at = strings->at; *at != NULL; at++)
        if (strncmp(*at, name, length) == 0 && (*at)[length] == after)
            return true;
    return false;
}

/* Reads each "name: value" of a mapping as one text. */
static void read_pairs(struct reader *reader, const yaml_node_t *node, const char *between,
                       const char *forbidden, struct strings *strings)
{
    const yaml_node_pair_t *start = node->data.mapping.pairs.start, *top = node->data.mapping.pairs.top;
    unsigned line = reader->line;
    if (top - start > SCHEMA_PAIRS_MAX) {
        config_yaml_problem(reader, "expected at most %d names, found %zu", SCHEMA_PAIRS_MAX,
                            (size_t)(top - start));
        return;
    }
    if (!strings_room(reader, strings, (size_t)(top - start)))
        return;
    for (const yaml_node_pair_t *pair = start; pair < top; pair++) {
        const yaml_node_t *key = config_yaml_node(reader, pair->key),
                          *value = config_yaml_node(reader, pair->value);
        if (!config_yaml_visit(reader, key) || !config_yaml_visit(reader, value))
            return;
        const char *name = config_yaml_value_scalar(reader, key, "a name");
        if (name == NULL)
            continue;
        size_t outer = config_yaml_enter(reader, name, config_yaml_line(key));
        size_t length = strlen(name);
        bool repeated = strings_have(strings, name, between[0]);
        const char *text = config_yaml_value_scalar(reader, value, "a text (\"\" for an empty one)");
        if (repeated)
            config_yaml_problem(reader, "given twice, expected once");
        else if (length == 0 || strpbrk(name, forbidden) != NULL)
            config_yaml_problem(reader, "expected a name without any of \"%s\"", forbidden);
        else if (text != NULL)
            strings_add(reader, strings, name, between, text);
        config_yaml_leave(reader, outer);
    }
    reader->line = line;
}

void config_yaml_list_program(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                              void *base)
{
    char found[120];
    if (node->type == YAML_SEQUENCE_NODE)
        read_texts(reader, node, DESTINATION(struct strings));
    else if (node->type == YAML_SCALAR_NODE && !config_yaml_value_is_null(node))
        config_yaml_problem(
            reader,
            "expected a list: the program and each of its arguments, such as [python3, /opt/enrich.py], "
            "found one text, %s; if it is a shell command, write [\"sh\", \"-c\", \"...\"]",
            config_yaml_value_found(node, found, sizeof found));
    else
        config_yaml_problem(reader, "expected a list such as [python3, /opt/enrich.py], found %s",
                            config_yaml_value_found(node, found, sizeof found));
}

void config_yaml_list_texts(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                            void *base)
{
    char found[120];
    if (node->type == YAML_SEQUENCE_NODE)
        read_texts(reader, node, DESTINATION(struct strings));
    else
        config_yaml_problem(reader, "expected a list of texts such as [one, two], found %s",
                            config_yaml_value_found(node, found, sizeof found));
}

void config_yaml_list_headers(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                              void *base)
{
    struct strings *headers = DESTINATION(struct strings);
    if (node->type == YAML_SEQUENCE_NODE)
        read_texts(reader, node, headers);
    else if (node->type == YAML_MAPPING_NODE)
        read_pairs(reader, node, ": ", ": ", headers);
    else
        config_yaml_problem(
            reader, "expected `Name: value` lines below, or a list of \"Name: value\" texts, found %s",
            config_yaml_value_is_null(node) ? "nothing" : "one text");
}

void config_yaml_list_environment(struct reader *reader, const struct schema_key *key,
                                  const yaml_node_t *node, void *base)
{
    if (node->type == YAML_MAPPING_NODE)
        read_pairs(reader, node, "=", "= ", DESTINATION(struct strings));
    else
        config_yaml_problem(reader, "expected `NAME: value` lines below, found %s",
                            node->type == YAML_SEQUENCE_NODE  ? "a list"
                            : config_yaml_value_is_null(node) ? "nothing"
                                                              : "one text");
}

/* ---- secrets ---- */

void config_yaml_secret(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                        void *base)
{
    char **secret = DESTINATION(char *);
    if (node->type != YAML_SCALAR_NODE || config_yaml_value_is_null(node) ||
        strlen((const char *)node->data.scalar.value) != node->data.scalar.length) {
        config_yaml_problem(reader,
                            "expected a text (\"\" for an empty one) without a NUL character, found %s",
                            node->type != YAML_SCALAR_NODE    ? "keys or a list"
                            : config_yaml_value_is_null(node) ? "nothing"
                                                              : "one with a NUL");
        return;
    }
    char *copy = strdup((const char *)node->data.scalar.value);
    if (copy == NULL)
        reader->no_memory = true;
    free(*secret);
    *secret = copy;
}

void config_yaml_token_file(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                            void *base)
{
    struct error error;
    char **token = DESTINATION(char *);
    char *path = config_yaml_value_absolute(reader, node);
    if (path == NULL)
        return;
    if (*token == NULL && base_secret_read(path, token, &error) != EP_OK)
        config_yaml_problem(reader, "%s", error.message);
    free(path);
}

/* Whether it looks like the name of a variable and not like a secret in the wrong key. */
static bool is_variable_name(const char *text)
{
    size_t length = strlen(text);
    return length > 0 && length <= 64 && !(text[0] >= '0' && text[0] <= '9') &&
           strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == length;
}

static void note_variable(struct reader *reader, const char *name)
{
    struct strings *variables = &reader->variables;
    char **grown = reallocarray(variables->at, variables->count + 2, sizeof *grown);
    if (grown != NULL)
        variables->at = grown;
    char *copy = grown != NULL ? strdup(name) : NULL;
    if (copy == NULL) {
        reader->no_memory = true;
        return;
    }
    grown[variables->count++] = copy;
    grown[variables->count] = NULL;
}

/* Keeps the rules from also reporting token_file as missing, after a problem with a token. */
static void token_is_meant(struct reader *reader)
{
    char path[sizeof reader->path + 16];
    const char *dot = strrchr(reader->path, '.');
    int bytes = dot != NULL ? (int)(dot + 1 - reader->path) : 0;
    snprintf(path, sizeof path, "%.*stoken_file", bytes, reader->path);
    config_yaml_meant(reader, path);
}

void config_yaml_token_env(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                           void *base)
{
    const char *what = "the name of an environment variable that holds the token";
    size_t problems = reader->problem_count;
    const char *name = node->type == YAML_SCALAR_NODE && !config_yaml_value_is_null(node)
                           ? (const char *)node->data.scalar.value
                           : NULL;
    const char *value = name != NULL && strlen(name) == node->data.scalar.length ? getenv(name) : NULL;
    char **token = DESTINATION(char *);
    if (name == NULL)
        config_yaml_value_scalar(reader, node, what);
    else if (config_yaml_value_beside(reader, "token_file") != NULL)
        config_yaml_problem(reader, "expected one of token_file and token_env, found both");
    else if (value == NULL || value[0] == '\0')
        config_yaml_problem(reader, "expected %s; %s is %s", what,
                            is_variable_name(name)
                                ? name
                                : "the one named here (not shown, lest it be the token itself)",
                            value == NULL ? "not set" : "empty");
    else if (strpbrk(value, "\r\n") != NULL)
        config_yaml_problem(reader, "expected a token of one line, found a line break in the variable");
    else if (*token == NULL && (*token = strdup(value)) == NULL)
        reader->no_memory = true;
    else
        note_variable(reader, name);
    if (reader->problem_count > problems)
        token_is_meant(reader);
}
