/* SPDX-License-Identifier: MIT */
/* The nearest known name to a misspelt one. Pure. */
#ifndef BASE_SUGGEST_H
#define BASE_SUGGEST_H

/* The nearest of `words` (NULL-ended) to `word`, or NULL when none is near. */
const char *base_suggest_near(const char *word, const char *const *message);

#endif
