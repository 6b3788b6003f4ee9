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

/* Returns whether two values of a stage's context are equal, numbers to the last bit. cJSON_Compare has a
 * tolerance, so a stage's small change to a number would be lost. Runs in a worker. */
static bool are_values_equal(const cJSON *left, const cJSON *right)
{
    if ((left->type & 0xff) != (right->type & 0xff))
        return false;
    switch (left->type & 0xff) {
    case cJSON_Number:
        return left->valuedouble == right->valuedouble &&
               signbit(left->valuedouble) == signbit(right->valuedouble);
    case cJSON_String:
    case cJSON_Raw:
        return left->valuestring != NULL && right->valuestring != NULL &&
               strcmp(left->valuestring, right->valuestring) == 0;
    case cJSON_Array:
    case cJSON_Object:
        left = left->child;
        right = right->child;
        for (; left != NULL && right != NULL; left = left->next, right = right->next)
            if ((left->string != NULL && right->string != NULL && strcmp(left->string, right->string) != 0) ||
                !are_values_equal(left, right))
                return false;
        return left == NULL && right == NULL;
    default:
        return true;
    }
}

/* Writes a number of a stage's context so that it reads back to exactly the same double, with a point
 * even in a locale whose decimal sign is a comma. A number that is not finite becomes null. Runs in a
 * worker. */
static void print_exact_number(struct text *out, double number)
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
    char *decimal_comma = strchr(digits, ','); /* a library caller may have set a locale */
    if (decimal_comma != NULL)
        *decimal_comma = '.';
    base_text_append(out, digits);
}

/* The members of the old object beside their bytes; cJSON keeps them in the order of the text. */
struct old_members {
    const cJSON *next_item; /* while collecting: the member to pair next */
    struct old_member {
        const cJSON *item;
        struct json_span raw;
    } * at;
    size_t count, search_from; /* search_from: where the search begins, since most trees keep their order */
};

/* Callback for each member of the context's text from before the stage ran: pairs the member's bytes with
 * its parsed value. Returns 0, or 1 after the last parsed member, which ends the reading. Runs in a
 * worker. */
static int on_old_member(struct json_span key, struct json_span value, void *user)
{
    struct old_members *old = user;

    (void)key;
    if (old->next_item == NULL)
        return 1;
    old->at[old->count++] = (struct old_member){old->next_item, value};
    old->next_item = old->next_item->next;
    return 0;
}

/* Returns the member of this name that the context had before the stage ran, or NULL. Searches from the
 * last one found, because most stages keep the order of members. Runs in a worker. */
static const struct old_member *find_old_member(struct old_members *old, const char *name)
{
    for (size_t i = 0; name != NULL && i < old->count; i++) {
        struct old_member *member = &old->at[(old->search_from + i) % old->count];
        if (member->item->string != NULL && strcmp(member->item->string, name) == 0) {
            old->search_from = (size_t)(member - old->at) + 1;
            return member;
        }
    }
    return NULL;
}

static void print_value(struct text *out, const cJSON *item, const cJSON *old, struct json_span raw);

/* Writes an object of the context that the stage has changed; each member that the stage did not change
 * keeps the bytes it had. Lack of memory sets out->failed. Runs in a worker whose plugin or function has
 * changed the context. */
static void print_object(struct text *out, const cJSON *object, const cJSON *old, struct json_span raw)
{
    struct old_members members = {0};

    if (old != NULL) {
        members.next_item = old->child;
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
        const struct old_member *old_member = find_old_member(&members, item->string);
        if (old_member != NULL)
            print_value(out, item, old_member->item, old_member->raw);
        else
            print_value(out, item, NULL, (struct json_span){0});
    }
    base_text_append(out, "}");
    free(members.at);
}

/* Writes an array of the context that the stage has changed. Its elements have no names by which to find
 * their old bytes, so all are printed. Runs in a worker. */
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

/* Writes one value of a stage's context: the bytes it had (`raw`) if it is still equal to `old`, otherwise
 * new JSON text. `old` is NULL for a value that the stage added. Runs in a worker. */
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
        print_exact_number(out, item->valuedouble);
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

/* Adds a cJSON tree to out as JSON text. `kept` is the text from which the tree was parsed; a value that
 * is still as it was there keeps its bytes, so that 64-bit numbers that a stage does not change stay
 * exact. Lack of memory sets out->failed. A worker calls it for the context of a plugin or function. */
void stage_context_print(struct text *out, const cJSON *tree, struct json_span kept)
{
    cJSON *old = kept.at != NULL ? cJSON_ParseWithLength(kept.at, kept.bytes) : NULL;

    print_value(out, tree, old, kept);
    cJSON_Delete(old);
}
