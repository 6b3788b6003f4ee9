/* SPDX-License-Identifier: MIT */
/*
 * Finds the known name that is nearest to a misspelt one, for "did you mean". The reader of the
 * configuration and the command line use it. Pure: any process, any thread.
 *
 * Invariants
 *  1. Upper and lower case are the same, and so are '-' and '_'.
 *  2. A name is near if at most about a third of it differs. If no name is that near, a name is taken
 *     that begins with the other ("token" and "token_file").
 */
#include "src/base/suggest.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define WORD_MAX 64 /* a longer word is not a mistyped key */
#define PREFIX_MIN 4

static char normalize_letter(char letter)
{
    return letter == '-' ? '_' : (char)tolower((unsigned char)letter);
}

static size_t smaller_of(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Returns how many letters must be inserted, removed, changed or swapped with their neighbour to turn one
 * word into the other; both have at most WORD_MAX letters. base_suggest_find_nearest compares a misspelt
 * name with each known one. */
static size_t count_edits(const char *from, const char *to)
{
    size_t rows[3][WORD_MAX + 1];
    size_t from_length = strlen(from), to_length = strlen(to);
    size_t *before_last = rows[0], *last = rows[1], *current = rows[2];
    for (size_t j = 0; j <= to_length; j++)
        last[j] = j;
    for (size_t i = 1; i <= from_length; i++) {
        current[0] = i;
        for (size_t j = 1; j <= to_length; j++) {
            bool is_same = normalize_letter(from[i - 1]) == normalize_letter(to[j - 1]);
            current[j] = smaller_of(smaller_of(last[j] + 1, current[j - 1] + 1), last[j - 1] + !is_same);
            if (i > 1 && j > 1 && normalize_letter(from[i - 1]) == normalize_letter(to[j - 2]) &&
                normalize_letter(from[i - 2]) == normalize_letter(to[j - 1]))
                current[j] = smaller_of(current[j], before_last[j - 2] + 1);
        }
        size_t *reused = before_last;
        before_last = last;
        last = current;
        current = reused;
    }
    return last[to_length];
}

/* Returns whether one name begins with the other ("token" and "token_file"), where case does not matter and
 * '-' is '_'. base_suggest_find_nearest asks it when no known name has a similar spelling. */
static bool is_one_prefix_of_other(const char *one, const char *other)
{
    size_t shorter_length = smaller_of(strlen(one), strlen(other));
    if (shorter_length < PREFIX_MIN)
        return false;
    for (size_t i = 0; i < shorter_length; i++)
        if (normalize_letter(one[i]) != normalize_letter(other[i]))
            return false;
    return true;
}

/* Returns the known name that is nearest to a misspelt one, or NULL if none is near; `known_words` ends
 * with NULL. Messages ask "did you mean" with it: about the configuration file, the command line's options
 * and the names in control requests. */
const char *base_suggest_find_nearest(const char *word, const char *const *known_words)
{
    size_t word_length = strlen(word);
    if (word_length == 0 || word_length > WORD_MAX)
        return NULL;
    const char *nearest = NULL;
    size_t fewest_edits = SIZE_MAX;
    for (const char *const *candidate = known_words; *candidate != NULL; candidate++) {
        size_t longer_length = strlen(*candidate) > word_length ? strlen(*candidate) : word_length;
        if (longer_length > WORD_MAX)
            continue;
        size_t edit_count = count_edits(word, *candidate);
        size_t edits_allowed = longer_length < 3 ? 0 : smaller_of(3, (longer_length + 1) / 3);
        if (edit_count <= edits_allowed && edit_count < fewest_edits) {
            nearest = *candidate;
            fewest_edits = edit_count;
        }
    }
    for (const char *const *candidate = known_words; nearest == NULL && *candidate != NULL; candidate++)
        if (is_one_prefix_of_other(word, *candidate))
            nearest = *candidate;
    return nearest;
}
