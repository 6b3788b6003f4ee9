/* SPDX-License-Identifier: MIT */
/*
 * Reads a configuration file in steps: bytes, YAML, the schema's keys, the rules. Reports every problem
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

/* In the supervisor or `eventpipe`: makes room for one more element by doubling the array. Returns the old
 * array without memory, and notes that in the reader of the configuration file. */
static void *make_room_for_element(struct reader *reader, void *array, size_t count, size_t size)
{
    if (count > 0 && (count & (count - 1)) != 0)
        return array;
    void *larger = reallocarray(array, count == 0 ? 1 : count * 2, size);
    if (larger != NULL)
        return larger;
    reader->no_memory = true;
    return array;
}

/* Whether a key of the configuration file is `above` or within it. */
static bool key_is_within(const char *key, const char *above)
{
    size_t length = strlen(above);
    return length > 0 && strncmp(key, above, length) == 0 && strchr(".[", key[length]) != NULL; /* or '\0' */
}

/* In the supervisor or `eventpipe`: keeps a problem of the configuration file, with its line and key, until
 * the whole file is read; then all are shown in the order of lines. Only the first 1000 are kept. */
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
        make_room_for_element(reader, reader->problems, reader->problem_count, sizeof *reader->problems);
    char clean[1024]; /* the message may quote the file */
    base_log_clean(message, clean, sizeof clean);
    struct reader_problem found = {line, reader->problem_count, strdup(key), strdup(clean)};
    if (reader->no_memory || found.key == NULL || found.message == NULL) {
        reader->no_memory = true;
        free(found.key);
        free(found.message);
        return;
    }
    reader->problems[reader->problem_count++] = found;
}

/* In the supervisor or `eventpipe`: keeps a problem with the key of the configuration file that is being
 * read now. Every reader of a value ends here when the value is wrong. */
void config_yaml_report_problem(struct reader *reader, const char *format, ...)
{
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    config_yaml_report_problem_at(reader, reader->line, reader->path, message);
}

/* In the supervisor or `eventpipe`: notes the key that an unknown key of the configuration file probably
 * meant. Otherwise the rules would report that key as missing, too, and the operator would see two problems
 * for one typing error. */
void config_yaml_note_meant_key(struct reader *reader, const char *key)
{
    reader->meant = make_room_for_element(reader, reader->meant, reader->meant_count, sizeof *reader->meant);
    char *copy = reader->no_memory ? NULL : strdup(key);
    if (copy != NULL)
        reader->meant[reader->meant_count++] = copy;
    else
        reader->no_memory = true;
}

/* In the supervisor or `eventpipe`: returns whether an unknown key in the configuration file probably meant
 * this key, or one above it. Then it is not reported as missing. */
bool config_yaml_is_meant_key(const struct reader *reader, const char *key)
{
    for (size_t i = 0; i < reader->meant_count; i++)
        if (key_is_within(key, reader->meant[i]))
            return true;
    return false;
}

/* In the supervisor or `eventpipe`: sets the reader's position in the configuration file to a member ("key"
 * or "[3]"), for the messages. Returns the position before, which config_yaml_leave_key needs. */
size_t config_yaml_enter_key(struct reader *reader, const char *name, unsigned line)
{
    size_t outer = strlen(reader->path);
    char clean[80];
    base_log_clean(name, clean, sizeof clean);
    snprintf(reader->path + outer, sizeof reader->path - outer, "%s%s",
             outer > 0 && clean[0] != '[' ? "." : "", clean);
    reader->line = line;
    return outer;
}

/* In the supervisor or `eventpipe`: does the same as config_yaml_enter_key, and remembers the key's line in
 * the configuration file for a problem that the rules find later. */
size_t config_yaml_enter_marked_key(struct reader *reader, const char *name, unsigned line)
{
    size_t outer = config_yaml_enter_key(reader, name, line);
    reader->marks = make_room_for_element(reader, reader->marks, reader->mark_count, sizeof *reader->marks);
    char *key = reader->no_memory ? NULL : strdup(reader->path);
    if (key != NULL)
        reader->marks[reader->mark_count++] = (struct reader_mark){line, key};
    else
        reader->no_memory = true;
    return outer;
}

void config_yaml_leave_key(struct reader *reader, size_t outer)
{
    reader->path[outer] = '\0';
}

/* In the supervisor or `eventpipe`: charges one visit of a YAML node to the reader's budget; reports a
 * problem and returns false when it is used up. Without it, aliases in a small configuration file could keep
 * the daemon busy for ever. */
bool config_yaml_charge_visit(struct reader *reader, const yaml_node_t *node)
{
    uint64_t cost = 1 + (node->type == YAML_SCALAR_NODE ? node->data.scalar.length : 0);
    if (reader->spent || reader->no_memory)
        return false;
    if (cost <= reader->budget) {
        reader->budget -= cost;
        return true;
    }
    reader->spent = true;
    config_yaml_report_problem(
        reader, "aliases (*name) repeat so much that the configuration is too large; reading stopped here");
    return false;
}

const yaml_node_t *config_yaml_get_node(struct reader *reader, int number)
{
    return yaml_document_get_node(&reader->document, number);
}

unsigned config_yaml_get_line(const yaml_node_t *node)
{
    return (unsigned)node->start_mark.line + 1;
}

/* ---- file and document ---- */

/* In the supervisor or `eventpipe`: reads the whole configuration file into memory, at most 1 MiB. Returns
 * the bytes, allocated, or NULL after a problem. */
static char *read_file_bytes(struct reader *reader, size_t *length)
{
    char message[256];
    char *bytes = NULL;
    int fd = open(reader->file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        goto failed;
    bytes = malloc(CONFIG_FILE_BYTES_MAX + 1);
    if (bytes == NULL)
        goto failed;
    *length = 0;
    while (*length <= CONFIG_FILE_BYTES_MAX) {
        ssize_t got = read(fd, bytes + *length, CONFIG_FILE_BYTES_MAX + 1 - *length);
        if (got == 0)
            break;
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            goto failed;
        *length += (size_t)got;
    }
    close(fd);
    if (*length <= CONFIG_FILE_BYTES_MAX)
        return bytes;
    free(bytes);
    config_yaml_report_problem_at(reader, 0, "",
                                  "the file is larger than 1 MiB, the limit for a configuration file");
    return NULL;
failed:
    snprintf(message, sizeof message, "the file cannot be read: %s", strerror(errno));
    config_yaml_report_problem_at(reader, 0, "", message);
    free(bytes);
    if (fd >= 0)
        close(fd);
    return NULL;
}

/* In the supervisor or `eventpipe`: reads the top keys of a loaded configuration file, and with them
 * everything below. An empty file is a problem. */
static void read_root_mapping(struct reader *reader, struct config *config)
{
    static const struct schema_variant plain = {.bit = 0};
    const yaml_node_t *root = yaml_document_get_root_node(&reader->document);
    if (root == NULL || config_yaml_value_is_null(root)) {
        config_yaml_report_problem_at(reader, 0, "", "the file is empty, expected at least `sources:`");
        return;
    }
    reader->line = config_yaml_get_line(root);
    config_yaml_mapping_read_keys(reader, config_yaml_schema_top, &plain, root, config);
}

/* In the supervisor or `eventpipe`: parses the bytes of the configuration file and reads its keys into
 * `config`. A second YAML document in the file is a problem. */
static void read_yaml_document(struct reader *reader, const char *bytes, size_t length, struct config *config)
{
    yaml_parser_t parser;
    if (!config_yaml_syntax_check_depth(reader, bytes, length))
        return;
    if (!yaml_parser_initialize(&parser)) {
        reader->no_memory = true;
        return;
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)bytes, length);
    if (!yaml_parser_load(&parser, &reader->document)) {
        config_yaml_syntax_report_problem(reader, &parser, bytes, length);
        yaml_parser_delete(&parser);
        return;
    }
    read_root_mapping(reader, config);
    bool empty = yaml_document_get_root_node(&reader->document) == NULL;
    yaml_document_delete(&reader->document);
    if (!empty && !yaml_parser_load(&parser, &reader->document)) {
        config_yaml_syntax_report_problem(reader, &parser, bytes, length);
    } else if (!empty) {
        const yaml_node_t *second = yaml_document_get_root_node(&reader->document);
        if (second != NULL)
            config_yaml_report_problem_at(reader, config_yaml_get_line(second), "",
                                          "a second YAML document begins, expected only one");
        yaml_document_delete(&reader->document);
    }
    yaml_parser_delete(&parser);
}

/* ---- the rules and the report ---- */

/* Orders the marked keys of the configuration file by name, for qsort and bsearch. */
static int compare_marks_by_key(const void *left, const void *right)
{
    const struct reader_mark *a = left, *b = right;
    return strcmp(a->key, b->key);
}

/* In the supervisor or `eventpipe`: returns the line of a key in the configuration file, or of the innermost
 * key around it that is there; 0 if there is none. The rules know only keys, but the operator needs a line.
 * */
static unsigned find_line_of_key(const struct reader *reader, const char *key)
{
    char around[256];
    snprintf(around, sizeof around, "%s", key);
    for (;;) {
        struct reader_mark sought = {.key = around};
        struct reader_mark *mark = NULL;
        if (reader->mark_count > 0)
            mark = bsearch(&sought, reader->marks, reader->mark_count, sizeof *reader->marks,
                           compare_marks_by_key);
        if (mark != NULL)
            return mark->line;
        char *dot = strrchr(around, '.'), *bracket = strrchr(around, '[');
        char *cut = bracket != NULL && (dot == NULL || bracket > dot) ? bracket : dot;
        if (cut == NULL)
            return 0;
        *cut = '\0';
    }
}

/* In the supervisor or `eventpipe`: called for each rule that the configuration breaks: keeps the problem
 * with its line in the file, unless the reader has reported that key already. */
static void on_rule_problem(const struct config_problem *problem, void *user)
{
    struct reader *reader = user;
    for (size_t i = 0; i < reader->read_count; i++)
        if (key_is_within(problem->key, reader->problems[i].key))
            return;
    if (config_yaml_is_meant_key(reader, problem->key))
        return;
    config_yaml_report_problem_at(reader, find_line_of_key(reader, problem->key), problem->key,
                                  problem->message);
}

/* In the supervisor or `eventpipe`: checks the rules of the configuration (config_validate) after the file
 * was read, and adds the lines to the problems. */
static void check_rules(struct reader *reader, const struct config *config)
{
    reader->read_count = reader->problem_count;
    if (reader->mark_count > 1)
        qsort(reader->marks, reader->mark_count, sizeof *reader->marks, compare_marks_by_key);
    config_validate(config, on_rule_problem, reader);
}

/* In the supervisor or `eventpipe`: sets the instance, the store and the control socket where the
 * configuration file does not name them. The instance is the file's name, and the other two follow from it.
 * */
static void fill_default_names(struct reader *reader, struct config *config)
{
    if (config->instance == NULL) {
        const char *slash = strrchr(reader->file, '/');
        config->instance = strdup(slash != NULL ? slash + 1 : reader->file);
        char *dot = config->instance != NULL ? strrchr(config->instance, '.') : NULL;
        if (dot != NULL && dot != config->instance)
            *dot = '\0';
    }
    if (config->instance == NULL ||
        (config->storage == NULL &&
         asprintf(&config->storage, "sqlite:/var/lib/eventpipe/%s.db", config->instance) < 0) ||
        (config->control == NULL &&
         asprintf(&config->control, "/run/eventpipe/%s.sock", config->instance) < 0))
        reader->no_memory = true;
}

/* In the supervisor or `eventpipe`: finds the absolute directory of the configuration file, where relative
 * paths in it begin. Reports a problem and returns false if it cannot. */
static bool find_file_directory(struct reader *reader)
{
    const char *slash = strrchr(reader->file, '/');
    char *parent = slash == NULL           ? strdup(".")
                   : slash == reader->file ? strdup("/")
                                           : strndup(reader->file, (size_t)(slash - reader->file));
    reader->directory = parent != NULL ? realpath(parent, NULL) : NULL;
    if (reader->directory == NULL) {
        char message[512];
        snprintf(message, sizeof message, "the file's directory cannot be found: %s", strerror(errno));
        config_yaml_report_problem_at(reader, 0, "", message);
    }
    free(parent);
    return reader->directory != NULL;
}

/* Orders the problems of the configuration file by line, for qsort; those of one line as they were found. */
static int compare_problems_by_line(const void *left, const void *right)
{
    const struct reader_problem *a = left, *b = right;
    if (a->line != b->line)
        return a->line < b->line ? -1 : 1;
    return a->order < b->order ? -1 : 1;
}

/* In the supervisor or `eventpipe`: passes all kept problems of the configuration file to the caller's
 * report function, in the order of lines. */
static void report_problems(struct reader *reader, config_report *report, void *user)
{
    if (reader->problem_count > 1)
        qsort(reader->problems, reader->problem_count, sizeof *reader->problems, compare_problems_by_line);
    for (size_t i = 0; i < reader->problem_count && report != NULL; i++) {
        const struct reader_problem *at = &reader->problems[i];
        struct config_problem problem = {reader->file, at->line == UINT_MAX ? 0 : at->line, at->key,
                                         at->message};
        report(&problem, user);
    }
    if (reader->no_memory && report != NULL) {
        struct config_problem problem = {reader->file, 0, "", "out of memory while reading"};
        report(&problem, user);
    }
}

/* In the supervisor or `eventpipe`: frees what the reader of the configuration file has collected: problems,
 * marked keys, its directory. */
static void free_reader(struct reader *reader)
{
    for (size_t i = 0; i < reader->problem_count; i++) {
        free(reader->problems[i].key);
        free(reader->problems[i].message);
    }
    for (size_t i = 0; i < reader->mark_count; i++)
        free(reader->marks[i].key);
    for (size_t i = 0; i < reader->meant_count; i++)
        free(reader->meant[i]);
    free(reader->problems);
    free(reader->marks);
    free(reader->meant);
    free(reader->directory);
}

/* Reads a configuration file, reports each problem in it, and sets *out if there is none. Returns EP_OK,
 * EP_ECONFIG or EP_ENOMEM. The supervisor calls it before it forks, and each `eventpipe` command that has a
 * configuration file. */
int config_read(const char *path, config_report *report, void *user, struct config **out)
{
    struct reader reader = {.file = path};
    struct config *config = calloc(1, sizeof *config);
    if (config == NULL)
        reader.no_memory = true;
    else
        config_defaults(config);
    size_t length = 0;
    char *bytes = config != NULL ? read_file_bytes(&reader, &length) : NULL;
    if (bytes != NULL && find_file_directory(&reader)) {
        config->path = strdup(path);
        reader.no_memory = config->path == NULL;
        reader.budget = BUDGET + 4 * length;
        read_yaml_document(&reader, bytes, length, config);
        bool readable =
            true; /* false after a problem without a key: then there is nothing to apply rules to */
        for (size_t i = 0; i < reader.problem_count; i++)
            readable = readable && reader.problems[i].key[0] != '\0';
        if (readable && !reader.spent && !reader.no_memory)
            fill_default_names(&reader, config);
        if (readable && !reader.spent && !reader.no_memory)
            check_rules(&reader, config);
    }
    free(bytes);
    report_problems(&reader, report, user);
    int code = reader.no_memory ? EP_ENOMEM : reader.problem_count > 0 ? EP_ECONFIG : EP_OK;
    if (config != NULL)
        config->token_variables = reader.variables; /* empty if there are none or no memory */
    free_reader(&reader);
    if (code == EP_OK)
        *out = config;
    else
        config_close(&config);
    return code;
}

/* Loads a file as YAML without interpreting its keys. Returns the root, or NULL after a problem. `eventpipe
 * chaos` uses it to convert its configuration file to JSON. */
const yaml_node_t *config_yaml_load_file(struct reader *reader)
{
    yaml_parser_t parser;
    size_t length = 0;
    bool loaded = false;
    char *bytes = read_file_bytes(reader, &length);
    if (bytes != NULL && find_file_directory(reader) &&
        config_yaml_syntax_check_depth(reader, bytes, length) && yaml_parser_initialize(&parser)) {
        reader->budget = BUDGET + 4 * length;
        yaml_parser_set_input_string(&parser, (const unsigned char *)bytes, length);
        loaded = yaml_parser_load(&parser, &reader->document) != 0;
        yaml_parser_delete(&parser);
    }
    free(bytes);
    return loaded ? yaml_document_get_root_node(&reader->document) : NULL;
}

void config_yaml_unload_file(struct reader *reader, const yaml_node_t *root)
{
    if (root != NULL)
        yaml_document_delete(&reader->document);
    free_reader(reader);
}
