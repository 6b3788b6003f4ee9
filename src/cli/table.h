/* SPDX-License-Identifier: MIT */
/* Aligned columns for a terminal: collects the cells of all rows, makes each column as wide as its
 * widest cell, and cuts text that does not fit. */
#ifndef CLI_TABLE_H
#define CLI_TABLE_H

#include <stdbool.h>
#include <stddef.h>

#include "src/json/json.h"

#define TABLE_COLUMNS_MAX 16

struct table_column {
    const char *heading;
    bool is_right_aligned; /* numbers stand to the right */
    bool is_elastic; /* is cut when the line is too long, the widest first, but not below its heading or 8 */
    bool is_droppable; /* is left out when cutting is not enough; the first of them first */
};

struct table {
    const struct table_column *columns;
    size_t column_count;
    char **cells;         /* row by row */
    const char **colours; /* per cell, NULL = none */
    size_t cell_count, capacity;
    size_t widths[TABLE_COLUMNS_MAX]; /* at least; grows with what is printed, so that blocks of one list line
                                         up */
    size_t gap;                       /* blanks between columns */
    bool failed;
};
void cli_table_open(struct table *table, const struct table_column *columns, size_t count);
/* The next cell of the row; control characters become '?'. colour: an escape sequence, or NULL. */
void cli_table_add_cell(struct table *table, const char *text, const char *colour);
/* Prints the rows collected and forgets them. width: of the terminal, 0 = nothing is cut. indent: blanks
 * before each line. */
void cli_table_print(struct table *table, struct text *out, size_t width, size_t indent, bool has_headings);
void cli_table_close(struct table *table);

/* How many columns a text takes: its characters, each counted as one. */
size_t cli_table_measure_text(const char *text);
/* Appends text with control characters replaced by '?', cut to `width` columns (0 = whole) with "…" at its
 * end. */
void cli_table_write_text(struct text *out, const char *text, size_t width);

#endif
