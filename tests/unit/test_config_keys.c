/* SPDX-License-Identifier: MIT */
/*
 * The manual and the program agree: the keys that eventpipe.yaml(5) documents are those that the reader
 * knows, no more and no fewer, and the manual's examples are valid configurations. Run in the top directory,
 * or with srcdir set to it.
 */
#include "tests/lib/unit.h"

#include <stdio.h>
#include <unistd.h>

#include "src/config/config.h"

#define KEYS_MAX 200

struct keys {
    char *at[KEYS_MAX];
    size_t count;
};

static void keys_add(const char *path, void *user)
{
    struct keys *keys = user;
    for (size_t i = 0; i < keys->count; i++)
        if (strcmp(keys->at[i], path) == 0)
            return;
    CU_ASSERT_FATAL(keys->count < KEYS_MAX);
    keys->at[keys->count++] = strdup(path);
}

static void keys_free(struct keys *keys)
{
    for (size_t i = 0; i < keys->count; i++)
        free(keys->at[i]);
}

static bool keys_contain(const struct keys *keys, const char *path)
{
    for (size_t i = 0; i < keys->count; i++)
        if (strcmp(keys->at[i], path) == 0)
            return true;
    return false;
}

static FILE *open_manual(void)
{
    const char *top = getenv("srcdir");
    char path[4096];
    snprintf(path, sizeof path, "%s/src/man/eventpipe.yaml.5", top != NULL ? top : ".");
    FILE *manual = fopen(path, "r");
    CU_ASSERT_PTR_NOT_NULL_FATAL(manual);
    return manual;
}

/* Keys stand as ".It Cm NAME : ..."; the section says what they are keys of. */
static void read_manual(struct keys *keys)
{
    FILE *manual = open_manual();
    const char *prefix = NULL;
    char line[1000], name[200], path[300];
    while (fgets(line, sizeof line, manual) != NULL) {
        if (strncmp(line, ".Sh ", 4) == 0)
            prefix = strcmp(line, ".Sh TOP LEVEL\n") == 0 ? ""
                     : strcmp(line, ".Sh SOURCES\n") == 0 ? "sources[]."
                     : strcmp(line, ".Sh STAGES\n") == 0  ? "sources[].stages[]."
                                                          : NULL;
        if (prefix != NULL && sscanf(line, ".It Cm %199s :", name) == 1) {
            snprintf(path, sizeof path, "%s%s", prefix, name);
            keys_add(path, keys);
        }
    }
    fclose(manual);
}

static void the_manual_documents_every_key(void)
{
    struct keys known = {.count = 0}, documented = {.count = 0};
    config_call_for_each_key(keys_add, &known);
    read_manual(&documented);
    CU_ASSERT(known.count > 50);
    for (size_t i = 0; i < known.count; i++) {
        if (!keys_contain(&documented, known.at[i]))
            fprintf(stderr, "\nnot in eventpipe.yaml.5: %s\n", known.at[i]);
        CU_ASSERT(keys_contain(&documented, known.at[i]));
    }
    for (size_t i = 0; i < documented.count; i++) {
        if (!keys_contain(&known, documented.at[i]))
            fprintf(stderr, "\nonly in eventpipe.yaml.5: %s\n", documented.at[i]);
        CU_ASSERT(keys_contain(&known, documented.at[i]));
    }
    keys_free(&known);
    keys_free(&documented);
}

static void count_one(const char *path, void *user)
{
    (void)path;
    ++*(size_t *)user;
}

static void each_key_comes_once(void)
{
    struct keys once = {.count = 0};
    size_t calls = 0;
    config_call_for_each_key(keys_add, &once); /* drops repeats */
    config_call_for_each_key(count_one, &calls);
    CU_ASSERT_EQUAL(calls, once.count);
    CU_ASSERT(keys_contain(&once, "sources[].stages[].retry.min"));
    CU_ASSERT(keys_contain(&once, "sources[].cursor.initial"));
    CU_ASSERT(keys_contain(&once, "sources"));
    keys_free(&once);
}

static void show(const struct config_problem *problem, void *user)
{
    (void)user;
    fprintf(stderr, "\n%s:%u: %s: %s\n", problem->file, problem->line, problem->key, problem->message);
}

/* Blocks of the EXAMPLES section, as a reader would copy them from the screen. */
static void the_manuals_examples_are_valid(void)
{
    FILE *manual = open_manual(), *copy = NULL;
    const char *directory = getenv("TMPDIR");
    char line[1000], path[4096];
    snprintf(path, sizeof path, "%s/eventpipe-example-XXXXXX", directory != NULL ? directory : "/tmp");
    bool examples = false;
    int count = 0;
    close(mkstemp(path));
    while (fgets(line, sizeof line, manual) != NULL) {
        if (strncmp(line, ".Sh ", 4) == 0)
            examples = strcmp(line, ".Sh EXAMPLES\n") == 0;
        if (examples && strncmp(line, ".Bd", 3) == 0) {
            copy = fopen(path, "w");
            fputs("instance: example\n", copy);
        } else if (copy != NULL && strncmp(line, ".Ed", 3) == 0) {
            fclose(copy);
            copy = NULL;
            struct config *config = NULL;
            CU_ASSERT_EQUAL(config_read(path, show, NULL, &config), EP_OK);
            config_close(&config);
            count++;
        } else if (copy != NULL && strncmp(line, "instance:", 9) != 0) {
            for (const char *at = line; *at != '\0'; at++)
                if (at[0] == '\\' && at[1] == 'e') {
                    fputc('\\', copy);
                    at++;
                } else {
                    fputc(*at, copy);
                }
        }
    }
    CU_ASSERT_EQUAL(count, 3);
    unlink(path);
    fclose(manual);
}

UNIT_MAIN("config keys", {"the manual documents every key", the_manual_documents_every_key},
          {"each key comes once", each_key_comes_once},
          {"the manual's examples are valid", the_manuals_examples_are_valid})
