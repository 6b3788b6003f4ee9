/* SPDX-License-Identifier: MIT */
/* Finds the known name that is nearest to a misspelt one. Pure. */
#ifndef BASE_SUGGEST_H
#define BASE_SUGGEST_H

/* Returns the nearest of words (ended by NULL) to word, or NULL if none is near. */
const char *base_suggest_find_nearest(const char *word, const char *const *known_words);

#endif
