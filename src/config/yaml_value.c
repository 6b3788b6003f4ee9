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
#define DESTINATION(type) ((type *)(void *)((char *)base + key->offset))

/* In the supervisor or `eventpipe`: returns whether a value in the configuration file is YAML's null:
 * nothing, ~ or null without quotes. */
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

/* In the supervisor or `eventpipe`: describes a value of the configuration file for a message: "a list",
 * "nothing", "\"quick\"", cut and without control characters. */
const char *config_yaml_value_describe(const yaml_node_t *node, char *buffer, size_t size)
{
    if (node->type == YAML_SEQUENCE_NODE)
        return "a list";
    if (node->type == YAML_MAPPING_NODE)
        return "keys with values";
    if (config_yaml_value_is_null(node))
        return "nothing";
    char clean[80];
    base_log_clean((const char *)node->data.scalar.value, clean, sizeof clean);
    snprintf(buffer, size, "\"%s%s\"", clean, strlen(clean) < node->data.scalar.length ? "..." : "");
    return buffer;
}

/* In the supervisor or `eventpipe`: returns the value of another key in the mapping of the configuration
 * file that is being read, or NULL. */
const yaml_node_t *config_yaml_value_find_sibling(struct reader *reader, const char *key)
{
    const yaml_node_pair_t *at = reader->mapping->data.mapping.pairs.start;
    for (; at < reader->mapping->data.mapping.pairs.top; at++) {
        const yaml_node_t *name = config_yaml_get_node(reader, at->key);
        if (name->type == YAML_SCALAR_NODE && strcmp((const char *)name->data.scalar.value, key) == 0)
            return config_yaml_get_node(reader, at->value);
    }
    return NULL;
}

/* In the supervisor or `eventpipe`: returns the text of a value in the configuration file; reports "expected
 * WHAT, found ..." and returns NULL if it is a list, a mapping or null, or has a NUL in it. Every reader of
 * a single value begins with it. */
const char *config_yaml_value_read_scalar(struct reader *reader, const yaml_node_t *node, const char *what)
{
    char found[120];
    if (node->type != YAML_SCALAR_NODE || config_yaml_value_is_null(node)) {
        config_yaml_report_problem(reader, "expected %s, found %s", what,
                                   config_yaml_value_describe(node, found, sizeof found));
        return NULL;
    }
    const char *text = (const char *)node->data.scalar.value;
    if (strlen(text) == node->data.scalar.length)
        return text;
    config_yaml_report_problem(reader, "expected %s, found a text with a NUL character in it", what);
    return NULL;
}

/* In the supervisor or `eventpipe`: replaces a default of the configuration by a copy of the text from the
 * file. */
static void replace_text(struct reader *reader, char **destination, const char *text)
{
    char *copy = strdup(text);
    if (copy == NULL) {
        reader->no_memory = true;
        return;
    }
    free(*destination);
    *destination = copy;
}

/* In the supervisor or `eventpipe`: reads a key of the configuration file whose value is a text that is not
 * empty. The schema names it for names, URLs and filters. */
void config_yaml_value_read_text(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                                 void *base)
{
    const char *text = config_yaml_value_read_scalar(reader, node, "a text");
    if (text != NULL && text[0] == '\0')
        config_yaml_report_problem(reader, "expected a text, found \"\"; leave the key out if you mean none");
    else if (text != NULL)
        replace_text(reader, DESTINATION(char *), text);
}

/* In the supervisor or `eventpipe`: reads a key of the configuration file whose value is a text that may be
 * empty: a JSON pointer, or an http source's first cursor. */
void config_yaml_value_read_pointer(struct reader *reader, const struct schema_key *key,
                                    const yaml_node_t *node, void *base)
{
    const char *what = strcmp(key->name, "initial") == 0
                           ? "a text (\"\" for an empty one)"
                           : "a JSON pointer such as /data/id (\"\" for the whole)";
    const char *text = config_yaml_value_read_scalar(reader, node, what);
    if (text != NULL)
        replace_text(reader, DESTINATION(char *), text);
}

/* In the supervisor or `eventpipe`: makes a path of the configuration file absolute, allocated; NULL without
 * memory. A relative path begins at the directory of the file, so that the daemon may run in any directory.
 * */
static char *make_path_absolute(struct reader *reader, const char *path)
{
    char *whole = NULL;
    if (path[0] == '/')
        whole = strdup(path);
    else if (asprintf(&whole, "%s/%s", strcmp(reader->directory, "/") == 0 ? "" : reader->directory, path) <
             0)
        whole = NULL;
    if (whole == NULL)
        reader->no_memory = true;
    return whole;
}

/* In the supervisor or `eventpipe`: reads a path in the configuration file and returns it absolute,
 * allocated; NULL after a problem. */
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

/* In the supervisor or `eventpipe`: reads a key of the configuration file whose value is a path, and keeps
 * it absolute. The schema names it for files, directories and the control socket. */
void config_yaml_value_read_path(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                                 void *base)
{
    char *path = config_yaml_value_read_absolute_path(reader, node);
    if (path == NULL)
        return;
    free(*DESTINATION(char *));
    *DESTINATION(char *) = path;
}

/* In the supervisor or `eventpipe`: reads the `storage` of the configuration file, which names the store:
 * "memory:", or "sqlite:" with a path that becomes absolute. config_validate checks anything else. */
void config_yaml_value_read_storage(struct reader *reader, const struct schema_key *key,
                                    const yaml_node_t *node, void *base)
{
    char **destination = DESTINATION(char *);
    const char *text = config_yaml_value_read_scalar(reader, node, "sqlite:/path/to/file.db or memory:");
    if (text == NULL)
        return;
    /* "memory:" alone is not valid YAML without quotes, so the forms without the colon at the end are taken
     * too */
    if (strcmp(text, "memory") == 0 || strcmp(text, ":memory") == 0 || strcmp(text, ":memory:") == 0) {
        replace_text(reader, destination, "memory:");
    } else if (strncmp(text, "sqlite:", 7) == 0 && text[7] != '\0') {
        char *path = make_path_absolute(reader, text + 7), *whole = NULL;
        if (path == NULL || asprintf(&whole, "sqlite:%s", path) < 0)
            reader->no_memory = true;
        else
            *destination = whole;
        free(path);
    } else {
        replace_text(reader, destination, text); /* config_validate checks it */
    }
}

/* In the supervisor or `eventpipe`: reads the `since` of a source in the configuration file, and turns a
 * duration back from now into a time. So the time stays the same while the daemon runs. */
void config_yaml_value_read_since(struct reader *reader, const struct schema_key *key,
                                  const yaml_node_t *node, void *base)
{
    const char *what = "a duration back from now such as 24h, or a time such as 2026-11-23T10:00:00Z";
    const char *text = config_yaml_value_read_scalar(reader, node, what);
    char moment[64], found[120];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (text == NULL)
        return;
    if (base_units_since_text(text, (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000, moment,
                              sizeof moment) == EP_OK)
        replace_text(reader, DESTINATION(char *), moment);
    else
        config_yaml_report_problem(reader, "expected %s, found %s%s", what,
                                   config_yaml_value_describe(node, found, sizeof found),
                                   errno == ERANGE ? ", which is before 1970 or too long" : "");
}

/* ---- numbers ---- */

/* In the supervisor or `eventpipe`: reads a whole number of the configuration file within the bounds that
 * the schema gives its key; reports a problem and returns false otherwise. */
static bool read_bounded_count(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                               uint64_t *value)
{
    char what[80], found[120];
    snprintf(what, sizeof what, "a whole number from %" PRIu64 " to %" PRIu64, key->least, key->most);
    const char *text = config_yaml_value_read_scalar(reader, node, what);
    if (text == NULL)
        return false;
    uint64_t number = 0;
    bool fits = text[0] != '\0';
    for (const char *at = text; fits && *at != '\0'; at++)
        fits = *at >= '0' && *at <= '9' && !__builtin_mul_overflow(number, 10u, &number) &&
               !__builtin_add_overflow(number, (uint64_t)(*at - '0'), &number);
    if (!fits || number < key->least || number > key->most) {
        config_yaml_report_problem(reader, "expected %s, found %s", what,
                                   config_yaml_value_describe(node, found, sizeof found));
        return false;
    }
    *value = number;
    return true;
}

/* In the supervisor or `eventpipe`: reads a key of the configuration file whose value is a whole number of
 * 32 bits, such as `concurrency`. */
void config_yaml_value_read_count(struct reader *reader, const struct schema_key *key,
                                  const yaml_node_t *node, void *base)
{
    uint64_t number;
    if (read_bounded_count(reader, key, node, &number))
        *DESTINATION(uint32_t) = (uint32_t)number;
}

/* In the supervisor or `eventpipe`: reads a key of the configuration file whose value is a whole number of
 * 64 bits, such as `backlog.max_events`. */
void config_yaml_value_read_count64(struct reader *reader, const struct schema_key *key,
                                    const yaml_node_t *node, void *base)
{
    uint64_t number;
    if (read_bounded_count(reader, key, node, &number))
        *DESTINATION(uint64_t) = number;
}

/* In the supervisor or `eventpipe`: reads a key of the configuration file whose value is a whole number with
 * a sign: the `cursor.increment` of an http source. */
void config_yaml_value_read_integer(struct reader *reader, const struct schema_key *key,
                                    const yaml_node_t *node, void *base)
{
    const char *what = "a whole number of at most 64 bits, such as 1 or -1";
    const char *text = config_yaml_value_read_scalar(reader, node, what);
    char found[120];
    if (text == NULL)
        return;
    const char *digits = text + (text[0] == '-');
    errno = 0;
    int64_t number = strtoll(text, NULL, 10);
    if (digits[0] != '\0' && strspn(digits, "0123456789") == strlen(digits) && errno == 0)
        *DESTINATION(int64_t) = number;
    else
        config_yaml_report_problem(reader, "expected %s, found %s", what,
                                   config_yaml_value_describe(node, found, sizeof found));
}

/* In the supervisor or `eventpipe`: reads the `rate` of a generate source in the configuration file, digits
 * with an optional decimal point. It does not use strtod, which depends on the program's locale. */
void config_yaml_value_read_rate(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                                 void *base)
{
    const char *what = "events per second such as 100 or 0.5 (0 = no limit)";
    const char *text = config_yaml_value_read_scalar(reader, node, what);
    char found[120];
    if (text == NULL)
        return;
    size_t whole = strspn(text, "0123456789");
    size_t point = text[whole] == '.';
    size_t part = point > 0 ? strspn(text + whole + 1, "0123456789") : 0;
    double number = 0, place = 1;
    for (size_t i = 0; i < whole; i++)
        number = number * 10 + (text[i] - '0');
    for (size_t i = 0; i < part; i++)
        number += (text[whole + 1 + i] - '0') * (place /= 10);
    if (whole == 0 || (point > 0 && part == 0) || text[whole + point + part] != '\0' ||
        number > (double)key->most)
        config_yaml_report_problem(reader, "expected %s of at most %" PRIu64 ", found %s", what, key->most,
                                   config_yaml_value_describe(node, found, sizeof found));
    else
        *DESTINATION(double) = number;
}

/* In the supervisor or `eventpipe`: reads a key of the configuration file whose value is a duration such as
 * 30s, in milliseconds. A number without a unit is refused. */
void config_yaml_value_read_duration(struct reader *reader, const struct schema_key *key,
                                     const yaml_node_t *node, void *base)
{
    const char *text = config_yaml_value_read_scalar(reader, node, DURATION_FORM);
    char found[120];
    uint64_t ms;
    if (text == NULL)
        return;
    if (base_units_duration_ms(text, &ms) != EP_OK) {
        bool large = errno == ERANGE;
        bool bare = text[0] != '\0' && strspn(text, "0123456789") == strlen(text);
        config_yaml_report_problem(reader, "expected " DURATION_FORM ", found %s%s",
                                   config_yaml_value_describe(node, found, sizeof found),
                                   large  ? ", which is longer than 100 years"
                                   : bare ? ", a number without a unit"
                                          : "");
    } else if (ms < key->least) {
        config_yaml_report_problem(reader, "expected a duration of at least %" PRIu64 "ms, found %s",
                                   key->least, config_yaml_value_describe(node, found, sizeof found));
    } else {
        *DESTINATION(uint64_t) = ms;
    }
}

/* In the supervisor or `eventpipe`: reads a duration of whole seconds: the `limits.cpu` of a stage in the
 * configuration file, which the kernel counts in seconds. */
void config_yaml_value_read_seconds(struct reader *reader, const struct schema_key *key,
                                    const yaml_node_t *node, void *base)
{
    const uint64_t before = *DESTINATION(uint64_t);
    char found[120];
    config_yaml_value_read_duration(reader, key, node, base);
    if (*DESTINATION(uint64_t) % 1000 == 0)
        return;
    *DESTINATION(uint64_t) = before;
    config_yaml_report_problem(reader, "expected whole seconds such as 1s or 90s, found %s",
                               config_yaml_value_describe(node, found, sizeof found));
}

/* In the supervisor or `eventpipe`: reads a key of the configuration file whose value is a size such as
 * 64MiB, within the bounds of the schema, in bytes. */
void config_yaml_value_read_size(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                                 void *base)
{
    const char *what = "a size in bytes such as 4096, 10k, 64KiB or 64MiB";
    const char *text = config_yaml_value_read_scalar(reader, node, what);
    char found[120];
    uint64_t bytes = 0;
    if (text == NULL)
        return;
    int code = base_units_size_bytes(text, &bytes);
    bool large = code != EP_OK && errno == ERANGE;
    if (code != EP_OK && !large)
        config_yaml_report_problem(reader, "expected %s, found %s", what,
                                   config_yaml_value_describe(node, found, sizeof found));
    else if (large || bytes < key->least || bytes > key->most)
        config_yaml_report_problem(reader, "expected a size from %" PRIu64 " to %" PRIu64 " bytes, found %s",
                                   key->least, key->most,
                                   config_yaml_value_describe(node, found, sizeof found));
    else
        *DESTINATION(uint64_t) = bytes;
}

/* In the supervisor or `eventpipe`: reads the `control_mode` of the configuration file: the control socket's
 * permission bits in octal. */
void config_yaml_value_read_mode(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                                 void *base)
{
    const char *what = "permission bits in octal such as 0600 or 0660";
    const char *text = config_yaml_value_read_scalar(reader, node, what);
    char found[120];
    if (text == NULL)
        return;
    size_t length = strlen(text);
    if (length < 3 || length > 4 || strspn(text, "01234567") != length || (length == 4 && text[0] != '0'))
        config_yaml_report_problem(reader, "expected %s, found %s", what,
                                   config_yaml_value_describe(node, found, sizeof found));
    else
        *DESTINATION(uint32_t) = (uint32_t)strtoul(text, NULL, 8);
}

/* ---- choices ---- */

/* In the supervisor or `eventpipe`: returns the index of a value of the configuration file among the allowed
 * names, or -1 after a problem that lists them. */
static int read_choice(struct reader *reader, const yaml_node_t *node, const char *const *choices)
{
    char list[160] = "", found[120];
    for (size_t i = 0, used = 0; choices[i] != NULL && used < sizeof list; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s",
                                 i == 0                   ? ""
                                 : choices[i + 1] == NULL ? " or "
                                                          : ", ",
                                 choices[i]);
    const char *text = config_yaml_value_read_scalar(reader, node, list);
    if (text == NULL)
        return -1;
    for (int i = 0; choices[i] != NULL; i++)
        if (strcmp(choices[i], text) == 0)
            return i;
    const char *near = base_suggest_near(text, choices);
    config_yaml_report_problem(reader, "expected %s, found %s%s%s%s", list,
                               config_yaml_value_describe(node, found, sizeof found),
                               near != NULL ? "; did you mean " : "", near != NULL ? near : "",
                               near != NULL ? "?" : "");
    return -1;
}

/* In the supervisor or `eventpipe`: reads a key of the configuration file that allows a few names, such as a
 * source's `type`, into an enum. */
void config_yaml_value_read_choice(struct reader *reader, const struct schema_key *key,
                                   const yaml_node_t *node, void *base)
{
    int choice = read_choice(reader, node, key->choices);
    if (choice < 0)
        return;
    unsigned value =
        (unsigned)choice; /* gcc and clang give an enum without negative values the type unsigned */
    memcpy(DESTINATION(char), &value, sizeof value);
}

/* In the supervisor or `eventpipe`: reads the `log_level` of the configuration file: the least severe
 * messages that the daemon logs. */
void config_yaml_value_read_severity(struct reader *reader, const struct schema_key *key,
                                     const yaml_node_t *node, void *base)
{
    static const char *const names[] = {"error", "warning", "info", "debug", NULL};
    static const enum ep_severity severities[] = {EP_LOG_ERROR, EP_LOG_WARNING, EP_LOG_INFO, EP_LOG_DEBUG};
    int choice = read_choice(reader, node, names);
    if (choice >= 0)
        *DESTINATION(enum ep_severity) = severities[choice];
}
