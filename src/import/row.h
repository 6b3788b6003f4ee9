/* SPDX-License-Identifier: MIT */
/*
 * Turns a row of the Go eventpipe's table `items` into an event of ours: MessagePack to JSON, and the marks
 * of stages. Pure.
 */
#ifndef IMPORT_ROW_H
#define IMPORT_ROW_H

#include "src/json/json.h"
#include "src/json/msgpack.h"
#include "src/store/store.h"

struct import_mark {
    const char *stage; /* points into the row's own memory */
    bool done;         /* false: the event waits for the stage, or was being processed by it */
};

/* Holds one row; begin with zeros. Everything it points to stands until the next import_row_read. */
struct import_row {
    struct store_event event; /* dead with its reason where data or context cannot be read */
    struct text context;      /* JSON text; bytes 0 = none yet */
    struct import_mark *marks;
    size_t mark_count;
    char *other_uid; /* the uid in the event's data if it is not the row's, else NULL */

    char *uid, *address, *type;
    struct text data, spare_text, mark_names;
    size_t mark_capacity;
    struct error error;
};

/* Fills *row from the columns of a row; context.at NULL = the column is NULL. Returns 0 or EP_ENOMEM. What
 * cannot be read makes the event dead (row->event). */
int import_row_read(struct import_row *row, struct json_span id, struct msgpack data, struct msgpack context);
/* Frees what *row holds. */
void import_row_free(struct import_row *row);

#endif
