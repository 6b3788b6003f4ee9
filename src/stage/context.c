/* SPDX-License-Identifier: MIT */
/*
 * Writes a cJSON tree as text without loss. Pure: any process; it owns nothing after a call.
 *
 * Invariants:
 *   1. An object member whose value did not change is written with the bytes it had. So a 64-bit number
 *      survives a stage that changes another member, at any depth of objects.
 *   2. Two numbers are equal only if their doubles are equal to the last bit. A printed number reads back
 *      to the same double.
 *   3. An array is copied whole if it did not change, and printed whole otherwise: its elements have no
 *      names by which to find their old bytes.
 */
#include "src/stage/context.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Context writer: returns whether two cJSON values are equal, numbers to the last bit. cJSON_Compare has a
 * tolerance and would lose a small change. Runs in a worker. */
static bool are_values_equal(const cJSON *a, const cJSON *b)
{
    if ((a->type & 0xff) != (b->type & 0xff))
        return false;
    switch (a->type & 0xff) {
    case cJSON_Number:
        return a->valuedouble == b->valuedouble && signbit(a->valuedouble) == signbit(b->valuedouble);
    case cJSON_String:
    case cJSON_Raw:
        return a->valuestring != NULL && b->valuestring != NULL &&
               strcmp(a->valuestring, b->valuestring) == 0;
    case cJSON_Array:
    case cJSON_Object:
        a = a->child;
        b = b->child;
        for (; a != NULL && b != NULL; a = a->next, b = b->next)
            if ((a->string != NULL && b->string != NULL && strcmp(a->string, b->string) != 0) ||
                !are_values_equal(a, b))
                return false;
        return a == NULL && b == NULL;
    default:
        return true;
    }
}

/* Context writer: writes a number so that it reads back to the same double. Runs in a worker, also with a
 * locale whose decimal sign is a comma. */
static void print_number(struct text *out, double number)
{
    char digits[32];

    if (!isfinite(number)) {
        base_text_append(out, "null");
        return;
    }
    if (number == trunc(number) && fabs(number) < 9e15 && !(number == 0 && signbit(number))) {
        json_write_int(out, (int64_t)number);
        return;
    }
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, number);
        if (strtod(digits, NULL) == number)
            break;
    }
    char *comma = strchr(digits, ','); /* a library caller may have set a locale */
    if (comma != NULL)
        *comma = '.';
    base_text_append(out, digits);
}

/* The members of the old object beside their bytes; cJSON keeps them in the order of the text. */
struct old_members {
    const cJSON *item; /* while collecting: the next one */
    struct old_member {
        const cJSON *item;
        struct json_span raw;
    } * at;
    size_t count, next; /* next: where the search begins, since most trees keep their order */
};

/* Context writer: callback for each member of the old context's text. Pairs its bytes with the parsed
 * value. Runs in a worker. */
static int on_old_member(struct json_span key, struct json_span value, void *user)
{
    struct old_members *old = user;

    (void)key;
    if (old->item == NULL)
        return 1;
    old->at[old->count++] = (struct old_member){old->item, value};
    old->item = old->item->next;
    return 0;
}

/* Context writer: returns the old member of this name, or NULL. Starts after the last one found, because
 * most stages keep the order of members. Runs in a worker. */
static const struct old_member *find_old_member(struct old_members *old, const char *name)
{
    for (size_t i = 0; name != NULL && i < old->count; i++) {
        struct old_member *member = &old->at[(old->next + i) % old->count];
        if (member->item->string != NULL && strcmp(member->item->string, name) == 0) {
            old->next = (size_t)(member - old->at) + 1;
            return member;
        }
    }
    return NULL;
}

static void print_value(struct text *out, const cJSON *item, const cJSON *old, struct json_span raw);

/* Context writer: writes an object; each member that the stage did not change keeps the bytes it had. Runs
 * in a worker after a plugin or function has changed the context. */
static void print_object(struct text *out, const cJSON *object, const cJSON *old, struct json_span raw)
{
    struct old_members members = {0};

    if (old != NULL) {
        members.item = old->child;
        members.at = calloc((size_t)cJSON_GetArraySize(old) + 1, sizeof *members.at);
        if (members.at == NULL) {
            out->failed = true;
            return;
        }
        json_each_member(raw, on_old_member, &members);
    }
    base_text_append(out, "{");
    for (const cJSON *item = object->child; item != NULL; item = item->next) {
        const char *name = item->string != NULL ? item->string : "";
        if (item != object->child)
            base_text_append(out, ",");
        json_write_string(out, name, strlen(name));
        base_text_append(out, ":");
        const struct old_member *found = find_old_member(&members, item->string);
        if (found != NULL)
            print_value(out, item, found->item, found->raw);
        else
            print_value(out, item, NULL, (struct json_span){0});
    }
    base_text_append(out, "}");
    free(members.at);
}

/* Context writer: writes an array of the context that has changed. Its elements have no names by which to
 * find their old bytes, so all are printed. Runs in a worker. */
static void print_array(struct text *out, const cJSON *array)
{
    base_text_append(out, "[");
    for (const cJSON *item = array->child; item != NULL; item = item->next) {
        if (item != array->child)
            base_text_append(out, ",");
        print_value(out, item, NULL, (struct json_span){0});
    }
    base_text_append(out, "]");
}

/* Context writer: writes one value of the context: its old bytes if it did not change, otherwise as new
 * JSON text. Runs in a worker. */
static void print_value(struct text *out, const cJSON *item, const cJSON *old, struct json_span raw)
{
    if (old != NULL && are_values_equal(item, old)) {
        base_text_append_bytes(out, raw.at, raw.bytes);
        return;
    }
    switch (item->type & 0xff) {
    case cJSON_False:
        base_text_append(out, "false");
        break;
    case cJSON_True:
        base_text_append(out, "true");
        break;
    case cJSON_Number:
        print_number(out, item->valuedouble);
        break;
    case cJSON_String:
        json_write_string(out, item->valuestring, strlen(item->valuestring));
        break;
    case cJSON_Raw:
        base_text_append(out, item->valuestring != NULL ? item->valuestring : "null");
        break;
    case cJSON_Array:
        print_array(out, item);
        break;
    case cJSON_Object:
        print_object(out, item, cJSON_IsObject(old) ? old : NULL, raw);
        break;
    default:
        base_text_append(out, "null");
    }
}

/* Context writer: adds a cJSON tree to out as JSON text. A value that is still as in `kept`, the text the
 * tree was parsed from, keeps its bytes, so that a stage does not change 64-bit numbers that it leaves
 * alone. A worker calls it for a plugin's or function's context. */
void stage_context_print(struct text *out, const cJSON *tree, struct json_span kept)
{
    cJSON *old = kept.at != NULL ? cJSON_ParseWithLength(kept.at, kept.bytes) : NULL;

    print_value(out, tree, old, kept);
    cJSON_Delete(old);
}
