/* SPDX-License-Identifier: MIT */
/* A row of the Go eventpipe's table `items` as an event of ours: MessagePack to JSON, marks of stages. Pure.
 */
#ifndef IMPORT_ROW_H
#define IMPORT_ROW_H

#include "src/json/json.h"
#include "src/json/msgpack.h"
#include "src/store/store.h"

struct import_mark {
    const char *stage; /* points into the row's own memory */
    bool done;         /* false: the event waits for it, or was in its hands */
};

/* Of one row at a time; begin with zeros. All that it points to stands until the next import_row_read. */
struct import_row {
    struct store_event event; /* dead with its reason where data or context cannot be read */
    struct json_out context;  /* JSON text; bytes 0 = none yet */
    struct import_mark *marks;
    size_t mark_count;
    char *other_uid; /* the event itself names another uid than the row */

    char *uid, *address, *type;
    struct json_out data, spare, names;
    size_t mark_room;
    struct error error;
};

/* What stands in the row; context.at NULL = it is NULL. 0 or EP_ENOMEM: all else is said in row->event. */
int import_row_read(struct import_row *row, struct json_span id, struct msgpack data, struct msgpack context);
void import_row_free(struct import_row *row);

#endif
