/* SPDX-License-Identifier: MIT */
/* Opens the source, fetches from it, and writes the file that it reads. */
#include "tests/lib/file_rig.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

void file_rig_open_source(struct file_rig *rig)
{
    struct error error = {0};

    CU_ASSERT_EQUAL_FATAL(source_file_ops.open(&rig->config, &rig->state, &error), 0);
}

void file_rig_open(struct file_rig *rig)
{
    const char *base = getenv("TMPDIR");

    memset(rig, 0, sizeof *rig);
    snprintf(rig->directory, sizeof rig->directory, "%s/eventpipe-file-XXXXXX", base == NULL ? "/tmp" : base);
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(rig->directory));
    snprintf(rig->path, sizeof rig->path, "%s/app.log", rig->directory);
    rig->config = (struct source_config){.id = "test", .type = SOURCE_FILE};
    rig->config.file.path = rig->path;
    rig->config.file.format = FILE_TEXT;
    source_page_open(&rig->page);
    file_rig_open_source(rig);
}

void file_rig_close(struct file_rig *rig)
{
    char name[600];

    source_file_ops.close(rig->state);
    source_page_clear(&rig->page);
    free(rig->cursor);
    DIR *entries = opendir(rig->directory);
    for (const struct dirent *entry = readdir(entries); entry != NULL; entry = readdir(entries)) {
        snprintf(name, sizeof name, "%s/%s", rig->directory, entry->d_name);
        if (entry->d_name[0] != '.')
            unlink(name);
    }
    closedir(entries);
    rmdir(rig->directory);
}

void file_rig_restart(struct file_rig *rig)
{
    source_file_ops.close(rig->state);
    file_rig_open_source(rig);
}

int file_rig_fetch(struct file_rig *rig, uint32_t limit, uint64_t wait_ms)
{
    struct fetch fetch = {.cursor = rig->cursor, .limit = limit, .wait_ms = wait_ms, .abort = &rig->abort};

    source_page_clear(&rig->page);
    rig->failure = (struct source_failure){0};
    return source_file_ops.fetch(rig->state, &fetch, &rig->page, &rig->failure);
}

void file_rig_store(struct file_rig *rig)
{
    for (size_t i = 0; i < rig->page.count; i++) {
        const char *payload = strstr(rig->page.events[i].data, "\"payload\":");
        size_t room = sizeof rig->seen - strlen(rig->seen);
        snprintf(rig->seen + strlen(rig->seen), room, "%s|", payload == NULL ? "?" : payload + 10);
        char *end = strstr(rig->seen + strlen(rig->seen) - 3, "}|");
        if (end != NULL)
            memcpy(end, "|", 2);
    }
    if (rig->page.cursor != NULL) {
        free(rig->cursor);
        rig->cursor = strdup(rig->page.cursor);
    }
}

int file_rig_drain(struct file_rig *rig)
{
    int code = 0;

    for (int round = 0; round < 1000 && code == 0; round++) {
        code = file_rig_fetch(rig, 3, 0);
        if (code == 0 && rig->page.count == 0 && rig->page.cursor == NULL)
            break;
        if (code == 0)
            file_rig_store(rig);
    }
    return code;
}

void file_rig_expect_seen(struct file_rig *rig, const char *expected)
{
    CU_ASSERT_STRING_EQUAL(rig->seen, expected);
    if (strcmp(rig->seen, expected) != 0)
        printf("\n    seen: %s\n    not:  %s\n", rig->seen, expected);
    rig->seen[0] = '\0';
}

void file_rig_put(const char *path, int flags, const char *text, size_t bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);

    CU_ASSERT_FATAL(fd >= 0);
    CU_ASSERT_FATAL(write(fd, text, bytes) == (ssize_t)bytes);
    close(fd);
}

void file_rig_add(const struct file_rig *rig, const char *text)
{
    file_rig_put(rig->path, O_APPEND, text, strlen(text));
}

const char *file_rig_beside(const struct file_rig *rig, const char *suffix)
{
    static char name[400];

    snprintf(name, sizeof name, "%s%s", rig->path, suffix);
    return name;
}

void file_rig_written_at(const char *path, time_t seconds)
{
    struct timespec times[2] = {{seconds, 0}, {seconds, 0}};

    CU_ASSERT_EQUAL(utimensat(AT_FDCWD, path, times, 0), 0);
}
