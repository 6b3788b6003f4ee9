/* SPDX-License-Identifier: MIT */
/*
 * Reads a configuration file in steps: bytes, YAML, the schema's keys, config_validate. Reports every problem
 * in one run, in file order. Runs in the supervisor before the first fork, and in the command line.
 *
 * Invariants
 *  1. No input makes it crash, hang or use unbounded memory. File size and nesting are limited, and
 *     every visit of a node is charged to a budget, so that aliases cannot multiply.
 *  2. *out is set only if nothing was reported.
 *  3. A cause is reported once: a problem that config_validate finds at a key is dropped if the reader
 *     has already reported one at that key or above it.
 *
 * Survived: everything. A file that cannot be read is a problem like any other.
 */
#include "src/config/yaml.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/log.h"

#define BUDGET \
    (UINT64_C(1) << 20) /* plus four times the file's length: twice what a file without aliases can need */

/* ---- file and document ---- */

/* In the supervisor or `eventpipe`: reads the whole configuration file into memory, at most 1 MiB, and sets
 * *file_bytes. Returns the bytes, which the caller frees, or NULL after a problem is reported. */
static char *read_file_bytes(struct reader *reader, size_t *file_bytes)
{
    char message[256];
    char *file_text = NULL;
    int fd = open(reader->file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        goto failed;
    file_text = malloc(CONFIG_FILE_BYTES_MAX + 1);
    if (file_text == NULL)
        goto failed;
    *file_bytes = 0;
    while (*file_bytes <= CONFIG_FILE_BYTES_MAX) {
        ssize_t chunk_bytes = read(fd, file_text + *file_bytes, CONFIG_FILE_BYTES_MAX + 1 - *file_bytes);
        if (chunk_bytes == 0)
            break;
        if (chunk_bytes < 0 && errno == EINTR)
            continue;
        if (chunk_bytes < 0)
            goto failed;
        *file_bytes += (size_t)chunk_bytes;
    }
    close(fd);
    if (*file_bytes <= CONFIG_FILE_BYTES_MAX)
        return file_text;
    free(file_text);
    config_yaml_report_problem_at(reader, 0, "",
                                  "the file is larger than 1 MiB, the limit for a configuration file");
    return NULL;
failed:
    snprintf(message, sizeof message, "the file cannot be read: %s", strerror(errno));
    config_yaml_report_problem_at(reader, 0, "", message);
    free(file_text);
    if (fd >= 0)
        close(fd);
    return NULL;
}

/* In the supervisor or `eventpipe`: reads the top keys of the loaded configuration file, and with them
 * everything below. Reports a problem if the file is empty. */
static void read_top_keys(struct reader *reader, struct config *config)
{
    static const struct schema_variant no_variant = {.bit = 0};
    const yaml_node_t *root = yaml_document_get_root_node(&reader->document);
    if (root == NULL || config_yaml_value_is_null(root)) {
        config_yaml_report_problem_at(reader, 0, "", "the file is empty, expected at least `sources:`");
        return;
    }
    reader->line = config_yaml_get_line(root);
    config_yaml_mapping_read_keys(reader, config_yaml_schema_top, &no_variant, root, config);
}

/* In the supervisor or `eventpipe`: parses the bytes of the configuration file and reads its keys into
 * `config`. Reports a problem if the bytes are not YAML or contain a second document. */
static void read_yaml_document(struct reader *reader, const char *file_text, size_t file_bytes,
                               struct config *config)
{
    yaml_parser_t parser;
    if (!config_yaml_syntax_check_file(reader, file_text, file_bytes))
        return;
    if (!yaml_parser_initialize(&parser)) {
        reader->no_memory = true;
        return;
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)file_text, file_bytes);
    if (!yaml_parser_load(&parser, &reader->document)) {
        config_yaml_syntax_report_problem(reader, &parser, file_text, file_bytes);
        yaml_parser_delete(&parser);
        return;
    }
    read_top_keys(reader, config);
    bool is_empty = yaml_document_get_root_node(&reader->document) == NULL;
    yaml_document_delete(&reader->document);
    if (!is_empty && !yaml_parser_load(&parser, &reader->document)) {
        config_yaml_syntax_report_problem(reader, &parser, file_text, file_bytes);
    } else if (!is_empty) {
        const yaml_node_t *second_root = yaml_document_get_root_node(&reader->document);
        if (second_root != NULL)
            config_yaml_report_problem_at(reader, config_yaml_get_line(second_root), "",
                                          "a second YAML document begins, expected only one");
        yaml_document_delete(&reader->document);
    }
    yaml_parser_delete(&parser);
}

/* ---- config_validate and the report ---- */

/* In the supervisor or `eventpipe`: orders the remembered keys of the configuration file by name, for qsort
 * and bsearch, which find_line_of_key needs. */
static int compare_marks_by_key(const void *left, const void *right)
{
    const struct reader_mark *left_mark = left, *right_mark = right;
    return strcmp(left_mark->key, right_mark->key);
}

/* In the supervisor or `eventpipe`: returns the line of a key in the configuration file or, if that key is
 * not there, of the innermost key around it; 0 if there is none. config_validate reports keys without
 * lines, but the operator needs a line. */
static unsigned find_line_of_key(const struct reader *reader, const char *key)
{
    char outer_key[256];
    snprintf(outer_key, sizeof outer_key, "%s", key);
    for (;;) {
        struct reader_mark wanted_mark = {.key = outer_key};
        struct reader_mark *found_mark = NULL;
        if (reader->mark_count > 0)
            found_mark = bsearch(&wanted_mark, reader->marks, reader->mark_count, sizeof *reader->marks,
                                 compare_marks_by_key);
        if (found_mark != NULL)
            return found_mark->line;
        char *dot = strrchr(outer_key, '.'), *bracket = strrchr(outer_key, '[');
        char *last_part = bracket != NULL && (dot == NULL || bracket > dot) ? bracket : dot;
        if (last_part == NULL)
            return 0;
        *last_part = '\0';
    }
}

/* In the supervisor or `eventpipe`: keeps a problem that config_validate found, with its line in the
 * configuration file, unless a problem with that key, or a key around it, was found while reading. */
static void on_problem_add_line(const struct config_problem *problem, void *user)
{
    struct reader *reader = user;
    for (size_t i = 0; i < reader->problem_count_before_check; i++)
        if (config_yaml_is_key_within(problem->key, reader->problems[i].key))
            return;
    if (config_yaml_is_meant_key(reader, problem->key))
        return;
    config_yaml_report_problem_at(reader, find_line_of_key(reader, problem->key), problem->key,
                                  problem->message);
}

/* In the supervisor or `eventpipe`: lets config_validate check the configuration after its file was read,
 * and keeps each problem with its line. */
static void check_rules(struct reader *reader, const struct config *config)
{
    reader->problem_count_before_check = reader->problem_count;
    if (reader->mark_count > 1)
        qsort(reader->marks, reader->mark_count, sizeof *reader->marks, compare_marks_by_key);
    config_validate(config, on_problem_add_line, reader);
}

/* In the supervisor or `eventpipe`: sets the instance, the store and the control socket where the
 * configuration file does not name them: the instance to the file's name without extension, the other two
 * to paths with the instance's name. */
static void fill_default_names(struct reader *reader, struct config *config)
{
    if (config->instance == NULL) {
        const char *last_slash = strrchr(reader->file, '/');
        config->instance = strdup(last_slash != NULL ? last_slash + 1 : reader->file);
        char *last_dot = config->instance != NULL ? strrchr(config->instance, '.') : NULL;
        if (last_dot != NULL && last_dot != config->instance)
            *last_dot = '\0';
    }
    if (config->instance == NULL ||
        (config->storage == NULL &&
         asprintf(&config->storage, "sqlite:/var/lib/eventpipe/%s.db", config->instance) < 0) ||
        (config->control == NULL &&
         asprintf(&config->control, "/run/eventpipe/%s.sock", config->instance) < 0))
        reader->no_memory = true;
}

/* In the supervisor or `eventpipe`: finds the absolute directory of the configuration file, where relative
 * paths in the file begin. Reports a problem and returns false if it cannot. */
static bool find_file_directory(struct reader *reader)
{
    const char *last_slash = strrchr(reader->file, '/');
    char *parent = last_slash == NULL           ? strdup(".")
                   : last_slash == reader->file ? strdup("/")
                                                : strndup(reader->file, (size_t)(last_slash - reader->file));
    reader->directory = parent != NULL ? realpath(parent, NULL) : NULL;
    if (reader->directory == NULL) {
        char message[512];
        snprintf(message, sizeof message, "cannot find the directory of the file: %s", strerror(errno));
        config_yaml_report_problem_at(reader, 0, "", message);
    }
    free(parent);
    return reader->directory != NULL;
}

/* In the supervisor or `eventpipe`: orders the problems of the configuration file by line, for qsort;
 * problems of one line stay in the order in which they were found. */
static int compare_problems_by_line(const void *left, const void *right)
{
    const struct reader_problem *left_problem = left, *right_problem = right;
    if (left_problem->line != right_problem->line)
        return left_problem->line < right_problem->line ? -1 : 1;
    return left_problem->discovery_order < right_problem->discovery_order ? -1 : 1;
}

/* In the supervisor or `eventpipe`: passes all problems of the configuration file to the caller's report
 * function, in the order of their lines. config_read calls it at the end. */
static void report_problems(struct reader *reader, config_report *report, void *user)
{
    if (reader->problem_count > 1)
        qsort(reader->problems, reader->problem_count, sizeof *reader->problems, compare_problems_by_line);
    for (size_t i = 0; i < reader->problem_count && report != NULL; i++) {
        const struct reader_problem *found_problem = &reader->problems[i];
        struct config_problem problem = {reader->file,
                                         found_problem->line == UINT_MAX ? 0 : found_problem->line,
                                         found_problem->key, found_problem->message};
        report(&problem, user);
    }
    if (reader->no_memory && report != NULL) {
        struct config_problem problem = {reader->file, 0, "",
                                         "out of memory while reading the configuration file"};
        report(&problem, user);
    }
}

/* In the supervisor or `eventpipe`: frees what the reader of the configuration file has allocated for
 * itself: problems, remembered keys and the directory's name. */
static void free_reader(struct reader *reader)
{
    for (size_t i = 0; i < reader->problem_count; i++) {
        free(reader->problems[i].key);
        free(reader->problems[i].message);
    }
    for (size_t i = 0; i < reader->mark_count; i++)
        free(reader->marks[i].key);
    for (size_t i = 0; i < reader->meant_count; i++)
        free(reader->meant_keys[i]);
    free(reader->problems);
    free(reader->marks);
    free(reader->meant_keys);
    free(reader->directory);
}

/* Reads a configuration file and reports each problem in it. Returns EP_OK with *out set (config_close
 * frees it), EP_ECONFIG or EP_ENOMEM. The supervisor calls it before it forks, and so does each
 * `eventpipe` command that has a configuration file. */
int config_read(const char *path, config_report *report, void *user, struct config **out)
{
    struct reader reader = {.file = path};
    struct config *config = calloc(1, sizeof *config);
    if (config == NULL)
        reader.no_memory = true;
    else
        config_set_defaults(config);
    size_t file_bytes = 0;
    char *file_text = config != NULL ? read_file_bytes(&reader, &file_bytes) : NULL;
    if (file_text != NULL && find_file_directory(&reader)) {
        config->path = strdup(path);
        reader.no_memory = config->path == NULL;
        reader.visit_budget = BUDGET + 4 * file_bytes;
        read_yaml_document(&reader, file_text, file_bytes, config);
        bool has_yaml =
            true; /* false after a problem without a key: then there is nothing for config_validate */
        for (size_t i = 0; i < reader.problem_count; i++)
            has_yaml = has_yaml && reader.problems[i].key[0] != '\0';
        if (has_yaml && !reader.budget_exhausted && !reader.no_memory)
            fill_default_names(&reader, config);
        if (has_yaml && !reader.budget_exhausted && !reader.no_memory)
            check_rules(&reader, config);
    }
    free(file_text);
    report_problems(&reader, report, user);
    int code = reader.no_memory ? EP_ENOMEM : reader.problem_count > 0 ? EP_ECONFIG : EP_OK;
    if (config != NULL)
        config->token_variables = reader.token_variables; /* empty if there are none or memory was short */
    free_reader(&reader);
    if (code == EP_OK)
        *out = config;
    else
        config_close(&config);
    return code;
}

/* Loads a file as YAML without interpreting its keys. Returns the root, or NULL after a problem; the caller
 * calls config_yaml_unload_file in both cases. config_convert_to_json uses it to convert the configuration
 * file for `eventpipe chaos`. */
const yaml_node_t *config_yaml_load_file(struct reader *reader)
{
    yaml_parser_t parser;
    size_t file_bytes = 0;
    bool is_loaded = false;
    char *file_text = read_file_bytes(reader, &file_bytes);
    if (file_text != NULL && find_file_directory(reader) &&
        config_yaml_syntax_check_file(reader, file_text, file_bytes) && yaml_parser_initialize(&parser)) {
        reader->visit_budget = BUDGET + 4 * file_bytes;
        yaml_parser_set_input_string(&parser, (const unsigned char *)file_text, file_bytes);
        is_loaded = yaml_parser_load(&parser, &reader->document) != 0;
        yaml_parser_delete(&parser);
    }
    free(file_text);
    return is_loaded ? yaml_document_get_root_node(&reader->document) : NULL;
}

void config_yaml_unload_file(struct reader *reader, const yaml_node_t *root)
{
    if (root != NULL)
        yaml_document_delete(&reader->document);
    free_reader(reader);
}
