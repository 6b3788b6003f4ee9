/* SPDX-License-Identifier: MIT */
/*
 * Reads each kind of value from a YAML node: numbers with bounds, durations, sizes, choices, paths,
 * times. yaml_list.c reads values of several texts, and secrets. Runs in the supervisor before it forks,
 * and in `eventpipe` commands.
 *
 * Invariants
 *  1. A value is stored only if all of it is right; otherwise the default stays and one problem is
 *     reported.
 *  2. Every "expected" is followed by what was found.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/base/log.h"
#include "src/base/suggest.h"
#include "src/config/yaml.h"

#define DURATION_FORM "a duration such as 500ms, 30s, 5m, 1h30m or 7d"

/* The destination of a key, with its type. */
#define DESTINATION(base, key, type) ((type *)(void *)((char *)(base) + (key)->offset))

/* In the supervisor or `eventpipe`: returns whether a value in the configuration file is YAML's null:
 * nothing, ~ or null without quotes. Most keys refuse it. */
bool config_yaml_value_is_null(const yaml_node_t *node)
{
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    for (size_t i = 0; i < sizeof nulls / sizeof nulls[0]; i++)
        if (strcmp((const char *)node->data.scalar.value, nulls[i]) == 0)
            return node->data.scalar.length == strlen(nulls[i]);
    return false;
}

/* In the supervisor or `eventpipe`: returns a description of a value of the configuration file for a
 * message: "a list", "nothing" or the text in quotes, cut and without control characters. It may use
 * `buffer`, which must live as long as the result. */
const char *config_yaml_value_describe(const yaml_node_t *node, char *buffer, size_t buffer_bytes)
{
    if (node->type == YAML_SEQUENCE_NODE)
        return "a list";
    if (node->type == YAML_MAPPING_NODE)
        return "keys with values";
    if (config_yaml_value_is_null(node))
        return "nothing";
    char clean_text[80];
    base_log_clean((const char *)node->data.scalar.value, clean_text, sizeof clean_text);
    snprintf(buffer, buffer_bytes, "\"%s%s\"", clean_text,
             strlen(clean_text) < node->data.scalar.length ? "..." : "");
    return buffer;
}

/* In the supervisor or `eventpipe`: returns the value of another key in the mapping of the configuration
 * file that is being read, or NULL if that key is not there. */
const yaml_node_t *config_yaml_value_find_sibling(struct reader *reader, const char *key)
{
    const yaml_node_pair_t *pair = reader->current_mapping->data.mapping.pairs.start;
    for (; pair < reader->current_mapping->data.mapping.pairs.top; pair++) {
        const yaml_node_t *pair_key = config_yaml_get_node(reader, pair->key);
        if (pair_key->type == YAML_SCALAR_NODE && strcmp((const char *)pair_key->data.scalar.value, key) == 0)
            return config_yaml_get_node(reader, pair->value);
    }
    return NULL;
}

/* In the supervisor or `eventpipe`: returns the text of a single value in the configuration file. Reports
 * "expected ..., found ..." and returns NULL if it is a list, a mapping or null, or contains a NUL. Every
 * function that reads a single value begins with it. */
const char *config_yaml_value_read_scalar(struct reader *reader, const yaml_node_t *node,
                                          const char *expected)
{
    char found_text[120];
    if (node->type != YAML_SCALAR_NODE || config_yaml_value_is_null(node)) {
        config_yaml_report_problem(reader, "expected %s, found %s", expected,
                                   config_yaml_value_describe(node, found_text, sizeof found_text));
        return NULL;
    }
    const char *text = (const char *)node->data.scalar.value;
    if (strlen(text) == node->data.scalar.length)
        return text;
    config_yaml_report_problem(reader, "expected %s, found a text with a NUL character in it", expected);
    return NULL;
}

/* In the supervisor or `eventpipe`: replaces the text at *destination, such as a default, by a copy of a
 * text from the configuration file. */
static void replace_by_copy(struct reader *reader, char **destination, const char *text)
{
    char *copy = strdup(text);
    if (copy == NULL) {
        reader->no_memory = true;
        return;
    }
    free(*destination);
    *destination = copy;
}

/* In the supervisor or `eventpipe`: reads a key of the configuration file whose value must be a text that
 * is not empty, such as a name, a URL or a filter. */
void config_yaml_value_read_text(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                                 void *base)
{
    const char *text = config_yaml_value_read_scalar(reader, node, "a text");
    if (text != NULL && text[0] == '\0')
        config_yaml_report_problem(reader, "expected a text, found \"\"; leave the key out if you mean none");
    else if (text != NULL)
        replace_by_copy(reader, DESTINATION(base, key, char *), text);
}

/* In the supervisor or `eventpipe`: reads a key of the configuration file whose value is a text that may be
 * empty: a JSON pointer, or the `cursor.initial` of an http source. */
void config_yaml_value_read_pointer(struct reader *reader, const struct schema_key *key,
                                    const yaml_node_t *node, void *base)
{
    const char *expected = strcmp(key->name, "initial") == 0
                               ? "a text (\"\" for an empty one)"
                               : "a JSON pointer such as /data/id (\"\" for the whole)";
    const char *text = config_yaml_value_read_scalar(reader, node, expected);
    if (text != NULL)
        replace_by_copy(reader, DESTINATION(base, key, char *), text);
}

/* In the supervisor or `eventpipe`: returns a path of the configuration file as an absolute path, which the
 * caller frees; NULL if out of memory. A relative path begins at the directory of the file, so that the
 * daemon may run in any directory. */
static char *make_path_absolute(struct reader *reader, const char *path)
{
    char *absolute_path = NULL;
    if (path[0] == '/')
        absolute_path = strdup(path);
    else if (asprintf(&absolute_path, "%s/%s", strcmp(reader->directory, "/") == 0 ? "" : reader->directory,
                      path) < 0)
        absolute_path = NULL;
    if (absolute_path == NULL)
        reader->no_memory = true;
    return absolute_path;
}

/* In the supervisor or `eventpipe`: reads a path in the configuration file and returns it as an absolute
 * path, which the caller frees; NULL after a problem. */
char *config_yaml_value_read_absolute_path(struct reader *reader, const yaml_node_t *node)
{
    const char *path = config_yaml_value_read_scalar(reader, node, "a path");
    if (path == NULL)
        return NULL;
    if (path[0] != '\0')
        return make_path_absolute(reader, path);
    config_yaml_report_problem(reader, "expected a path, found \"\"");
    return NULL;
}

/* In the supervisor or `eventpipe`: reads a key of the configuration file whose value is a path, such as a
 * file, a directory or the control socket, and keeps it as an absolute path. */
void config_yaml_value_read_path(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                                 void *base)
{
    char *path = config_yaml_value_read_absolute_path(reader, node);
    if (path == NULL)
        return;
    free(*DESTINATION(base, key, char *));
    *DESTINATION(base, key, char *) = path;
}

/* In the supervisor or `eventpipe`: reads the `storage` of the configuration file, which names the store:
 * "memory:", or "sqlite:" with a path that becomes absolute. Any other text is kept as it is, and
 * config_validate refuses it. */
void config_yaml_value_read_storage(struct reader *reader, const struct schema_key *key,
                                    const yaml_node_t *node, void *base)
{
    char **destination = DESTINATION(base, key, char *);
    const char *text = config_yaml_value_read_scalar(reader, node, "sqlite:/path/to/file.db or memory:");
    if (text == NULL)
        return;
    /* "memory:" alone is not valid YAML without quotes, so the forms without the colon at the end are taken
     * too */
    if (strcmp(text, "memory") == 0 || strcmp(text, ":memory") == 0 || strcmp(text, ":memory:") == 0) {
        replace_by_copy(reader, destination, "memory:");
    } else if (strncmp(text, "sqlite:", 7) == 0 && text[7] != '\0') {
        char *path = make_path_absolute(reader, text + 7), *new_storage = NULL;
        if (path == NULL || asprintf(&new_storage, "sqlite:%s", path) < 0)
            reader->no_memory = true;
        else
            *destination = new_storage;
        free(path);
    } else {
        replace_by_copy(reader, destination, text); /* config_validate checks it */
    }
}

/* In the supervisor or `eventpipe`: reads the `since` of a source in the configuration file, a time or
 * a duration back from now. A duration becomes a time here, so that it does not move while the daemon
 * runs. */
void config_yaml_value_read_since(struct reader *reader, const struct schema_key *key,
                                  const yaml_node_t *node, void *base)
{
    const char *expected = "a duration back from now such as 24h, or a time such as 2026-11-23T10:00:00Z";
    const char *text = config_yaml_value_read_scalar(reader, node, expected);
    char time_text[64], found_text[120];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (text == NULL)
        return;
    if (base_units_write_since(text, (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000, time_text,
                               sizeof time_text) == EP_OK)
        replace_by_copy(reader, DESTINATION(base, key, char *), time_text);
    else
        config_yaml_report_problem(reader, "expected %s, found %s%s", expected,
                                   config_yaml_value_describe(node, found_text, sizeof found_text),
                                   errno == ERANGE ? ", which is before 1970 or too long" : "");
}

/* ---- numbers ---- */

/* In the supervisor or `eventpipe`: reads a whole number of the configuration file, between key->min and
 * key->max of the schema, into *value. Reports a problem and returns false otherwise. */
static bool read_bounded_count(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                               uint64_t *value)
{
    char expected[80], found_text[120];
    snprintf(expected, sizeof expected, "a whole number from %" PRIu64 " to %" PRIu64, key->min, key->max);
    const char *text = config_yaml_value_read_scalar(reader, node, expected);
    if (text == NULL)
        return false;
    uint64_t number = 0;
    bool is_number = text[0] != '\0';
    for (const char *digit = text; is_number && *digit != '\0'; digit++)
        is_number = *digit >= '0' && *digit <= '9' && !__builtin_mul_overflow(number, 10u, &number) &&
                    !__builtin_add_overflow(number, (uint64_t)(*digit - '0'), &number);
    if (!is_number || number < key->min || number > key->max) {
        config_yaml_report_problem(reader, "expected %s, found %s", expected,
                                   config_yaml_value_describe(node, found_text, sizeof found_text));
        return false;
    }
    *value = number;
    return true;
}

/* In the supervisor or `eventpipe`: reads a key of the configuration file whose value is a whole number of
 * at most 32 bits, such as `concurrency`. */
void config_yaml_value_read_count(struct reader *reader, const struct schema_key *key,
                                  const yaml_node_t *node, void *base)
{
    uint64_t number;
    if (read_bounded_count(reader, key, node, &number))
        *DESTINATION(base, key, uint32_t) = (uint32_t)number;
}

/* In the supervisor or `eventpipe`: reads a key of the configuration file whose value is a whole number of
 * at most 64 bits, such as `backlog.max_events`. */
void config_yaml_value_read_count64(struct reader *reader, const struct schema_key *key,
                                    const yaml_node_t *node, void *base)
{
    uint64_t number;
    if (read_bounded_count(reader, key, node, &number))
        *DESTINATION(base, key, uint64_t) = number;
}

/* In the supervisor or `eventpipe`: reads a key of the configuration file whose value is a whole number
 * that may be negative: the `cursor.increment` of an http source. */
void config_yaml_value_read_integer(struct reader *reader, const struct schema_key *key,
                                    const yaml_node_t *node, void *base)
{
    const char *expected = "a whole number of at most 64 bits, such as 1 or -1";
    const char *text = config_yaml_value_read_scalar(reader, node, expected);
    char found_text[120];
    if (text == NULL)
        return;
    const char *digits = text + (text[0] == '-');
    errno = 0;
    int64_t number = strtoll(text, NULL, 10);
    if (digits[0] != '\0' && strspn(digits, "0123456789") == strlen(digits) && errno == 0)
        *DESTINATION(base, key, int64_t) = number;
    else
        config_yaml_report_problem(reader, "expected %s, found %s", expected,
                                   config_yaml_value_describe(node, found_text, sizeof found_text));
}

/* In the supervisor or `eventpipe`: reads the `rate` of a generate source (one that makes up events) in the
 * configuration file: digits with an optional decimal point. It does not use strtod, whose decimal point
 * depends on the locale. */
void config_yaml_value_read_rate(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                                 void *base)
{
    const char *expected = "events per second, such as 100 or 0.5, or 0 for no limit";
    const char *text = config_yaml_value_read_scalar(reader, node, expected);
    char found_text[120];
    if (text == NULL)
        return;
    size_t integer_digit_count = strspn(text, "0123456789");
    size_t point_count = text[integer_digit_count] == '.';
    size_t fraction_digit_count = point_count > 0 ? strspn(text + integer_digit_count + 1, "0123456789") : 0;
    double number = 0, digit_value = 1;
    for (size_t i = 0; i < integer_digit_count; i++)
        number = number * 10 + (text[i] - '0');
    for (size_t i = 0; i < fraction_digit_count; i++)
        number += (text[integer_digit_count + 1 + i] - '0') * (digit_value /= 10);
    if (integer_digit_count == 0 || (point_count > 0 && fraction_digit_count == 0) ||
        text[integer_digit_count + point_count + fraction_digit_count] != '\0' || number > (double)key->max)
        config_yaml_report_problem(reader, "expected %s; at most %" PRIu64 ", found %s", expected, key->max,
                                   config_yaml_value_describe(node, found_text, sizeof found_text));
    else
        *DESTINATION(base, key, double) = number;
}

/* In the supervisor or `eventpipe`: reads a key of the configuration file whose value is a duration such as
 * 30s, and keeps it in milliseconds. A number without a unit is refused, since it would be ambiguous. */
void config_yaml_value_read_duration(struct reader *reader, const struct schema_key *key,
                                     const yaml_node_t *node, void *base)
{
    const char *text = config_yaml_value_read_scalar(reader, node, DURATION_FORM);
    char found_text[120];
    uint64_t ms;
    if (text == NULL)
        return;
    if (base_units_read_duration(text, &ms) != EP_OK) {
        bool is_too_long = errno == ERANGE;
        bool has_no_unit = text[0] != '\0' && strspn(text, "0123456789") == strlen(text);
        config_yaml_report_problem(reader, "expected " DURATION_FORM ", found %s%s",
                                   config_yaml_value_describe(node, found_text, sizeof found_text),
                                   is_too_long   ? ", which is longer than 100 years"
                                   : has_no_unit ? ", a number without a unit"
                                                 : "");
    } else if (ms < key->min) {
        config_yaml_report_problem(reader, "expected a duration of at least %" PRIu64 "ms, found %s",
                                   key->min, config_yaml_value_describe(node, found_text, sizeof found_text));
    } else {
        *DESTINATION(base, key, uint64_t) = ms;
    }
}

/* In the supervisor or `eventpipe`: reads the `limits.cpu` of a stage in the configuration file, a duration
 * that must be whole seconds, since the kernel counts this limit in seconds. */
void config_yaml_value_read_seconds(struct reader *reader, const struct schema_key *key,
                                    const yaml_node_t *node, void *base)
{
    const uint64_t previous_ms = *DESTINATION(base, key, uint64_t);
    char found_text[120];
    config_yaml_value_read_duration(reader, key, node, base);
    if (*DESTINATION(base, key, uint64_t) % 1000 == 0)
        return;
    *DESTINATION(base, key, uint64_t) = previous_ms;
    config_yaml_report_problem(reader, "expected whole seconds such as 1s or 90s, found %s",
                               config_yaml_value_describe(node, found_text, sizeof found_text));
}

/* In the supervisor or `eventpipe`: reads a key of the configuration file whose value is a size such as
 * 64MiB, between key->min and key->max of the schema, and keeps it in bytes. */
void config_yaml_value_read_size(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                                 void *base)
{
    const char *expected = "a size in bytes such as 4096, 10k, 64KiB or 64MiB";
    const char *text = config_yaml_value_read_scalar(reader, node, expected);
    char found_text[120];
    uint64_t size_bytes = 0;
    if (text == NULL)
        return;
    int code = base_units_read_size(text, &size_bytes);
    bool is_out_of_range = code != EP_OK && errno == ERANGE;
    if (code != EP_OK && !is_out_of_range)
        config_yaml_report_problem(reader, "expected %s, found %s", expected,
                                   config_yaml_value_describe(node, found_text, sizeof found_text));
    else if (is_out_of_range || size_bytes < key->min || size_bytes > key->max)
        config_yaml_report_problem(reader, "expected a size from %" PRIu64 " to %" PRIu64 " bytes, found %s",
                                   key->min, key->max,
                                   config_yaml_value_describe(node, found_text, sizeof found_text));
    else
        *DESTINATION(base, key, uint64_t) = size_bytes;
}

/* In the supervisor or `eventpipe`: reads the `control_mode` of the configuration file: the permission bits
 * of the control socket in octal. */
void config_yaml_value_read_mode(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                                 void *base)
{
    const char *expected = "permission bits in octal such as 0600 or 0660";
    const char *text = config_yaml_value_read_scalar(reader, node, expected);
    char found_text[120];
    if (text == NULL)
        return;
    size_t digit_count = strlen(text);
    if (digit_count < 3 || digit_count > 4 || strspn(text, "01234567") != digit_count ||
        (digit_count == 4 && text[0] != '0'))
        config_yaml_report_problem(reader, "expected %s, found %s", expected,
                                   config_yaml_value_describe(node, found_text, sizeof found_text));
    else
        *DESTINATION(base, key, uint32_t) = (uint32_t)strtoul(text, NULL, 8);
}

/* ---- choices ---- */

/* In the supervisor or `eventpipe`: returns the index of a value of the configuration file among `choices`
 * (ended by NULL), or -1 after a problem that lists them and suggests the most similar one. */
static int read_choice(struct reader *reader, const yaml_node_t *node, const char *const *choices)
{
    char allowed_names[160] = "", found_text[120];
    for (size_t i = 0, used_bytes = 0; choices[i] != NULL && used_bytes < sizeof allowed_names; i++)
        used_bytes += (size_t)snprintf(allowed_names + used_bytes, sizeof allowed_names - used_bytes, "%s%s",
                                       i == 0                   ? ""
                                       : choices[i + 1] == NULL ? " or "
                                                                : ", ",
                                       choices[i]);
    const char *text = config_yaml_value_read_scalar(reader, node, allowed_names);
    if (text == NULL)
        return -1;
    for (int i = 0; choices[i] != NULL; i++)
        if (strcmp(choices[i], text) == 0)
            return i;
    const char *similar_name = base_suggest_find_nearest(text, choices);
    config_yaml_report_problem(reader, "expected %s, found %s%s%s%s", allowed_names,
                               config_yaml_value_describe(node, found_text, sizeof found_text),
                               similar_name != NULL ? "; did you mean " : "",
                               similar_name != NULL ? similar_name : "", similar_name != NULL ? "?" : "");
    return -1;
}

/* In the supervisor or `eventpipe`: reads a key of the configuration file that allows a few names, such as
 * a source's `type`, into an enum with its values in the order of key->choices. */
void config_yaml_value_read_choice(struct reader *reader, const struct schema_key *key,
                                   const yaml_node_t *node, void *base)
{
    int choice = read_choice(reader, node, key->choices);
    if (choice < 0)
        return;
    unsigned value =
        (unsigned)choice; /* gcc and clang give an enum without negative values the type unsigned */
    memcpy(DESTINATION(base, key, char), &value, sizeof value);
}

/* In the supervisor or `eventpipe`: reads the `log_level` of the configuration file: the least severe kind
 * of message that the daemon logs. */
void config_yaml_value_read_severity(struct reader *reader, const struct schema_key *key,
                                     const yaml_node_t *node, void *base)
{
    static const char *const names[] = {"error", "warning", "info", "debug", NULL};
    static const enum ep_severity severities[] = {EP_LOG_ERROR, EP_LOG_WARNING, EP_LOG_INFO, EP_LOG_DEBUG};
    int choice = read_choice(reader, node, names);
    if (choice >= 0)
        *DESTINATION(base, key, enum ep_severity) = severities[choice];
}
