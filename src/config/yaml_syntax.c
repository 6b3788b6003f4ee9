/* SPDX-License-Identifier: MIT */
/*
 * Explains what is not YAML, or is nested too deeply, in a message that an operator can act on:
 * libyaml's own message, the line, and the usual cause. Runs in the supervisor before it forks, and in
 * `eventpipe` commands.
 */
#include <stdio.h>
#include <string.h>

#include "src/config/yaml.h"

#define DEPTH_MAX 100

/* In the supervisor or `eventpipe`: returns the first character of a line of the configuration file that is
 * not a space, and sets *line_bytes to the rest of the line. Lines count from 1. The hints about syntax
 * errors look at it. */
static const char *find_line_text(const char *file_text, size_t file_bytes, unsigned line_number,
                                  size_t *line_bytes)
{
    size_t offset = 0, line_end;
    for (unsigned current_line = 1; current_line < line_number && offset < file_bytes; offset++)
        current_line += file_text[offset] == '\n';
    while (offset < file_bytes && file_text[offset] == ' ')
        offset++;
    for (line_end = offset; line_end < file_bytes && file_text[line_end] != '\n'; line_end++)
        ;
    *line_bytes = line_end - offset;
    return file_text + offset;
}

/* In the supervisor or `eventpipe`: returns the usual cause of libyaml's `problem` in this line of the
 * configuration file, as the end of a message, or "" if none is known. libyaml's own message rarely tells
 * an operator what to change. */
static const char *find_syntax_hint(const char *file_text, size_t file_bytes, unsigned line,
                                    const char *problem)
{
    size_t line_bytes;
    const char *line_text = find_line_text(file_text, file_bytes, line, &line_bytes);
    if (line_bytes > 0 && *line_text == '\t')
        return "; this line begins with a tab: YAML is indented with spaces only";
    if (memmem(line_text, line_bytes, "memory:", 7) != NULL)
        return "; write \"memory:\" in quotes, since a plain text cannot end in ':'";
    if (strstr(problem, "mapping values are not allowed") != NULL)
        return "; put a text that contains \": \" or ends in ':' in quotes, and all keys of one mapping in "
               "one "
               "column";
    if (strstr(problem, "did not find expected key") != NULL)
        return "; put all keys of one mapping in one column";
    if (strstr(problem, "cannot start any token") != NULL)
        return "; put a text that begins with @, `, % or a tab in quotes";
    return "";
}

/* Reports where the configuration file is not YAML, with libyaml's message and the usual cause. The
 * supervisor and `eventpipe` call it when libyaml cannot parse the file. */
void config_yaml_syntax_report_problem(struct reader *reader, const yaml_parser_t *parser,
                                       const char *file_text, size_t file_bytes)
{
    char message[1024], context[256] = "";
    unsigned line = (unsigned)parser->problem_mark.line + 1;
    const char *problem = parser->problem != NULL ? parser->problem : "no reason given";
    if (parser->error == YAML_MEMORY_ERROR) {
        reader->no_memory = true;
        return;
    }
    if (parser->error == YAML_READER_ERROR) {
        line = 1;
        for (size_t i = 0; i < parser->problem_offset && i < file_bytes; i++)
            line += file_text[i] == '\n';
        if (parser->problem_value != -1)
            snprintf(context, sizeof context, " (value 0x%02x)", (unsigned)parser->problem_value);
        snprintf(message, sizeof message, "expected YAML in UTF-8, found at byte %zu: %s%s",
                 parser->problem_offset + 1, problem, context);
    } else {
        if (parser->context != NULL && parser->context_mark.line + 1 < line)
            snprintf(context, sizeof context, " %s that begins in line %zu", parser->context,
                     parser->context_mark.line + 1);
        snprintf(message, sizeof message, "not valid YAML at column %zu: %s%s%s",
                 parser->problem_mark.column + 1, problem, context,
                 find_syntax_hint(file_text, file_bytes, line, problem));
    }
    config_yaml_report_problem_at(reader, line, "", message);
}

/* Parses the configuration file once without storing anything, and reports a syntax error or lists nested
 * more than 100 deep. Returns false after such a problem. The supervisor and `eventpipe` call it before
 * they load the file, since libyaml's time for loading grows with the square of the depth. */
bool config_yaml_syntax_check_file(struct reader *reader, const char *file_text, size_t file_bytes)
{
    yaml_parser_t parser;
    yaml_event_t event;
    yaml_event_type_t type = YAML_NO_EVENT;
    unsigned depth = 0;
    if (!yaml_parser_initialize(&parser)) {
        reader->no_memory = true;
        return false;
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)file_text, file_bytes);
    while (type != YAML_STREAM_END_EVENT && depth <= DEPTH_MAX) {
        if (!yaml_parser_parse(&parser, &event)) {
            config_yaml_syntax_report_problem(reader, &parser, file_text, file_bytes);
            break;
        }
        type = event.type;
        if (type == YAML_SEQUENCE_START_EVENT || type == YAML_MAPPING_START_EVENT)
            depth++;
        if (type == YAML_SEQUENCE_END_EVENT || type == YAML_MAPPING_END_EVENT)
            depth--;
        if (depth > DEPTH_MAX)
            config_yaml_report_problem_at(
                reader, (unsigned)event.start_mark.line + 1, "",
                "lists and mappings are nested too deeply here, expected at most 100 levels");
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return type == YAML_STREAM_END_EVENT;
}
