/* SPDX-License-Identifier: MIT */
/*
 * What all files of the configuration's reader use: the problems found so far, the path and line of the key
 * that is being read, and the budget of visits. Runs in the supervisor before the first fork, and in the
 * command line.
 *
 * Survived: a lack of memory sets reader->no_memory; the reader then gives up at its end.
 */
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/log.h"
#include "src/config/yaml.h"

/* In the supervisor or `eventpipe`: doubles an array of the configuration file's reader if its
 * `element_count` elements fill it. Returns the array, which may have moved; if out of memory, it returns
 * the old one and sets reader->no_memory. */
static void *grow_array_if_full(struct reader *reader, void *array, size_t element_count,
                                size_t element_bytes)
{
    if (element_count > 0 && (element_count & (element_count - 1)) != 0)
        return array;
    void *larger_array = reallocarray(array, element_count == 0 ? 1 : element_count * 2, element_bytes);
    if (larger_array != NULL)
        return larger_array;
    reader->no_memory = true;
    return array;
}

/* In the supervisor or `eventpipe`: returns whether a key of the configuration file, such as
 * sources[0].retry.min, equals outer_key or lies within it. Problems with the same cause are found this way
 * and reported once. */
bool config_yaml_is_key_within(const char *key, const char *outer_key)
{
    size_t outer_bytes = strlen(outer_key);
    return outer_bytes > 0 && strncmp(key, outer_key, outer_bytes) == 0 &&
           strchr(".[", key[outer_bytes]) != NULL; /* or '\0' */
}

/* In the supervisor or `eventpipe`: keeps a problem of the configuration file with its line (0 = none) and
 * key until the whole file is read; then all are reported in the order of their lines. After
 * READER_PROBLEMS_MAX, a last one says that there are more. */
void config_yaml_report_problem_at(struct reader *reader, unsigned line, const char *key, const char *message)
{
    if (reader->problem_count >= READER_PROBLEMS_MAX || reader->no_memory)
        return;
    if (reader->problem_count == READER_PROBLEMS_MAX - 1) {
        line = UINT_MAX; /* sorts last */
        key = "";
        message = "there are more problems than can be shown; fix these first";
    }
    reader->problems =
        grow_array_if_full(reader, reader->problems, reader->problem_count, sizeof *reader->problems);
    char clean_message[1024]; /* the message may quote the file */
    base_log_clean(message, clean_message, sizeof clean_message);
    struct reader_problem problem = {line, reader->problem_count, strdup(key), strdup(clean_message)};
    if (reader->no_memory || problem.key == NULL || problem.message == NULL) {
        reader->no_memory = true;
        free(problem.key);
        free(problem.message);
        return;
    }
    reader->problems[reader->problem_count++] = problem;
}

/* In the supervisor or `eventpipe`: keeps a problem with the key of the configuration file that is being
 * read now. Every function that reads a value calls it when the value is wrong. */
void config_yaml_report_problem(struct reader *reader, const char *format, ...)
{
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    config_yaml_report_problem_at(reader, reader->line, reader->key_path, message);
}

/* In the supervisor or `eventpipe`: remembers the key that an unknown key of the configuration file was
 * probably meant to be. Otherwise config_validate would report that key as missing, and the operator would
 * see two problems for one typing error. */
void config_yaml_note_meant_key(struct reader *reader, const char *key)
{
    reader->meant_keys =
        grow_array_if_full(reader, reader->meant_keys, reader->meant_count, sizeof *reader->meant_keys);
    char *key_copy = reader->no_memory ? NULL : strdup(key);
    if (key_copy != NULL)
        reader->meant_keys[reader->meant_count++] = key_copy;
    else
        reader->no_memory = true;
}

/* In the supervisor or `eventpipe`: returns whether an unknown key in the configuration file was probably
 * meant to be this key, or a key that contains it. Then this key is not reported as missing. */
bool config_yaml_is_meant_key(const struct reader *reader, const char *key)
{
    for (size_t i = 0; i < reader->meant_count; i++)
        if (config_yaml_is_key_within(key, reader->meant_keys[i]))
            return true;
    return false;
}

/* In the supervisor or `eventpipe`: extends the path that problems of the configuration file name by a key
 * or a list index such as "[3]". Returns the old length of the path; config_yaml_leave_key takes it to undo
 * this. */
size_t config_yaml_enter_key(struct reader *reader, const char *name, unsigned line)
{
    size_t outer_length = strlen(reader->key_path);
    char clean_name[80];
    base_log_clean(name, clean_name, sizeof clean_name);
    snprintf(reader->key_path + outer_length, sizeof reader->key_path - outer_length, "%s%s",
             outer_length > 0 && clean_name[0] != '[' ? "." : "", clean_name);
    reader->line = line;
    return outer_length;
}

/* In the supervisor or `eventpipe`: does what config_yaml_enter_key does, and remembers the key's line in
 * the configuration file. Problems that config_validate finds, which have only a key, get their lines from
 * there. */
size_t config_yaml_enter_marked_key(struct reader *reader, const char *name, unsigned line)
{
    size_t outer_length = config_yaml_enter_key(reader, name, line);
    reader->marks = grow_array_if_full(reader, reader->marks, reader->mark_count, sizeof *reader->marks);
    char *path_copy = reader->no_memory ? NULL : strdup(reader->key_path);
    if (path_copy != NULL)
        reader->marks[reader->mark_count++] = (struct reader_mark){line, path_copy};
    else
        reader->no_memory = true;
    return outer_length;
}

void config_yaml_leave_key(struct reader *reader, size_t outer_length)
{
    reader->key_path[outer_length] = '\0';
}

/* In the supervisor or `eventpipe`: subtracts one visit of a YAML node from the reader's budget. Returns
 * false once the budget is used up, after a problem is reported. Without the budget, aliases in a small
 * configuration file could keep the daemon busy for ever. */
bool config_yaml_charge_visit(struct reader *reader, const yaml_node_t *node)
{
    uint64_t cost = 1 + (node->type == YAML_SCALAR_NODE ? node->data.scalar.length : 0);
    if (reader->budget_exhausted || reader->no_memory)
        return false;
    if (cost <= reader->visit_budget) {
        reader->visit_budget -= cost;
        return true;
    }
    reader->budget_exhausted = true;
    config_yaml_report_problem(
        reader, "aliases (*name) repeat so much that the configuration is too large; reading stopped here");
    return false;
}

const yaml_node_t *config_yaml_get_node(struct reader *reader, int node_number)
{
    return yaml_document_get_node(&reader->document, node_number);
}

unsigned config_yaml_get_line(const yaml_node_t *node)
{
    return (unsigned)node->start_mark.line + 1;
}
