/* SPDX-License-Identifier: MIT */
/* The store's files: which it takes and which it refuses, who holds them, and who may look while nobody does.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/store_files.h"

static void replace_with_database(const char *sql)
{
    store_close(&fixture.store);
    CU_ASSERT_EQUAL(unlink(store_files_path()), 0);
    store_files_meddle(sql);
}

/* Neither a start nor an open takes the file; both say why. */
static void expect_refused(const char *expected)
{
    struct error error = {0};
    struct store *store = NULL;
    uint64_t start;
    struct stat before, after;
    stat(store_files_path(), &before);
    CU_ASSERT_EQUAL(store_prepare(&fixture.options, NULL, 0, &start, &error), EP_ESTORE);
    if (strstr(error.message, expected) == NULL)
        fprintf(stderr, "not \"%s\": %s\n", expected, error.message);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, expected));
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, store_files_path()));
    for (int readonly = 0; readonly < 2; readonly++) {
        struct store_options options = fixture.options;
        options.readonly = readonly == 1;
        CU_ASSERT_EQUAL(store_open(&options, &store, &error), EP_ESTORE);
        CU_ASSERT_PTR_NULL(store);
    }
    stat(store_files_path(), &after);
    CU_ASSERT_EQUAL(before.st_size, after.st_size);
    CU_ASSERT_EQUAL(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
    CU_ASSERT_EQUAL(unlink(store_files_path()), 0);
    CU_ASSERT_EQUAL(fixture_prepare(), 0);
    fixture.store = fixture_open(false);
}

static void newer_versions_are_refused(void)
{
    fixture_begin();
    store_close(&fixture.store);
    store_files_meddle("PRAGMA user_version = 9");
    expect_refused("store version 9, this one knows up to ");
    fixture_end();
}

static void foreign_files_are_refused(void)
{
    fixture_begin();
    replace_with_database("CREATE TABLE cookies(name)");
    expect_refused("a database of another program");
    replace_with_database("PRAGMA application_id = 4711");
    expect_refused("application id 4711");
    store_close(&fixture.store);
    CU_ASSERT_EQUAL(unlink(store_files_path()), 0);
    FILE *file = fopen(store_files_path(), "w");
    for (int i = 0; i < 400; i++)
        fputs("this is a diary, and no database. ", file);
    fclose(file);
    expect_refused("not an SQLite database");
    fixture_end();
}

static void there_may_be_no_store(void)
{
    fixture_begin();
    store_close(&fixture.store);
    CU_ASSERT_EQUAL(unlink(store_files_path()), 0);
    struct error error = {0};
    struct store *store;
    for (int empty = 0; empty < 2; empty++) {
        for (int readonly = 0; readonly < 2; readonly++) {
            struct store_options options = fixture.options;
            options.readonly = readonly == 1;
            CU_ASSERT_EQUAL(store_open(&options, &store, &error), EP_ENOENT);
        }
        CU_ASSERT_EQUAL(access(store_files_path(), F_OK) == 0, empty == 1); /* looking made nothing */
        close(open(store_files_path(), O_CREAT | O_WRONLY, 0600)); /* as if killed while creating it */
    }
    CU_ASSERT_EQUAL(fixture_prepare(), 0);
    fixture.store = fixture_open(false);
    struct stat status;
    CU_ASSERT_EQUAL(stat(store_files_path(), &status), 0);
    CU_ASSERT_EQUAL(status.st_mode & 0777, 0600);
    struct store_options wrong = fixture.options;
    wrong.url = "postgres://here";
    CU_ASSERT_EQUAL(store_open(&wrong, &store, &error), EP_EINVAL);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "sqlite:PATH"));
    wrong.url = "sqlite:/no/such/directory/x.db";
    int fd;
    uint64_t start;
    CU_ASSERT_EQUAL(store_hold(&wrong, 0, &fd, &error), EP_ENOENT);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "/no/such/directory"));
    CU_ASSERT_EQUAL(store_prepare(&wrong, NULL, 0, &start, &error), EP_ENOENT);
    wrong.url = "memory:";
    wrong.instance = "../etc";
    CU_ASSERT_EQUAL(store_hold(&wrong, 0, &fd, &error), EP_EINVAL);
    fixture_end();
}

/* ---- hold ---- */

static void one_instance_holds(void)
{
    fixture_begin();
    struct error error = {0};
    int fd;
    char pid[32];
    snprintf(pid, sizeof pid, "pid %d (", (int)getpid());
    CU_ASSERT_EQUAL(store_hold(&fixture.options, 60000, &fd, &error),
                    EP_EBUSY); /* at once: the holder lives */
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, pid));
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, fixture.instance));
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "since 2"));
    if (fixture.kind == KIND_SQLITE) { /* another name of the same file has the same lock */
        char link[96], url[128];
        snprintf(link, sizeof link, "%s/link.db", fixture.directory);
        snprintf(url, sizeof url, "sqlite:%s", link);
        CU_ASSERT_EQUAL(symlink(store_files_path(), link), 0);
        struct store_options options = fixture.options;
        options.url = url;
        CU_ASSERT_EQUAL(store_hold(&options, 0, &fd, &error), EP_EBUSY);
    }
    CU_ASSERT_TRUE(fcntl(fixture.lock, F_GETFD) & FD_CLOEXEC);
    close(fixture.lock);
    CU_ASSERT_EQUAL(store_hold(&fixture.options, 0, &fixture.lock, &error), 0);
    CU_ASSERT_EQUAL(fixture_prepare(), 0);
    store_close(&fixture.store);
    fixture.store = fixture_open(false);
    fixture_end();
}

/* A supervisor that crashed, and a worker of its instance that lives until told. Returns the worker's end of
 * a pipe. */
static int leave_a_worker(void)
{
    int keep[2], ready[2];
    char byte;
    CU_ASSERT_EQUAL_FATAL(pipe(keep), 0);
    CU_ASSERT_EQUAL_FATAL(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct error error;
        int fd;
        if (store_hold(&fixture.options, 0, &fd, &error) != 0)
            _exit(1);
        if (fork() == 0) { /* the worker: ends when the test closes its end */
            close(keep[1]);
            close(ready[0]);
            if (write(ready[1], "x", 1) != 1 || read(keep[0], &byte, 1) < 0)
                _exit(1);
            _exit(0);
        }
        _exit(0);
    }
    close(keep[0]);
    close(ready[1]);
    CU_ASSERT_EQUAL(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    int status;
    CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
    CU_ASSERT_EQUAL(status, 0);
    return keep[1];
}

static void wait_until_asleep(pid_t pid)
{
    char path[64], state = 'R';
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    while (state == 'R' || state == 'D') {
        FILE *file = fopen(path, "r");
        CU_ASSERT_PTR_NOT_NULL_FATAL(file);
        CU_ASSERT_EQUAL(fscanf(file, "%*d (%*[^)]) %c", &state), 1);
        fclose(file);
        sched_yield();
    }
}

static void an_ending_instance_is_waited_for(void)
{
    fixture_begin();
    struct error error = {0};
    store_close(&fixture.store);
    close(fixture.lock);
    int worker = leave_a_worker();
    CU_ASSERT_EQUAL(store_hold(&fixture.options, 60, &fixture.lock, &error), EP_EBUSY);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "which is gone"));
    pid_t waiter = fork();
    if (waiter == 0) {
        close(worker);
        _exit(store_hold(&fixture.options, 30000, &fixture.lock, &error) == 0 ? 0 : 1);
    }
    wait_until_asleep(waiter); /* it found the lock held, and waits for it */
    CU_ASSERT_EQUAL(waitpid(waiter, NULL, WNOHANG), 0);
    close(worker); /* the worker ends */
    int status;
    CU_ASSERT_EQUAL(waitpid(waiter, &status, 0), waiter);
    CU_ASSERT_EQUAL(status, 0);
    CU_ASSERT_EQUAL(store_hold(&fixture.options, 0, &fixture.lock, &error), 0);
    CU_ASSERT_EQUAL(fixture_prepare(), 0);
    fixture.store = fixture_open(false);
    fixture_end();
}

/* ---- across processes ---- */

static void other_processes_see_it(void)
{
    fixture_begin();
    struct held held;
    ingest("u", 0, 10);
    claim(&held, 1, 1000);
    pid_t child = fork();
    if (child == 0) {
        struct store *store = fixture_open(false);
        struct store_answer finish = {.lock = held.at[0], .change = STORE_COMPLETE};
        int code = store != NULL ? store_commit(store, fixture.source, fixture.stages[2], &finish, 1) : -1;
        store_close(&store);
        _exit(code == 0 && finish.applied ? 0 : 1);
    }
    int status;
    CU_ASSERT_EQUAL(waitpid(child, &status, 0), child);
    CU_ASSERT_EQUAL(status, 0);
    CU_ASSERT_EQUAL(totals().completed, 1);
    char path[320];
    snprintf(path, sizeof path, "%s", store_files_path());
    fixture_end();
    if (fixture.kind == KIND_MEMORY) { /* gone with the instance, lock and all */
        CU_ASSERT_NOT_EQUAL(access(path, F_OK), 0);
        *strrchr(path, '/') = '\0';
        CU_ASSERT_NOT_EQUAL(access(path, F_OK), 0);
        strcpy(strrchr(path, '.'), ".lock");
        CU_ASSERT_NOT_EQUAL(access(path, F_OK), 0);
    }
}

static void memory_is_private_and_cleared(void)
{
    if (fixture.kind != KIND_MEMORY)
        return;
    fixture_begin();
    struct stat status;
    char directory[320];
    ingest("u", 0, 10);
    snprintf(directory, sizeof directory, "%s", store_files_path());
    *strrchr(directory, '/') = '\0';
    CU_ASSERT_EQUAL(stat(directory, &status), 0);
    CU_ASSERT_EQUAL(status.st_mode & 0777, 0700);
    store_close(&fixture.store);
    close(fixture.lock); /* crashed without leaving: the next start of this instance finds nothing of it */
    struct error error;
    CU_ASSERT_EQUAL(store_hold(&fixture.options, 0, &fixture.lock, &error), 0);
    CU_ASSERT_EQUAL(fixture_prepare(), 0);
    CU_ASSERT_EQUAL(fixture.start, 1);
    fixture.store = fixture_open(false);
    CU_ASSERT_EQUAL(totals().fetched, 0);
    /* somebody else's leave does not touch it: the lock names another process */
    pid_t child = fork();
    if (child == 0) {
        store_leave(&fixture.options);
        _exit(0);
    }
    CU_ASSERT_EQUAL(waitpid(child, NULL, 0), child);
    CU_ASSERT_EQUAL(access(store_files_path(), F_OK), 0);
    /* a directory that others can write to is not used */
    CU_ASSERT_EQUAL(chmod(directory, 0777), 0);
    uint64_t start;
    CU_ASSERT_EQUAL(store_prepare(&fixture.options, NULL, 0, &start, &error), EP_EACCESS);
    CU_ASSERT_EQUAL(chmod(directory, 0700), 0);
    fixture_end();
}

/* ---- readers while the daemon is down ---- */

static bool reader_sees(uint64_t events)
{
    struct error error = {0};
    struct store *reader = NULL;
    struct store_options options = fixture.options;
    struct store_totals found = {0};
    options.readonly = true;
    options.start_number = 0;
    int code = store_open(&options, &reader, &error);
    if (code == 0)
        code = store_source_totals(reader, fixture.source, &found);
    if (code != 0)
        fprintf(stderr, "reader: %s\n", error.message);
    store_close(&reader);
    return code == 0 && found.live == events;
}

/* Whether check holds for an ordinary user who owns nothing here. */
static bool as_nobody(bool check(void))
{
    pid_t child = fork();
    if (child == 0)
        _exit(setgid(65534) == 0 && setuid(65534) == 0 && check() ? 0 : 1);
    int status;
    return waitpid(child, &status, 0) == child && status == 0;
}

static bool sees_ten(void)
{
    return reader_sees(10);
}

static bool is_told_why(void)
{
    struct error error = {0};
    struct store *reader = NULL;
    struct store_options options = fixture.options;
    options.readonly = true;
    return store_open(&options, &reader, &error) < 0 && strstr(error.message, "left by a crash") != NULL;
}

static void readers_need_no_daemon(void)
{
    fixture_begin();
    ingest("u", 0, 7);
    store_close(&fixture.store);
    CU_ASSERT_TRUE(reader_sees(7)); /* after an orderly end: there is no WAL */
    pid_t child = fork();
    if (child == 0) { /* and after a crash, which leaves one */
        fixture.store = fixture_open(false);
        ingest("v", 0, 3);
        _exit(0);
    }
    CU_ASSERT_EQUAL(waitpid(child, NULL, 0), child);
    char wal[340];
    snprintf(wal, sizeof wal, "%s-wal", store_files_path());
    struct stat status;
    CU_ASSERT_EQUAL(stat(wal, &status), 0);
    CU_ASSERT(status.st_size > 0);
    if (fixture.kind == KIND_SQLITE && geteuid() == 0) { /* who may not write beside the store */
        char index[340];
        snprintf(index, sizeof index, "%s-shm", store_files_path());
        chmod(fixture.directory, 0755);
        chmod(store_files_path(), 0644);
        chmod(wal, 0644);
        unlink(index);
        CU_ASSERT_TRUE(as_nobody(is_told_why));
    }
    CU_ASSERT_TRUE(reader_sees(10));
    fixture.store = fixture_open(false);
    store_close(&fixture.store); /* the last writer takes the WAL along */
    CU_ASSERT_NOT_EQUAL(stat(wal, &status), 0);
    if (fixture.kind == KIND_SQLITE && geteuid() == 0)
        CU_ASSERT_TRUE(as_nobody(sees_ten));
    fixture.store = fixture_open(false);
    fixture_end();
}

STORE_MAIN("store: files", {"a newer version's store is refused", newer_versions_are_refused},
           {"files of others are refused and not touched", foreign_files_are_refused},
           {"a missing or empty store is said to be missing", there_may_be_no_store},
           {"one instance holds the store", one_instance_holds},
           {"an ending instance is waited for", an_ending_instance_is_waited_for},
           {"other processes see it", other_processes_see_it},
           {"memory: is private and cleared", memory_is_private_and_cleared},
           {"readers need no daemon", readers_need_no_daemon})
