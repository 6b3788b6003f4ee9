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
#define ELASTIC_LEAST 8

size_t cli_table_text_width(const char *text)
{
    size_t width = 0;
    const char *end = text + strlen(text);
    while (text < end) {
        size_t length = base_utf8_length(text, end);
        text += length > 0 ? length : 1;
        width++;
    }
    return width;
}

void cli_table_text_out(struct json_out *out, const char *text, size_t width)
{
    const char *end = text + strlen(text);
    bool cut = width > 0 && cli_table_text_width(text) > width;
    for (size_t at = 0; text < end && (!cut || at + 1 < width); at++) {
        size_t length = base_utf8_length(text, end);
        if (length == 0 || base_utf8_is_control(text, length))
            json_write_text(out, "?");
        else
            json_write_raw(out, text, length);
        text += length > 0 ? length : 1;
    }
    if (cut)
        json_write_text(out, "…");
}

void cli_table_open(struct table *table, const struct table_column *columns, size_t count)
{
    *table = (struct table){.columns = columns, .column_count = count, .gap = GAP};
    for (size_t i = 0; i < count; i++)
        table->widths[i] = cli_table_text_width(columns[i].heading);
}

void cli_table_cell(struct table *table, const char *text, const char *colour)
{
    if (table->cell_count == table->room) {
        size_t room = table->room == 0 ? 64 : 2 * table->room;
        char **cells = reallocarray(table->cells, room, sizeof *cells);
        if (cells != NULL)
            table->cells = cells;
        const char **colours = reallocarray(table->colours, room, sizeof *colours);
        if (colours != NULL)
            table->colours = colours;
        if (cells == NULL || colours == NULL) {
            table->failed = true;
            return;
        }
        table->room = room;
    }
    char *copy = strdup(text != NULL ? text : "");
    if (copy == NULL) {
        table->failed = true;
        return;
    }
    table->cells[table->cell_count] = copy;
    table->colours[table->cell_count++] = colour;
}

static size_t total_width(const struct table *table, const size_t *widths)
{
    size_t total = 0, shown = 0;
    for (size_t i = 0; i < table->column_count; i++) {
        total += widths[i];
        shown += widths[i] > 0;
    }
    return shown == 0 ? 0 : total + (shown - 1) * table->gap;
}

/* Takes one column off the widest elastic one; false when none can give any more. */
static bool shrink(const struct table *table, size_t *widths)
{
    size_t widest = table->column_count;
    for (size_t i = 0; i < table->column_count; i++) {
        size_t least = cli_table_text_width(table->columns[i].heading);
        least = least > ELASTIC_LEAST ? least : ELASTIC_LEAST;
        if (table->columns[i].elastic && widths[i] > least &&
            (widest == table->column_count || widths[i] > widths[widest]))
            widest = i;
    }
    if (widest == table->column_count)
        return false;
    widths[widest]--;
    return true;
}

/* Leaves out the first column that may be; false when there is none. */
static bool drop(const struct table *table, size_t *widths)
{
    for (size_t i = 0; i < table->column_count; i++)
        if (table->columns[i].droppable && widths[i] > 0) {
            widths[i] = 0;
            return true;
        }
    return false;
}

static void fit(struct table *table, size_t *widths, size_t width)
{
    for (size_t i = 0; i < table->cell_count; i++) {
        size_t cell = cli_table_text_width(table->cells[i]), *most = &table->widths[i % table->column_count];
        *most = cell > *most ? cell : *most;
    }
    memcpy(widths, table->widths, table->column_count * sizeof *widths);
    table->gap = GAP;
    while (width > 0 && total_width(table, widths) > width) {
        if (shrink(table, widths))
            continue;
        if (table->gap > 1)
            table->gap--;
        else if (!drop(table, widths))
            break;
    }
}

static void blanks(struct json_out *out, size_t count)
{
    while (count-- > 0)
        json_write_text(out, " ");
}

/* One line; blanks are written only before a cell, so that no line ends in them. */
static void print_row(const struct table *table, char *const *cells, const char *const *colours,
                      const size_t *widths, struct json_out *out, size_t indent)
{
    size_t pending = indent;
    bool first = true;
    for (size_t i = 0; i < table->column_count; i++) {
        if (widths[i] == 0)
            continue;
        const char *text = cells != NULL ? cells[i] : table->columns[i].heading;
        const char *colour = colours != NULL && cells != NULL ? colours[i] : NULL;
        size_t width = cli_table_text_width(text) < widths[i] ? cli_table_text_width(text) : widths[i];
        pending += (first ? 0 : table->gap) + (table->columns[i].right ? widths[i] - width : 0);
        first = false;
        if (width > 0) {
            blanks(out, pending);
            pending = 0;
            json_write_text(out, colour != NULL ? colour : "");
            cli_table_text_out(out, text, widths[i]);
            json_write_text(out, colour != NULL ? "\033[0m" : "");
        }
        pending += table->columns[i].right ? 0 : widths[i] - width;
    }
    json_write_text(out, "\n");
}

static void forget(struct table *table)
{
    for (size_t i = 0; i < table->cell_count; i++)
        free(table->cells[i]);
    table->cell_count = 0;
}

void cli_table_print(struct table *table, struct json_out *out, size_t width, size_t indent, bool headings)
{
    size_t widths[TABLE_COLUMNS_MAX];
    fit(table, widths, width > indent ? width - indent : width);
    if (headings)
        print_row(table, NULL, NULL, widths, out, indent);
    for (size_t i = 0; i + table->column_count <= table->cell_count; i += table->column_count)
        print_row(table, table->cells + i, table->colours + i, widths, out, indent);
    out->failed = out->failed || table->failed;
    forget(table);
}

void cli_table_close(struct table *table)
{
    forget(table);
    free(table->cells);
    free(table->colours);
    *table = (struct table){0};
}
