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

#define DESTINATION(base, key, type) ((type *)(void *)((char *)(base) + (key)->offset))

/* In the supervisor or `eventpipe`: allocates space for `count` texts of a list in the configuration and
 * for the NULL after them. Returns false if out of memory, or if the list has texts already. */
static bool allocate_strings(struct reader *reader, struct strings *strings, size_t count)
{
    if (strings->at != NULL) /* the key was given twice, which is reported elsewhere */
        return false;
    strings->at = calloc(count + 1, sizeof *strings->at);
    if (strings->at == NULL)
        reader->no_memory = true;
    return strings->at != NULL;
}

/* In the supervisor or `eventpipe`: appends a text made of up to three parts, such as NAME, "=" and a
 * value, to a list in the configuration. allocate_strings has made room for it. */
static void append_string(struct reader *reader, struct strings *strings, const char *prefix,
                          const char *separator, const char *suffix)
{
    char *text = NULL;
    if (asprintf(&text, "%s%s%s", prefix, separator, suffix) < 0)
        reader->no_memory = true;
    else
        strings->at[strings->count++] = text;
}

/* In the supervisor or `eventpipe`: reads each text of a list in the configuration file. A problem says
 * only that an element is not a text and does not quote it, since it may be a secret. */
static void read_text_list(struct reader *reader, const yaml_node_t *node, struct strings *strings)
{
    size_t text_count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    unsigned outer_line = reader->line;
    if (text_count > SCHEMA_PAIRS_MAX) {
        config_yaml_report_problem(reader, "expected at most %d texts in the list, found %zu",
                                   SCHEMA_PAIRS_MAX, text_count);
        return;
    }
    if (!allocate_strings(reader, strings, text_count))
        return;
    for (size_t i = 0; i < text_count; i++) {
        const yaml_node_t *item = config_yaml_get_node(reader, node->data.sequence.items.start[i]);
        if (!config_yaml_charge_visit(reader, item))
            return;
        char index_text[24];
        snprintf(index_text, sizeof index_text, "[%zu]", i);
        size_t outer_length = config_yaml_enter_marked_key(reader, index_text, config_yaml_get_line(item));
        const char *text =
            config_yaml_value_read_scalar(reader, item,
                                          "a text (write an empty text or the word null in quotes)");
        if (text != NULL)
            append_string(reader, strings, text, "", "");
        config_yaml_leave_key(reader, outer_length);
    }
    reader->line = outer_line;
}

/* In the supervisor or `eventpipe`: returns whether a list of "NAME=value" or "Name: value" texts contains
 * this name; `separator` is the character after the name. A name that is repeated in the configuration file
 * is found with it. */
static bool strings_contain_name(const struct strings *strings, const char *name, char separator)
{
    size_t name_bytes = strlen(name);
    for (char *const *candidate = strings->at; *candidate != NULL; candidate++)
        if (strncmp(*candidate, name, name_bytes) == 0 && (*candidate)[name_bytes] == separator)
            return true;
    return false;
}

/* In the supervisor or `eventpipe`: reads each name and value of a mapping in the configuration file as one
 * text with `separator` between the two, such as NAME=value. HTTP headers and the environment of an exec
 * stage are kept in this form. */
static void read_name_value_pairs(struct reader *reader, const yaml_node_t *node, const char *separator,
                                  const char *forbidden_chars, struct strings *strings)
{
    const yaml_node_pair_t *start = node->data.mapping.pairs.start, *top = node->data.mapping.pairs.top;
    unsigned outer_line = reader->line;
    if (top - start > SCHEMA_PAIRS_MAX) {
        config_yaml_report_problem(reader, "expected at most %d names, found %zu", SCHEMA_PAIRS_MAX,
                                   (size_t)(top - start));
        return;
    }
    if (!allocate_strings(reader, strings, (size_t)(top - start)))
        return;
    for (const yaml_node_pair_t *pair = start; pair < top; pair++) {
        const yaml_node_t *key = config_yaml_get_node(reader, pair->key),
                          *value = config_yaml_get_node(reader, pair->value);
        if (!config_yaml_charge_visit(reader, key) || !config_yaml_charge_visit(reader, value))
            return;
        const char *name = config_yaml_value_read_scalar(reader, key, "a name");
        if (name == NULL)
            continue;
        size_t outer_length = config_yaml_enter_key(reader, name, config_yaml_get_line(key));
        size_t name_bytes = strlen(name);
        bool is_repeated = strings_contain_name(strings, name, separator[0]);
        const char *text = config_yaml_value_read_scalar(reader, value, "a text (\"\" for an empty one)");
        if (is_repeated)
            config_yaml_report_problem(reader, "given twice, expected once");
        else if (name_bytes == 0 || strpbrk(name, forbidden_chars) != NULL)
            config_yaml_report_problem(reader, "expected a name without any of \"%s\"", forbidden_chars);
        else if (text != NULL)
            append_string(reader, strings, name, separator, text);
        config_yaml_leave_key(reader, outer_length);
    }
    reader->line = outer_line;
}

/* In the supervisor or `eventpipe`: reads the `exec` key of a stage in the configuration file, the program
 * and its arguments. It must be a list; one text is refused, since no shell would split it. */
void config_yaml_list_read_program(struct reader *reader, const struct schema_key *key,
                                   const yaml_node_t *node, void *base)
{
    char found_text[120];
    if (node->type == YAML_SEQUENCE_NODE)
        read_text_list(reader, node, DESTINATION(base, key, struct strings));
    else if (node->type == YAML_SCALAR_NODE && !config_yaml_value_is_null(node))
        config_yaml_report_problem(
            reader,
            "expected a list: the program and each of its arguments, such as [python3, /opt/enrich.py], "
            "found one text, %s; if it is a shell command, write [\"sh\", \"-c\", \"...\"]",
            config_yaml_value_describe(node, found_text, sizeof found_text));
    else
        config_yaml_report_problem(reader, "expected a list such as [python3, /opt/enrich.py], found %s",
                                   config_yaml_value_describe(node, found_text, sizeof found_text));
}

/* In the supervisor or `eventpipe`: reads a key of the configuration file whose value is a list of texts,
 * such as the `groups` of an Idefix source. */
void config_yaml_list_read_texts(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                                 void *base)
{
    char found_text[120];
    if (node->type == YAML_SEQUENCE_NODE)
        read_text_list(reader, node, DESTINATION(base, key, struct strings));
    else
        config_yaml_report_problem(reader, "expected a list of texts such as [one, two], found %s",
                                   config_yaml_value_describe(node, found_text, sizeof found_text));
}

/* In the supervisor or `eventpipe`: reads the `headers` of an http source or stage in the configuration
 * file: a mapping, or a list of "Name: value" texts. */
void config_yaml_list_read_headers(struct reader *reader, const struct schema_key *key,
                                   const yaml_node_t *node, void *base)
{
    struct strings *headers = DESTINATION(base, key, struct strings);
    if (node->type == YAML_SEQUENCE_NODE)
        read_text_list(reader, node, headers);
    else if (node->type == YAML_MAPPING_NODE)
        read_name_value_pairs(reader, node, ": ", ": ", headers);
    else
        config_yaml_report_problem(
            reader, "expected `Name: value` lines below, or a list of \"Name: value\" texts, found %s",
            config_yaml_value_is_null(node) ? "nothing" : "one text");
}

/* In the supervisor or `eventpipe`: reads the `environment` of an exec stage in the configuration file: a
 * mapping of the variables that its program gets to their values. */
void config_yaml_list_read_environment(struct reader *reader, const struct schema_key *key,
                                       const yaml_node_t *node, void *base)
{
    if (node->type == YAML_MAPPING_NODE)
        read_name_value_pairs(reader, node, "=", "= ", DESTINATION(base, key, struct strings));
    else
        config_yaml_report_problem(reader, "expected `NAME: value` lines below, found %s",
                                   node->type == YAML_SEQUENCE_NODE  ? "a list"
                                   : config_yaml_value_is_null(node) ? "nothing"
                                                                     : "one text");
}

/* ---- secrets ---- */

/* In the supervisor or `eventpipe`: reads a secret that is written in the configuration file itself, the
 * `password` of an Idefix source. No message quotes it. */
void config_yaml_list_read_secret(struct reader *reader, const struct schema_key *key,
                                  const yaml_node_t *node, void *base)
{
    char **secret = DESTINATION(base, key, char *);
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

/* In the supervisor or `eventpipe`: reads the `token_file` of a source or stage in the configuration file:
 * opens the file that it names and keeps the token in that file. */
void config_yaml_list_read_token_file(struct reader *reader, const struct schema_key *key,
                                      const yaml_node_t *node, void *base)
{
    struct error error;
    char **token = DESTINATION(base, key, char *);
    char *path = config_yaml_value_read_absolute_path(reader, node);
    if (path == NULL)
        return;
    if (*token == NULL && base_secret_read(path, token, &error) != EP_OK)
        config_yaml_report_problem(reader, "%s", error.message);
    free(path);
}

/* In the supervisor or `eventpipe`: returns whether a text of the configuration file looks like the name of
 * an environment variable, and not like a secret in the wrong key. Only then may a message quote it. */
static bool looks_like_variable_name(const char *text)
{
    size_t text_bytes = strlen(text);
    return text_bytes > 0 && text_bytes <= 64 && !(text[0] >= '0' && text[0] <= '9') &&
           strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == text_bytes;
}

/* Remembers the name of an environment variable that held a token. The supervisor removes these variables
 * before it forks, so that no stage's program sees the token. */
static void note_token_variable(struct reader *reader, const char *name)
{
    struct strings *token_variables = &reader->token_variables;
    char **larger_array = reallocarray(token_variables->at, token_variables->count + 2, sizeof *larger_array);
    if (larger_array != NULL)
        token_variables->at = larger_array;
    char *name_copy = larger_array != NULL ? strdup(name) : NULL;
    if (name_copy == NULL) {
        reader->no_memory = true;
        return;
    }
    larger_array[token_variables->count++] = name_copy;
    larger_array[token_variables->count] = NULL;
}

/* In the supervisor or `eventpipe`: keeps config_validate from reporting `token_file` as missing when a
 * problem with `token_env` is reported already. */
static void suppress_missing_token(struct reader *reader)
{
    char token_file_key[sizeof reader->key_path + 16];
    const char *last_dot = strrchr(reader->key_path, '.');
    int parent_bytes = last_dot != NULL ? (int)(last_dot + 1 - reader->key_path) : 0;
    snprintf(token_file_key, sizeof token_file_key, "%.*stoken_file", parent_bytes, reader->key_path);
    config_yaml_note_meant_key(reader, token_file_key);
}

/* In the supervisor or `eventpipe`: reads the `token_env` of a source or stage in the configuration file,
 * the name of an environment variable, and keeps the token in that variable. A message shows the name only
 * if it cannot be the token itself. */
void config_yaml_list_read_token_env(struct reader *reader, const struct schema_key *key,
                                     const yaml_node_t *node, void *base)
{
    const char *expected = "the name of an environment variable that holds the token";
    size_t problems_before = reader->problem_count;
    const char *name = node->type == YAML_SCALAR_NODE && !config_yaml_value_is_null(node)
                           ? (const char *)node->data.scalar.value
                           : NULL;
    const char *value = name != NULL && strlen(name) == node->data.scalar.length ? getenv(name) : NULL;
    char **token = DESTINATION(base, key, char *);
    if (name == NULL)
        config_yaml_value_read_scalar(reader, node, expected);
    else if (config_yaml_value_find_sibling(reader, "token_file") != NULL)
        config_yaml_report_problem(reader, "expected one of token_file and token_env, found both");
    else if (value == NULL || value[0] == '\0')
        config_yaml_report_problem(reader, "expected %s; %s is %s", expected,
                                   looks_like_variable_name(name)
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
    if (reader->problem_count > problems_before)
        suppress_missing_token(reader);
}
