/* SPDX-License-Identifier: MIT */
/*
 * A disk that forgets: an SQLite VFS over the default one that notes every write, cut and sync of the store's
 * main file and log, in one order for both. From its notes the files are made again as a power loss at any
 * instant could have left them: all that was synced is there; of what was written since, each write is there,
 * or missing, or torn between two sectors. Runs in one process, for test_power alone.
 */
#ifndef POWER_DISK_H
#define POWER_DISK_H

#include <fcntl.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DISK_SECTOR 512

enum disk_file { DISK_MAIN, DISK_WAL, DISK_FILES };
enum disk_kind { DISK_WRITE, DISK_CUT, DISK_SYNC };

struct disk_note {
    enum disk_file file;
    enum disk_kind kind;
    int64_t offset; /* of a cut: the new length */
    size_t bytes;
    char *data;
};

static struct {
    sqlite3_vfs vfs, *real;
    sqlite3_io_methods methods[DISK_FILES], below[DISK_FILES];
    struct disk_note *notes;
    size_t count, room;
    bool off; /* notes nothing: while a copy is looked at */
} disk;

static inline void disk_note(enum disk_file file, enum disk_kind kind, int64_t offset, const void *data,
                             size_t bytes)
{
    if (disk.off)
        return;
    if (disk.count == disk.room) {
        disk.room = disk.room * 2 + 1024;
        disk.notes = realloc(disk.notes, disk.room * sizeof *disk.notes);
    }
    struct disk_note note = {file, kind, offset, bytes, NULL};
    if (bytes > 0 && (note.data = malloc(bytes)) != NULL)
        memcpy(note.data, data, bytes);
    if (disk.notes == NULL || (bytes > 0 && note.data == NULL)) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    disk.notes[disk.count++] = note;
}

static inline enum disk_file disk_which(const sqlite3_file *file)
{
    return file->pMethods == &disk.methods[DISK_WAL] ? DISK_WAL : DISK_MAIN;
}

static inline int disk_write(sqlite3_file *file, const void *data, int bytes, sqlite3_int64 offset)
{
    disk_note(disk_which(file), DISK_WRITE, offset, data, (size_t)bytes);
    return disk.below[disk_which(file)].xWrite(file, data, bytes, offset);
}

static inline int disk_cut(sqlite3_file *file, sqlite3_int64 length)
{
    disk_note(disk_which(file), DISK_CUT, length, NULL, 0);
    return disk.below[disk_which(file)].xTruncate(file, length);
}

static inline int disk_sync(sqlite3_file *file, int flags)
{
    (void)flags; /* the real one is not needed, and slow */
    disk_note(disk_which(file), DISK_SYNC, 0, NULL, 0);
    return SQLITE_OK;
}

static inline int disk_open(sqlite3_vfs *self, const char *name, sqlite3_file *file, int flags, int *out)
{
    (void)self;
    int result = disk.real->xOpen(disk.real, name, file, flags, out);
    if (result != SQLITE_OK || (flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL)) == 0)
        return result;
    enum disk_file which = (flags & SQLITE_OPEN_WAL) != 0 ? DISK_WAL : DISK_MAIN;
    sqlite3_io_methods *methods = &disk.methods[which];
    disk.below[which] = *file->pMethods;
    *methods = *file->pMethods;
    methods->xWrite = disk_write;
    methods->xTruncate = disk_cut;
    methods->xSync = disk_sync;
    file->pMethods = methods;
    return result;
}

/* A log is taken away only when the last handle is closed. */
static inline int disk_delete(sqlite3_vfs *self, const char *name, int sync)
{
    (void)self;
    size_t length = strlen(name);
    if (length > 4 && strcmp(name + length - 4, "-wal") == 0)
        disk_note(DISK_WAL, DISK_CUT, 0, NULL, 0);
    return disk.real->xDelete(disk.real, name, sync);
}

static inline void disk_begin(void)
{
    disk.real = sqlite3_vfs_find(NULL);
    disk.vfs = *disk.real;
    disk.vfs.zName = "forgets";
    disk.vfs.pNext = NULL;
    disk.vfs.xOpen = disk_open;
    disk.vfs.xDelete = disk_delete;
    if (sqlite3_vfs_register(&disk.vfs, 1) != SQLITE_OK)
        exit(1);
}

static inline void disk_forget(void)
{
    for (size_t i = 0; i < disk.count; i++)
        free(disk.notes[i].data);
    disk.count = 0;
}

/* ---- after a power loss ---- */

enum disk_loss { DISK_ALL, DISK_DROPPED, DISK_PARTLY, DISK_TORN, DISK_LOSSES };

static inline void disk_apply(int fd, const struct disk_note *note, size_t from, size_t to)
{
    bool good = note->kind == DISK_CUT ? ftruncate(fd, note->offset) == 0
                                       : pwrite(fd, note->data + from, to - from,
                                                note->offset + (int64_t)from) == (ssize_t)(to - from);
    if (!good) {
        perror("a file of the copy");
        exit(1);
    }
}

/* One write that was never synced, sector by sector; roll gives dice. */
static inline void disk_apply_unsynced(int fd, const struct disk_note *note, enum disk_loss loss,
                                       unsigned roll(unsigned limit))
{
    if (loss == DISK_DROPPED || (loss != DISK_ALL && roll(2) == 0 && loss == DISK_PARTLY))
        return;
    if (loss != DISK_TORN || note->kind == DISK_CUT) {
        disk_apply(fd, note, 0, note->bytes);
        return;
    }
    for (size_t from = 0; from < note->bytes;) {
        int64_t sector_end = ((note->offset + (int64_t)from) / DISK_SECTOR + 1) * DISK_SECTOR;
        size_t to = (size_t)(sector_end - note->offset);
        if (to > note->bytes)
            to = note->bytes;
        if (roll(2) == 0)
            disk_apply(fd, note, from, to);
        from = to;
    }
}

/* Makes the files at `path` as they could stand after a power loss when `until` notes had been made. */
static inline void disk_make(const char *path, size_t until, enum disk_loss loss,
                             unsigned roll(unsigned limit))
{
    char name[512];
    int fds[DISK_FILES];
    for (int i = 0; i < DISK_FILES; i++) {
        snprintf(name, sizeof name, "%s%s", path, i == DISK_WAL ? "-wal" : "");
        fds[i] = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
    }
    snprintf(name, sizeof name, "%s-shm", path);
    unlink(name);
    size_t last_sync[DISK_FILES] = {0};
    for (size_t i = 0; i < until; i++)
        if (disk.notes[i].kind == DISK_SYNC)
            last_sync[disk.notes[i].file] = i;
    for (size_t i = 0; i < until; i++) {
        const struct disk_note *note = &disk.notes[i];
        if (note->kind == DISK_SYNC)
            continue;
        if (i < last_sync[note->file])
            disk_apply(fds[note->file], note, 0, note->bytes);
        else
            disk_apply_unsynced(fds[note->file], note, loss, roll);
    }
    for (int i = 0; i < DISK_FILES; i++)
        close(fds[i]);
}

#endif
