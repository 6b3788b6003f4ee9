/* SPDX-License-Identifier: MIT */
/*
 * Inside the configuration's reader. Nobody else includes this.
 *   config_yaml.c          file, document, problems     config_yaml_syntax.c   what is no YAML
 *   config_yaml_schema.c   which keys there are         config_yaml_mapping.c  how a mapping's keys are
 * looked up config_yaml_value.c, config_yaml_list.c             how the value of a key is read
 *   config_yaml_json.c     `options`
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
    size_t order; /* as found; keeps problems of one line in order */
    char *key, *message;
};

/* Where a key stands, so that what config_validate finds gets a line. */
struct reader_mark {
    unsigned line;
    char *key;
};

struct reader {
    const char *file;
    char *directory; /* of the file, absolute: what relative paths begin at */
    yaml_document_t document;
    const yaml_node_t *mapping; /* the one whose keys are being read */
    unsigned line;              /* of the key, or list element, being read */
    char path[256];             /* of the same: "sources[0].stages[1].retry.min" */
    struct reader_problem *problems;
    size_t problem_count, read_count; /* all; those that are the reader's own, not the rules' */
    struct reader_mark *marks;
    size_t mark_count;
    struct strings variables; /* of the environment, that hold tokens */
    char **meant;             /* keys that an unknown key was probably meant to be */
    size_t meant_count;
    uint64_t budget; /* nodes and bytes that may still be visited: aliases can make a small file huge */
    bool spent;      /* the budget is gone; said once */
    bool no_memory;
};

struct schema_key;
/* Reads the value `node` of `key` into `base` (the struct that the key's mapping fills), or reports a
 * problem. */
typedef void schema_read(struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                         void *base);

struct schema_key {
    const char *name;
    schema_read *read;
    size_t offset;                     /* of what it fills, in the mapping's struct */
    unsigned only;                     /* bits of the source types or stage types it is for; 0 = all */
    uint64_t least, most;              /* numbers, sizes, durations in ms */
    const char *const *choices;        /* words, in the order of the enum's values */
    const struct schema_key *children; /* mapping, or list of mappings; ended by a NULL name */
};

/* What type of source or stage the mapping describes, when its keys depend on that. */
struct schema_variant {
    unsigned bit;             /* 0 = not known: keys that depend on it are passed over */
    const char *noun;         /* "type" -> "is not for type file" */
    const char *const *names; /* by bit number */
};

extern const struct schema_key config_yaml_schema_top[];
/* of sources, in the order of enum source_type, NULL-ended */
extern const char *const config_yaml_schema_types[];

/* config_yaml.c */
__attribute__((format(printf, 2, 3))) void config_yaml_problem(struct reader *reader, const char *format,
                                                               ...);
void config_yaml_problem_at(struct reader *reader, unsigned line, const char *key, const char *message);
/* Goes down to a member of what is being read ("key" or "[3]") at a line; returns what config_yaml_leave
 * needs. */
size_t config_yaml_enter(struct reader *reader, const char *name, unsigned line);
/* The same for keys that the rules may speak of: remembers the line. */
size_t config_yaml_enter_marked(struct reader *reader, const char *name, unsigned line);
void config_yaml_leave(struct reader *reader, size_t outer);
/* This key was meant by an unknown one: what the rules say about it is not told as well. */
void config_yaml_meant(struct reader *reader, const char *key);
bool config_yaml_is_meant(const struct reader *reader, const char *key);
/* The root of reader->file as YAML, without a look at what the keys mean; NULL after a problem.
 * config_yaml_unload takes what it returned and frees all that the reader has. */
const yaml_node_t *config_yaml_load(struct reader *reader);
void config_yaml_unload(struct reader *reader, const yaml_node_t *root);
/* Counts a visit to the node; false when so much was visited that only aliases can be the cause. */
bool config_yaml_visit(struct reader *reader, const yaml_node_t *node);
const yaml_node_t *config_yaml_node(struct reader *reader, int number);
unsigned config_yaml_line(const yaml_node_t *node);

/* config_yaml_syntax.c */
void config_yaml_syntax_problem(struct reader *reader, const yaml_parser_t *parser, const char *bytes,
                                size_t length);
bool config_yaml_syntax_check_depth(struct reader *reader, const char *bytes, size_t length);

/* config_yaml_mapping.c */
void config_yaml_mapping_read(struct reader *reader, const struct schema_key *keys,
                              const struct schema_variant *variant, const yaml_node_t *node, void *base);

schema_read config_yaml_mapping;         /* the struct of `children` at the destination */
schema_read config_yaml_mapping_sources; /* struct config */
schema_read config_yaml_mapping_stages;  /* struct source_config */
schema_read config_yaml_mapping_limits;  /* struct stage_config */

/* config_yaml_value.c and config_yaml_list.c: each fits schema_read; the destination's type stands behind it
 */
schema_read config_yaml_value_text;       /* char * */
schema_read config_yaml_value_pointer;    /* char *, may be empty */
schema_read config_yaml_value_path;       /* char *, absolute */
schema_read config_yaml_value_storage;    /* char * */
schema_read config_yaml_value_since;      /* char *, RFC 3339 */
schema_read config_yaml_value_count;      /* uint32_t */
schema_read config_yaml_value_count64;    /* uint64_t */
schema_read config_yaml_value_integer;    /* int64_t */
schema_read config_yaml_value_rate;       /* double */
schema_read config_yaml_value_duration;   /* uint64_t, ms */
schema_read config_yaml_value_seconds;    /* uint64_t, ms; whole seconds */
schema_read config_yaml_value_size;       /* uint64_t, bytes */
schema_read config_yaml_value_mode;       /* uint32_t */
schema_read config_yaml_value_choice;     /* any enum */
schema_read config_yaml_value_severity;   /* enum ep_severity */
schema_read config_yaml_list_program;     /* struct strings */
schema_read config_yaml_list_texts;       /* struct strings */
schema_read config_yaml_list_headers;     /* struct strings, "Name: value" */
schema_read config_yaml_list_environment; /* struct strings, "NAME=value" */
schema_read config_yaml_secret;           /* char *, never shown */
schema_read config_yaml_token_file;       /* char * */
schema_read config_yaml_token_env;        /* char * */

/* Text of a scalar that is not null and holds no NUL; NULL and a problem ("expected WHAT, found ...")
 * otherwise. */
const char *config_yaml_value_scalar(struct reader *reader, const yaml_node_t *node, const char *what);
bool config_yaml_value_is_null(const yaml_node_t *node);
/* The node as text: "a list", "nothing", "\"quick\"" (cut, and without control characters). */
const char *config_yaml_value_found(const yaml_node_t *node, char *buffer, size_t size);
/* The value of a key in the mapping that is being read, or NULL. */
const yaml_node_t *config_yaml_value_beside(struct reader *reader, const char *key);

/* An absolute path, malloc'd, or NULL after a problem. */
char *config_yaml_value_absolute(struct reader *reader, const yaml_node_t *node);

/* config_yaml_json.c */
schema_read config_yaml_json_options; /* char *, JSON text */

#endif
