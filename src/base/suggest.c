/* SPDX-License-Identifier: MIT */
/*
 * The nearest known word to one that is not known, for "did you mean". Pure; used by the configuration's
 * reader and by the command line. Case and the choice between '-' and '_' count for nothing. A word is near
 * when about a third of it differs at most; failing that, when one of the two begins with the other ("token":
 * "token_file").
 */
#include "src/base/suggest.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define WORD_MAX 64 /* longer ones are no mistyped key */
#define PREFIX_LEAST 4

static char plain(char letter)
{
    return letter == '-' ? '_' : (char)tolower((unsigned char)letter);
}

static size_t least_of(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Letters to insert, drop, change, or swap with their neighbour, to make one word of the other. */
static size_t distance(const char *from, const char *to)
{
    size_t rows[3][WORD_MAX + 1];
    size_t from_length = strlen(from), to_length = strlen(to);
    size_t *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t j = 0; j <= to_length; j++)
        last[j] = j;
    for (size_t i = 1; i <= from_length; i++) {
        now[0] = i;
        for (size_t j = 1; j <= to_length; j++) {
            bool same = plain(from[i - 1]) == plain(to[j - 1]);
            now[j] = least_of(least_of(last[j] + 1, now[j - 1] + 1), last[j - 1] + !same);
            if (i > 1 && j > 1 && plain(from[i - 1]) == plain(to[j - 2]) &&
                plain(from[i - 2]) == plain(to[j - 1]))
                now[j] = least_of(now[j], before[j - 2] + 1);
        }
        size_t *spare = before;
        before = last;
        last = now;
        now = spare;
    }
    return last[to_length];
}

static bool begins_alike(const char *one, const char *other)
{
    size_t length = least_of(strlen(one), strlen(other));
    if (length < PREFIX_LEAST)
        return false;
    for (size_t i = 0; i < length; i++)
        if (plain(one[i]) != plain(other[i]))
            return false;
    return true;
}

const char *base_suggest_near(const char *word, const char *const *words)
{
    size_t length = strlen(word);
    if (length == 0 || length > WORD_MAX)
        return NULL;
    const char *nearest = NULL;
    size_t smallest = SIZE_MAX;
    for (const char *const *at = words; *at != NULL; at++) {
        size_t longer = strlen(*at) > length ? strlen(*at) : length;
        if (longer > WORD_MAX)
            continue;
        size_t differs = distance(word, *at);
        size_t allowed = longer < 3 ? 0 : least_of(3, (longer + 1) / 3);
        if (differs <= allowed && differs < smallest) {
            nearest = *at;
            smallest = differs;
        }
    }
    for (const char *const *at = words; nearest == NULL && *at != NULL; at++)
        if (begins_alike(word, *at))
            nearest = *at;
    return nearest;
}
