/* SPDX-License-Identifier: MIT */
/* The import's file is left alone: what a crash left beside it is taken in, who runs on it is found, and
 * neither it nor its directory is written to. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/import_rig.h"

static struct error error;

/* Rows that are found, or the negative code. */
static int count_rows(void)
{
    struct import_go *go = NULL;
    struct import_row row = {0};
    bool locked;
    int count = 0;
    error = (struct error){0};
    int code = import_go_open(import_rig.path, NULL, NULL, &go, &error);
    if (code == 0)
        code = import_go_select_source(go, "s", &error);
    while (code == 0 && (code = import_go_read_row(go, &row, &locked, &error)) == 1) {
        count++;
        code = 0;
        if (row.event.dead != STORE_REASON_NONE)
            code = EP_EPROTO;
    }
    if (code != 0)
        fprintf(stderr, "(%s)\n", error.message);
    import_row_free(&row);
    import_go_close(&go);
    CU_ASSERT_EQUAL(import_rig_entries(import_rig.temporary), 0);
    return code < 0 ? code : count;
}

/* ---- a writer that crashes ---- */

static void add_rows(sqlite3 *db, int from, int count)
{
    for (int i = from; i < from + count; i++) {
        char id[16];
        snprintf(id, sizeof id, "%d", i);
        import_rig_row(db, "s", id, i, i % 2 == 0, "a+ b-");
    }
}

/* Ends without a word to SQLite, as after kill -9. */
static void crash_writing(void write_rows(sqlite3 *db))
{
    pid_t child = fork();
    if (child == 0) {
        write_rows(import_rig_open());
        raise(SIGKILL);
    }
    int status;
    CU_ASSERT_EQUAL(waitpid(child, &status, 0), child);
    CU_ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void leave_a_wal(sqlite3 *db)
{
    import_rig_run(db, "PRAGMA journal_mode = WAL");
    sqlite3_wal_autocheckpoint(db, 0);
    add_rows(db, 5, 20);
    import_rig_run(db, "BEGIN");
    add_rows(db, 100, 7); /* never committed */
}

static void leave_a_journal(sqlite3 *db)
{
    import_rig_run(db, "PRAGMA journal_mode = DELETE; PRAGMA cache_size = 1; BEGIN");
    add_rows(db, 5, 400); /* more than the cache holds: it goes into the file before the commit */
    import_rig_run(db, "UPDATE items SET locked = 7");
}

static off_t size_of(const char *suffix)
{
    char path[128];
    struct stat status;
    snprintf(path, sizeof path, "%s%s", import_rig.path, suffix);
    return stat(path, &status) == 0 ? status.st_size : -1;
}

/* A line for each file of the directory that changes with any byte of it, its time or its name. */
static void fingerprint(char *out, size_t size)
{
    char command[256];
    snprintf(command, sizeof command,
             "cd '%s' && for f in *; do test -d \"$f\" || { stat -c '%%n %%s %%Y %%y %%Z %%i' \"$f\"; "
             "sha256sum <\"$f\"; }; done; stat -c '%%y' .",
             import_rig.directory);
    FILE *pipe = popen(command, "r");
    CU_ASSERT_PTR_NOT_NULL_FATAL(pipe);
    size_t got = fread(out, 1, size - 1, pipe);
    out[got] = '\0';
    CU_ASSERT_EQUAL(pclose(pipe), 0);
    CU_ASSERT(got > 100);
}

static void a_wal_is_taken_in(void)
{
    static char before[4096], after[4096];
    import_rig_begin();
    sqlite3 *db = import_rig_create("INSERT INTO sources VALUES('s', 'c')");
    add_rows(db, 0, 5);
    sqlite3_close(db);
    crash_writing(leave_a_wal);
    CU_ASSERT(size_of("-wal") > 4096);
    fingerprint(before, sizeof before);
    CU_ASSERT_EQUAL(count_rows(), 25);
    fingerprint(after, sizeof after);
    CU_ASSERT_STRING_EQUAL(after, before);
    import_rig_end();
}

static void a_journal_is_rolled_back(void)
{
    static char before[4096], after[4096];
    import_rig_begin();
    sqlite3 *db = import_rig_create("INSERT INTO sources VALUES('s', 'c')");
    add_rows(db, 0, 5);
    sqlite3_close(db);
    off_t size = size_of("");
    crash_writing(leave_a_journal);
    CU_ASSERT(size_of("-journal") > 512 && size_of("") > size);
    fingerprint(before, sizeof before);
    CU_ASSERT_EQUAL(count_rows(), 5);
    fingerprint(after, sizeof after);
    CU_ASSERT_STRING_EQUAL(after, before);
    import_rig_end();
}

/* By a link elsewhere: the log stands beside the file, not beside the link. */
static void links_are_followed(void)
{
    import_rig_begin();
    sqlite3 *db = import_rig_create("INSERT INTO sources VALUES('s', 'c')");
    sqlite3_close(db);
    crash_writing(leave_a_wal);
    char link[sizeof import_rig.path];
    snprintf(link, sizeof link, "%s/elsewhere", import_rig.directory);
    CU_ASSERT_EQUAL(symlink(import_rig.path, link), 0);
    snprintf(import_rig.path, sizeof import_rig.path, "%s", link);
    CU_ASSERT_EQUAL(count_rows(), 20);
    import_rig_end();
}

/* ---- who may do what ---- */

static int count_as_nobody(void)
{
    pid_t child = fork();
    if (child == 0) {
        if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
            _exit(200);
        int count = count_rows();
        _exit(count >= 0 ? count : 100 - count);
    }
    int status;
    CU_ASSERT_EQUAL(waitpid(child, &status, 0), child);
    return WEXITSTATUS(status) > 100 ? 100 - WEXITSTATUS(status) : WEXITSTATUS(status);
}

static void reading_is_enough(void)
{
    import_rig_begin();
    sqlite3_close(import_rig_create("INSERT INTO sources VALUES('s', 'c')"));
    crash_writing(leave_a_wal);
    char wal[128];
    snprintf(wal, sizeof wal, "%s-wal", import_rig.path);
    chmod(import_rig.path, 0444);
    chmod(wal, 0444);
    chmod(import_rig.temporary, 0777);
    chmod(import_rig.directory, 0555);
    CU_ASSERT_EQUAL(count_as_nobody(), 20);
    chmod(import_rig.path, 0000);
    CU_ASSERT_EQUAL(count_as_nobody(), EP_EACCESS);
    chmod(import_rig.path, 0444);
    chmod(wal, 0000); /* without the log it would be another database */
    CU_ASSERT_EQUAL(count_as_nobody(), EP_EACCESS);
    chmod(import_rig.directory, 0755);
    import_rig_end();
}

static void no_room_is_said(void)
{
    import_rig_begin();
    sqlite3_close(import_rig_create("INSERT INTO sources VALUES('s', 'c')"));
    setenv("TMPDIR", "/no/such/directory", 1);
    CU_ASSERT_EQUAL(count_rows(), EP_ESYSTEM);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "TMPDIR /no/such/directory"));
    setenv("TMPDIR", import_rig.temporary, 1);
    import_rig_end();
}

/* ---- while others are at it ---- */

/* A child that has done `begin` when this returns, and goes on with `run` for ever. */
static pid_t start_child(void begin(sqlite3 *db), void run(sqlite3 *db))
{
    int ready[2];
    char byte;
    CU_ASSERT_EQUAL_FATAL(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        sqlite3 *db = begin != NULL ? import_rig_open() : NULL;
        if (begin != NULL)
            begin(db);
        if (write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            run(db);
    }
    close(ready[1]);
    CU_ASSERT_EQUAL(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return child;
}

static void end_child(pid_t child)
{
    kill(child, SIGKILL);
    CU_ASSERT_EQUAL(waitpid(child, NULL, 0), child);
}

static void rest(sqlite3 *db)
{
    (void)db;
    pause();
}

static void begin_writing(sqlite3 *db)
{
    import_rig_run(db, "BEGIN IMMEDIATE");
    add_rows(db, 50, 1);
}

/* It has it open, and does nothing at this moment; or it is in the middle of writing, without a log. */
static void who_has_it_open_is_named(void)
{
    import_rig_begin();
    sqlite3_close(import_rig_create("INSERT INTO sources VALUES('s', 'c')"));
    pid_t child = start_child(begin_writing, rest);
    CU_ASSERT_EQUAL(count_rows(), EP_EBUSY);
    end_child(child);
    CU_ASSERT_EQUAL(count_rows(), 0);
    child = start_child(leave_a_wal, rest);
    char pid[40];
    snprintf(pid, sizeof pid, "process %d (", (int)child);
    CU_ASSERT_EQUAL(count_rows(), EP_EBUSY);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, pid));
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "stop it first"));
    end_child(child);
    CU_ASSERT_EQUAL(count_rows(), 20);
    import_rig_end();
}

/* Touches the file all the time, each time with another one. */
static void touch(sqlite3 *db)
{
    static long number;
    (void)db;
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {1000000000, number++ % 1000000000}};
    if (utimensat(AT_FDCWD, import_rig.path, times, 0) != 0)
        _exit(1);
}

static void changes_while_it_is_copied_are_seen(void)
{
    import_rig_begin();
    sqlite3 *db = import_rig_create("INSERT INTO sources VALUES('s', 'c')");
    import_rig_run(
        db, "CREATE TABLE filler(x); INSERT INTO filler VALUES(zeroblob(30000000))"); /* some time to copy */
    sqlite3_close(db);
    pid_t child = start_child(NULL, touch);
    /* Whether the child runs while the file is copied is up to the scheduler: mostly it does. */
    int code = 0;
    for (int round = 0; code != EP_EBUSY && round < 1000; round++)
        code = count_rows();
    CU_ASSERT_EQUAL(code, EP_EBUSY);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "it changed while it was copied, twice"));
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "stop it first"));
    end_child(child);
    CU_ASSERT_EQUAL(count_rows(), 0);
    import_rig_end();
}

/* ---- told to stop; a change that is over after the first copy ---- */

struct stopping {
    int asked, stop_at, touch_at;
};

static bool stop_or_touch(void *user)
{
    struct stopping *stopping = user;
    stopping->asked++;
    if (stopping->asked == stopping->touch_at)
        touch(NULL);
    return stopping->asked == stopping->stop_at;
}

static void a_copy_can_be_stopped(void)
{
    import_rig_begin();
    sqlite3 *db = import_rig_create("INSERT INTO sources VALUES('s', 'c')");
    import_rig_run(db, "CREATE TABLE filler(x); INSERT INTO filler VALUES(zeroblob(5000000))");
    sqlite3_close(db);
    for (int at = 1; at < 5; at++) {
        struct stopping stopping = {.stop_at = at};
        struct import_go *go = NULL;
        CU_ASSERT_EQUAL(import_go_open(import_rig.path, stop_or_touch, &stopping, &go, &error), EP_ESTATE);
        CU_ASSERT_PTR_NULL(go);
        CU_ASSERT_EQUAL(import_rig_entries(import_rig.temporary), 0);
    }
    struct stopping once = {.touch_at = 3};
    struct import_go *go = NULL;
    CU_ASSERT_EQUAL(import_go_open(import_rig.path, stop_or_touch, &once, &go, &error),
                    0); /* copied once more */
    CU_ASSERT(once.asked >= 10);
    import_go_close(&go);
    import_rig_end();
}

static void the_copy_is_ours_alone(void)
{
    import_rig_begin();
    struct import_copy copy = {0};
    struct stat status;
    sqlite3_close(import_rig_create("INSERT INTO sources VALUES('s', 'c')"));
    chmod(import_rig.path, 0666);
    CU_ASSERT_EQUAL(import_copy_make(import_rig.path, NULL, NULL, &copy, &error), 0);
    CU_ASSERT_EQUAL(stat(copy.directory, &status), 0);
    CU_ASSERT_EQUAL(status.st_mode & 07777, 0700);
    CU_ASSERT_EQUAL(stat(copy.path, &status), 0);
    CU_ASSERT_EQUAL(status.st_mode & 07777, 0600);
    CU_ASSERT_EQUAL(strncmp(copy.path, import_rig.temporary, strlen(import_rig.temporary)), 0);
    import_copy_remove(&copy);
    import_copy_remove(&copy);
    import_rig_end();
}

UNIT_MAIN("import: the file is left alone", {"a log left by a killed writer is taken in", a_wal_is_taken_in},
          {"a hot journal is rolled back", a_journal_is_rolled_back},
          {"links are followed", links_are_followed},
          {"reading is enough, also the directory", reading_is_enough},
          {"no room for the copy", no_room_is_said}, {"who has it open is named", who_has_it_open_is_named},
          {"changes while it is copied are seen", changes_while_it_is_copied_are_seen},
          {"a copy can be stopped, and begins again after a change", a_copy_can_be_stopped},
          {"the copy is ours alone", the_copy_is_ours_alone})
