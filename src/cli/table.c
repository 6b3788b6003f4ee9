/* SPDX-License-Identifier: MIT */
/*
 * Tables for a terminal. Runs in the command line. Cells hold text from outside: none of its control
 * characters reaches the terminal, and no byte that is not UTF-8.
 */
#include "src/cli/table.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/utf8.h"

#define GAP 2
#define ELASTIC_MIN_WIDTH 8

/* Returns how many columns a text takes on the terminal: each UTF-8 character counts as one, and so does an
 * invalid byte. `eventpipe` aligns its tables with it. */
size_t cli_table_measure_text(const char *text)
{
    size_t width = 0;
    const char *position = text, *text_end = text + strlen(text);
    while (position < text_end) {
        size_t character_bytes = base_utf8_length(position, text_end);
        position += character_bytes > 0 ? character_bytes : 1;
        width++;
    }
    return width;
}

/* Appends text from outside (UIDs, errors, JSON) to the output of `eventpipe`, cut to `width` columns (0 =
 * not cut) with "…" at its end. Control characters and invalid UTF-8 become '?', because they must never
 * reach the terminal. */
void cli_table_write_text(struct text *out, const char *text, size_t width)
{
    const char *position = text, *text_end = text + strlen(text);
    bool is_cut = width > 0 && cli_table_measure_text(text) > width;
    for (size_t column = 0; position < text_end && (!is_cut || column + 1 < width); column++) {
        size_t character_bytes = base_utf8_length(position, text_end);
        if (character_bytes == 0 || base_utf8_is_control(position, character_bytes))
            base_text_append(out, "?");
        else
            base_text_append_bytes(out, position, character_bytes);
        position += character_bytes > 0 ? character_bytes : 1;
    }
    if (is_cut)
        base_text_append(out, "…");
}

/* Begins a table with these columns, which must outlive it. Every command of `eventpipe` that prints a
 * table calls it; cli_table_close frees the table. */
void cli_table_open(struct table *table, const struct table_column *columns, size_t count)
{
    *table = (struct table){.columns = columns, .column_count = count, .gap = GAP};
    for (size_t i = 0; i < count; i++)
        table->widths[i] = cli_table_measure_text(columns[i].heading);
}

/* Adds the next cell to a table that `eventpipe` prints (status, queue, crashes, trace), with a copy of the
 * text. `colour` is an escape sequence or NULL. If memory runs out, table->failed is set, and
 * cli_table_print reports it. */
void cli_table_add_cell(struct table *table, const char *text, const char *colour)
{
    if (table->cell_count == table->capacity) {
        size_t capacity = table->capacity == 0 ? 64 : 2 * table->capacity;
        char **cells = reallocarray(table->cells, capacity, sizeof *cells);
        if (cells != NULL)
            table->cells = cells;
        const char **colours = reallocarray(table->colours, capacity, sizeof *colours);
        if (colours != NULL)
            table->colours = colours;
        if (cells == NULL || colours == NULL) {
            table->failed = true;
            return;
        }
        table->capacity = capacity;
    }
    char *text_copy = strdup(text != NULL ? text : "");
    if (text_copy == NULL) {
        table->failed = true;
        return;
    }
    table->cells[table->cell_count] = text_copy;
    table->colours[table->cell_count++] = colour;
}

/* Returns the width in columns of a row of a table of `eventpipe`, with the gaps between its columns.
 * Columns of width 0 are left out. */
static size_t compute_row_width(const struct table *table, const size_t *widths)
{
    size_t total_width = 0, shown_column_count = 0;
    for (size_t i = 0; i < table->column_count; i++) {
        total_width += widths[i];
        shown_column_count += widths[i] > 0;
    }
    return shown_column_count == 0 ? 0 : total_width + (shown_column_count - 1) * table->gap;
}

/* Makes a table of `eventpipe` one column narrower: shortens the widest column that may be cut. Returns
 * false if none can be cut any further. */
static bool shrink_widest_column(const struct table *table, size_t *widths)
{
    size_t widest_index = table->column_count;
    for (size_t i = 0; i < table->column_count; i++) {
        size_t min_width = cli_table_measure_text(table->columns[i].heading);
        min_width = min_width > ELASTIC_MIN_WIDTH ? min_width : ELASTIC_MIN_WIDTH;
        if (table->columns[i].is_elastic && widths[i] > min_width &&
            (widest_index == table->column_count || widths[i] > widths[widest_index]))
            widest_index = i;
    }
    if (widest_index == table->column_count)
        return false;
    widths[widest_index]--;
    return true;
}

/* Makes a table of `eventpipe` narrower by leaving out the first column that may be left out: its width
 * becomes 0. Returns false if there is none. */
static bool drop_first_droppable_column(const struct table *table, size_t *widths)
{
    for (size_t i = 0; i < table->column_count; i++)
        if (table->columns[i].is_droppable && widths[i] > 0) {
            widths[i] = 0;
            return true;
        }
    return false;
}

/* Chooses the column widths of a table of `eventpipe`, so that its rows fit into `width` columns (0 = no
 * limit): cuts columns, then narrows the gaps, then leaves columns out. A table may still be too wide
 * afterwards. */
static void fit_columns(struct table *table, size_t *widths, size_t width)
{
    for (size_t i = 0; i < table->cell_count; i++) {
        size_t cell_width = cli_table_measure_text(table->cells[i]),
               *column_width = &table->widths[i % table->column_count];
        *column_width = cell_width > *column_width ? cell_width : *column_width;
    }
    memcpy(widths, table->widths, table->column_count * sizeof *widths);
    table->gap = GAP;
    while (width > 0 && compute_row_width(table, widths) > width) {
        if (shrink_widest_column(table, widths))
            continue;
        if (table->gap > 1)
            table->gap--;
        else if (!drop_first_droppable_column(table, widths))
            break;
    }
}

static void write_blanks(struct text *out, size_t blank_count)
{
    while (blank_count-- > 0)
        base_text_append(out, " ");
}

/* Prints one row of a table of `eventpipe`, or the headings if `cells` is NULL. Blanks are written only
 * before a cell, so that no line ends in blanks. */
static void print_row(const struct table *table, char *const *cells, const char *const *colours,
                      const size_t *widths, struct text *out, size_t indent)
{
    size_t pending_blank_count = indent;
    bool is_first_cell = true;
    for (size_t i = 0; i < table->column_count; i++) {
        if (widths[i] == 0)
            continue;
        const char *text = cells != NULL ? cells[i] : table->columns[i].heading;
        const char *colour = colours != NULL && cells != NULL ? colours[i] : NULL;
        size_t width = cli_table_measure_text(text) < widths[i] ? cli_table_measure_text(text) : widths[i];
        pending_blank_count +=
            (is_first_cell ? 0 : table->gap) + (table->columns[i].is_right_aligned ? widths[i] - width : 0);
        is_first_cell = false;
        if (width > 0) {
            write_blanks(out, pending_blank_count);
            pending_blank_count = 0;
            base_text_append(out, colour != NULL ? colour : "");
            cli_table_write_text(out, text, widths[i]);
            base_text_append(out, colour != NULL ? "\033[0m" : "");
        }
        pending_blank_count += table->columns[i].is_right_aligned ? 0 : widths[i] - width;
    }
    base_text_append(out, "\n");
}

static void free_cells(struct table *table)
{
    for (size_t i = 0; i < table->cell_count; i++)
        free(table->cells[i]);
    table->cell_count = 0;
}

/* Prints the rows that a command of `eventpipe` has collected in the table, and removes them from it.
 * Columns never become narrower from one call to the next, so that the blocks of one long list line up. */
void cli_table_print(struct table *table, struct text *out, size_t width, size_t indent, bool has_headings)
{
    size_t widths[TABLE_COLUMNS_MAX];
    fit_columns(table, widths, width > indent ? width - indent : width);
    if (has_headings)
        print_row(table, NULL, NULL, widths, out, indent);
    for (size_t i = 0; i + table->column_count <= table->cell_count; i += table->column_count)
        print_row(table, table->cells + i, table->colours + i, widths, out, indent);
    out->failed = out->failed || table->failed;
    free_cells(table);
}

/* Frees the cells and colours of a table of `eventpipe`, and sets the table to zeros. */
void cli_table_close(struct table *table)
{
    free_cells(table);
    free(table->cells);
    free(table->colours);
    *table = (struct table){0};
}
