/* SPDX-License-Identifier: MIT */
/*
 * Reads values of several texts (programs, headers, environments), and secrets. Runs in the supervisor
 * before it forks, and in `eventpipe` commands.
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

/* In the supervisor or `eventpipe`: makes room for `count` texts of a list in the configuration, and for the
 * NULL behind them. Returns false without memory, or if the list is filled already. */
static bool make_room_for_strings(struct reader *reader, struct strings *strings, size_t count)
{
    if (strings->at != NULL) /* the key was given twice, which is reported elsewhere */
        return false;
    strings->at = calloc(count + 1, sizeof *strings->at);
    if (strings->at == NULL)
        reader->no_memory = true;
    return strings->at != NULL;
}

/* In the supervisor or `eventpipe`: appends a text, made of up to three parts such as NAME, "=" and a value,
 * to a list in the configuration. */
static void append_string(struct reader *reader, struct strings *strings, const char *first,
                          const char *between, const char *second)
{
    char *text = NULL;
    if (asprintf(&text, "%s%s%s", first, between, second) < 0)
        reader->no_memory = true;
    else
        strings->at[strings->count++] = text;
}

/* In the supervisor or `eventpipe`: reads each text of a list in the configuration file. A problem says only
 * that an element is not a text, and does not quote it, since it may be a secret. */
static void read_text_list(struct reader *reader, const yaml_node_t *node, struct strings *strings)
{
    size_t length = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    unsigned line = reader->line;
    if (length > SCHEMA_PAIRS_MAX) {
        config_yaml_report_problem(reader, "expected at most %d texts in the list, found %zu",
                                   SCHEMA_PAIRS_MAX, length);
        return;
    }
    if (!make_room_for_strings(reader, strings, length))
        return;
    for (size_t i = 0; i < length; i++) {
        const yaml_node_t *item = config_yaml_get_node(reader, node->data.sequence.items.start[i]);
        if (!config_yaml_charge_visit(reader, item))
            return;
        char name[24];
        snprintf(name, sizeof name, "[%zu]", i);
        size_t outer = config_yaml_enter_marked_key(reader, name, config_yaml_get_line(item));
        const char *text =
            config_yaml_value_read_scalar(reader, item,
                                          "a text (write an empty text or the word null in quotes)");
        if (text != NULL)
            append_string(reader, strings, text, "", "");
        config_yaml_leave_key(reader, outer);
    }
    reader->line = line;
}

/* In the supervisor or `eventpipe`: returns whether a list of "NAME=value" or "Name: value" texts has this
 * name; `after` is the character behind it. Finds repeated names in the configuration file. */
static bool strings_contain_name(const struct strings *strings, const char *name, char after)
{
    size_t length = strlen(name);
    for (char *const *at = strings->at; *at != NULL; at++)
        if (strncmp(*at, name, length) == 0 && (*at)[length] == after)
            return true;
    return false;
}

/* In the supervisor or `eventpipe`: reads each "name: value" of a mapping in the configuration file as one
 * text, with `between` between the two. For HTTP headers and the environment of an exec stage. */
static void read_name_value_pairs(struct reader *reader, const yaml_node_t *node, const char *between,
                                  const char *forbidden, struct strings *strings)
{
    const yaml_node_pair_t *start = node->data.mapping.pairs.start, *top = node->data.mapping.pairs.top;
    unsigned line = reader->line;
    if (top - start > SCHEMA_PAIRS_MAX) {
        config_yaml_report_problem(reader, "expected at most %d names, found %zu", SCHEMA_PAIRS_MAX,
                                   (size_t)(top - start));
        return;
    }
    if (!make_room_for_strings(reader, strings, (size_t)(top - start)))
        return;
    for (const yaml_node_pair_t *pair = start; pair < top; pair++) {
        const yaml_node_t *key = config_yaml_get_node(reader, pair->key),
                          *value = config_yaml_get_node(reader, pair->value);
        if (!config_yaml_charge_visit(reader, key) || !config_yaml_charge_visit(reader, value))
            return;
        const char *name = config_yaml_value_read_scalar(reader, key, "a name");
        if (name == NULL)
            continue;
        size_t outer = config_yaml_enter_key(reader, name, config_yaml_get_line(key));
        size_t length = strlen(name);
        bool repeated = strings_contain_name(strings, name, between[0]);
        const char *text = config_yaml_value_read_scalar(reader, value, "a text (\"\" for an empty one)");
        if (repeated)
            config_yaml_report_problem(reader, "given twice, expected once");
        else if (length == 0 || strpbrk(name, forbidden) != NULL)
            config_yaml_report_problem(reader, "expected a name without any of \"%s\"", forbidden);
        else if (text != NULL)
            append_string(reader, strings, name, between, text);
        config_yaml_leave_key(reader, outer);
    }
    reader->line = line;
}

/* In the supervisor or `eventpipe`: reads the `exec` key of a stage in the configuration file: the program
 * and its arguments as a list. One text is refused, since no shell would split it. */
void config_yaml_list_read_program(struct reader *reader, const struct schema_key *key,
                                   const yaml_node_t *node, void *base)
{
    char found[120];
    if (node->type == YAML_SEQUENCE_NODE)
        read_text_list(reader, node, DESTINATION(struct strings));
    else if (node->type == YAML_SCALAR_NODE && !config_yaml_value_is_null(node))
        config_yaml_report_problem(
            reader,
            "expected a list: the program and each of its arguments, such as [python3, /opt/enrich.py], "
            "found one text, %s; if it is a shell command, write [\"sh\", \"-c\", \"...\"]",
            config_yaml_value_describe(node, found, sizeof found));
    else
        config_yaml_report_problem(reader, "expected a list such as [python3, /opt/enrich.py], found %s",
                                   config_yaml_value_describe(node, found, sizeof found));
}

/* In the supervisor or `eventpipe`: reads a key of the configuration file whose value is a list of texts,
 * such as the `groups` of an Idefix source. */
void config_yaml_list_read_texts(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                                 void *base)
{
    char found[120];
    if (node->type == YAML_SEQUENCE_NODE)
        read_text_list(reader, node, DESTINATION(struct strings));
    else
        config_yaml_report_problem(reader, "expected a list of texts such as [one, two], found %s",
                                   config_yaml_value_describe(node, found, sizeof found));
}

/* In the supervisor or `eventpipe`: reads the `headers` of an http source or stage in the configuration
 * file, as a mapping or as a list. */
void config_yaml_list_read_headers(struct reader *reader, const struct schema_key *key,
                                   const yaml_node_t *node, void *base)
{
    struct strings *headers = DESTINATION(struct strings);
    if (node->type == YAML_SEQUENCE_NODE)
        read_text_list(reader, node, headers);
    else if (node->type == YAML_MAPPING_NODE)
        read_name_value_pairs(reader, node, ": ", ": ", headers);
    else
        config_yaml_report_problem(
            reader, "expected `Name: value` lines below, or a list of \"Name: value\" texts, found %s",
            config_yaml_value_is_null(node) ? "nothing" : "one text");
}

/* In the supervisor or `eventpipe`: reads the `environment` of an exec stage in the configuration file:
 * variables that its program gets. */
void config_yaml_list_read_environment(struct reader *reader, const struct schema_key *key,
                                       const yaml_node_t *node, void *base)
{
    if (node->type == YAML_MAPPING_NODE)
        read_name_value_pairs(reader, node, "=", "= ", DESTINATION(struct strings));
    else
        config_yaml_report_problem(reader, "expected `NAME: value` lines below, found %s",
                                   node->type == YAML_SEQUENCE_NODE  ? "a list"
                                   : config_yaml_value_is_null(node) ? "nothing"
                                                                     : "one text");
}

/* ---- secrets ---- */

/* In the supervisor or `eventpipe`: reads a secret that stands in the configuration file itself (the
 * `password` of an Idefix source). No message quotes it. */
void config_yaml_list_read_secret(struct reader *reader, const struct schema_key *key,
                                  const yaml_node_t *node, void *base)
{
    char **secret = DESTINATION(char *);
    if (node->type != YAML_SCALAR_NODE || config_yaml_value_is_null(node) ||
        strlen((const char *)node->data.scalar.value) != node->data.scalar.length) {
        config_yaml_report_problem(
            reader, "expected a text (\"\" for an empty one) without a NUL character, found %s",
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

/* Configuration, in the supervisor or `eventpipe`: reads the `token_file` of a source or stage: opens the
 * named file and keeps the token that is in it. */
void config_yaml_list_read_token_file(struct reader *reader, const struct schema_key *key,
                                      const yaml_node_t *node, void *base)
{
    struct error error;
    char **token = DESTINATION(char *);
    char *path = config_yaml_value_read_absolute_path(reader, node);
    if (path == NULL)
        return;
    if (*token == NULL && base_secret_read(path, token, &error) != EP_OK)
        config_yaml_report_problem(reader, "%s", error.message);
    free(path);
}

/* Whether the text looks like the name of an environment variable and not like a secret in the wrong key of
 * the configuration file. */
static bool is_variable_name(const char *text)
{
    size_t length = strlen(text);
    return length > 0 && length <= 64 && !(text[0] >= '0' && text[0] <= '9') &&
           strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == length;
}

/* Configuration, in the supervisor or `eventpipe`: notes an environment variable that held a token. The
 * supervisor removes these variables before it forks, so that no stage's program sees the token. */
static void note_token_variable(struct reader *reader, const char *name)
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

/* In the supervisor or `eventpipe`: keeps the rules of the configuration from also reporting token_file as
 * missing, after a problem with token_env. */
static void suppress_missing_token(struct reader *reader)
{
    char path[sizeof reader->path + 16];
    const char *dot = strrchr(reader->path, '.');
    int bytes = dot != NULL ? (int)(dot + 1 - reader->path) : 0;
    snprintf(path, sizeof path, "%.*stoken_file", bytes, reader->path);
    config_yaml_note_meant_key(reader, path);
}

/* In the supervisor or `eventpipe`: reads the `token_env` of a source or stage in the configuration file:
 * keeps the token that the named environment variable holds. The message does not show a name that may be
 * the token itself. */
void config_yaml_list_read_token_env(struct reader *reader, const struct schema_key *key,
                                     const yaml_node_t *node, void *base)
{
    const char *what = "the name of an environment variable that holds the token";
    size_t problems = reader->problem_count;
    const char *name = node->type == YAML_SCALAR_NODE && !config_yaml_value_is_null(node)
                           ? (const char *)node->data.scalar.value
                           : NULL;
    const char *value = name != NULL && strlen(name) == node->data.scalar.length ? getenv(name) : NULL;
    char **token = DESTINATION(char *);
    if (name == NULL)
        config_yaml_value_read_scalar(reader, node, what);
    else if (config_yaml_value_find_sibling(reader, "token_file") != NULL)
        config_yaml_report_problem(reader, "expected one of token_file and token_env, found both");
    else if (value == NULL || value[0] == '\0')
        config_yaml_report_problem(reader, "expected %s; %s is %s", what,
                                   is_variable_name(name)
                                       ? name
                                       : "the one named here (not shown, because it may be the token itself)",
                                   value == NULL ? "not set" : "empty");
    else if (strpbrk(value, "\r\n") != NULL)
        config_yaml_report_problem(reader,
                                   "expected a token of one line, found a line break in the variable");
    else if (*token == NULL && (*token = strdup(value)) == NULL)
        reader->no_memory = true;
    else
        note_token_variable(reader, name);
    if (reader->problem_count > problems)
        suppress_missing_token(reader);
}
