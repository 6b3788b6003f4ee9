/* SPDX-License-Identifier: MIT */
/*
 * Inside the configuration's reader. Only the files of the reader include this:
 *   yaml.c            the file, the document, config_validate
 *   yaml_reader.c     the problems found, the key being read, the budget
 *   yaml_syntax.c     explains what is not YAML
 *   yaml_schema.c     the table of keys
 *   yaml_mapping.c    looks up a mapping's keys
 *   yaml_value.c      reads the value of a key
 *   yaml_list.c       reads values of several texts, and secrets
 *   yaml_json.c       converts YAML to JSON
 */
#ifndef CONFIG_YAML_H
#define CONFIG_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <yaml.h>

#include "src/config/config.h"

#define READER_DEPTH_MAX 64
#define READER_PROBLEMS_MAX 1000
#define SCHEMA_PAIRS_MAX 1000 /* keys in one mapping, variables in one environment... */

struct reader_problem {
    unsigned line;
    size_t discovery_order; /* keeps problems of one line in order */
    char *key, *message;
};

/* The line of a key, for the problems that config_validate finds. */
struct reader_mark {
    unsigned line;
    char *key;
};

struct reader {
    const char *file;
    char *directory; /* of the file, absolute; relative paths begin there */
    yaml_document_t document;
    const yaml_node_t *current_mapping; /* the one whose keys are being read */
    unsigned line;                      /* of the key, or list element, being read */
    char key_path[256];                 /* of the same: "sources[0].stages[1].retry.min" */
    struct reader_problem *problems;
    size_t problem_count,
        problem_count_before_check; /* all problems; those found before config_validate ran */
    struct reader_mark *marks;
    size_t mark_count;
    struct strings token_variables; /* of the environment, that hold tokens */
    char **meant_keys;              /* keys that an unknown key was probably meant to be */
    size_t meant_count;
    uint64_t visit_budget; /* nodes and bytes that may still be visited, since aliases can make a small
                              file huge */
    bool budget_exhausted; /* the budget is used up, and that is reported */
    bool no_memory;
};

struct schema_key;
/* Reads the value `node` of `key` into `base`, the struct that the key's mapping fills, or reports a
 * problem. */
typedef void schema_read(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                         void *base);

struct schema_key {
    const char *name;
    schema_read *read;
    size_t offset;                     /* of what it fills, in the mapping's struct */
    unsigned variant_bits;             /* bits of the source types or stage types it is for; 0 = all */
    uint64_t min, max;                 /* numbers, sizes, durations in ms */
    const char *const *choices;        /* in the order of the enum's values */
    const struct schema_key *children; /* mapping, or list of mappings; ended by a NULL name */
};

/* The type of source or stage that a mapping describes, if its keys depend on that. */
struct schema_variant {
    unsigned bit;             /* 0 = unknown: keys that depend on it are skipped */
    const char *noun;         /* "type" -> "is not for type file" */
    const char *const *names; /* by bit number */
};

extern const struct schema_key config_yaml_schema_top[];
/* of sources, in the order of enum source_type, NULL-ended */
extern const char *const config_yaml_schema_types[];

/* yaml.c */
/* Loads reader->file as YAML without interpreting its keys, and returns the root; NULL after a problem.
 * config_yaml_unload_file takes that root and frees everything that the reader has. */
const yaml_node_t *config_yaml_load_file(struct reader *reader);
void config_yaml_unload_file(struct reader *reader, const yaml_node_t *root);

/* yaml_reader.c */
__attribute__((format(printf, 2, 3))) void config_yaml_report_problem(struct reader *reader,
                                                                      const char *format, ...);
void config_yaml_report_problem_at(struct reader *reader, unsigned line, const char *key,
                                   const char *message);
/* Enters a member ("key" or "[3]") of what is being read. Returns what config_yaml_leave_key needs. */
size_t config_yaml_enter_key(struct reader *reader, const char *name, unsigned line);
/* The same for keys that config_validate may report: remembers the line. */
size_t config_yaml_enter_marked_key(struct reader *reader, const char *name, unsigned line);
void config_yaml_leave_key(struct reader *reader, size_t outer_length);
/* Notes that an unknown key probably meant this one, so that config_validate does not report it. */
void config_yaml_note_meant_key(struct reader *reader, const char *key);
/* Whether a key, such as sources[0].retry.min, is outer_key or lies within it. */
bool config_yaml_is_key_within(const char *key, const char *outer_key);
bool config_yaml_is_meant_key(const struct reader *reader, const char *key);
/* Charges a visit of the node to the budget; false if it is used up, which only aliases can cause. */
bool config_yaml_charge_visit(struct reader *reader, const yaml_node_t *node);
const yaml_node_t *config_yaml_get_node(struct reader *reader, int node_number);
unsigned config_yaml_get_line(const yaml_node_t *node);

/* yaml_syntax.c */
void config_yaml_syntax_report_problem(struct reader *reader, const yaml_parser_t *parser,
                                       const char *file_text, size_t file_bytes);
bool config_yaml_syntax_check_file(struct reader *reader, const char *file_text, size_t file_bytes);

/* yaml_mapping.c */
void config_yaml_mapping_read_keys(struct reader *reader, const struct schema_key *keys,
                                   const struct schema_variant *variant, const yaml_node_t *node, void *base);

schema_read config_yaml_mapping_read_children; /* the struct of `children` at the destination */
schema_read config_yaml_mapping_read_sources;  /* struct config */
schema_read config_yaml_mapping_read_stages;   /* struct source_config */
schema_read config_yaml_mapping_read_limits;   /* struct stage_config */

/* yaml_value.c and yaml_list.c: each fits schema_read; the comment names the destination's type */
schema_read config_yaml_value_read_text;       /* char * */
schema_read config_yaml_value_read_pointer;    /* char *, may be empty */
schema_read config_yaml_value_read_path;       /* char *, absolute */
schema_read config_yaml_value_read_storage;    /* char * */
schema_read config_yaml_value_read_since;      /* char *, RFC 3339 */
schema_read config_yaml_value_read_count;      /* uint32_t */
schema_read config_yaml_value_read_count64;    /* uint64_t */
schema_read config_yaml_value_read_integer;    /* int64_t */
schema_read config_yaml_value_read_rate;       /* double */
schema_read config_yaml_value_read_duration;   /* uint64_t, ms */
schema_read config_yaml_value_read_seconds;    /* uint64_t, ms; whole seconds */
schema_read config_yaml_value_read_size;       /* uint64_t, bytes */
schema_read config_yaml_value_read_mode;       /* uint32_t */
schema_read config_yaml_value_read_choice;     /* any enum */
schema_read config_yaml_value_read_severity;   /* enum ep_severity */
schema_read config_yaml_list_read_program;     /* struct strings */
schema_read config_yaml_list_read_texts;       /* struct strings */
schema_read config_yaml_list_read_headers;     /* struct strings, "Name: value" */
schema_read config_yaml_list_read_environment; /* struct strings, "NAME=value" */
schema_read config_yaml_list_read_secret;      /* char *, never shown */
schema_read config_yaml_list_read_token_file;  /* char * */
schema_read config_yaml_list_read_token_env;   /* char * */

/* Returns the text of a scalar that is not null and contains no NUL; otherwise NULL, after a problem
 * (for example "expected a path, found a list"). */
const char *config_yaml_value_read_scalar(struct reader *reader, const yaml_node_t *node,
                                          const char *expected);
bool config_yaml_value_is_null(const yaml_node_t *node);
/* Describes the node for a message: "a list", "nothing", "\"quick\"" (cut, and without control
 * characters). */
const char *config_yaml_value_describe(const yaml_node_t *node, char *buffer, size_t buffer_bytes);
/* Returns the value of another key in the mapping that is being read, or NULL. */
const yaml_node_t *config_yaml_value_find_sibling(struct reader *reader, const char *key);

/* Returns an absolute path, allocated, or NULL after a problem. */
char *config_yaml_value_read_absolute_path(struct reader *reader, const yaml_node_t *node);

/* yaml_json.c */
schema_read config_yaml_json_read_any_value; /* char *, JSON text */

#endif
