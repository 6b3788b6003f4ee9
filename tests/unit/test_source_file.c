/* SPDX-License-Identifier: MIT */
/* The file source: lines, formats, growth, absence, waiting. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/file_rig.h"

/* ---- lines and formats ---- */

static void takes_whole_lines_as_the_file_grows(void)
{
    struct file_rig rig;

    file_rig_open(&rig);
    file_rig_add(&rig, "one\ntwo\r\n\n\r\nthree\nfo");
    CU_ASSERT_EQUAL(file_rig_fetch(&rig, 2, 0), 0);
    CU_ASSERT_EQUAL(rig.page.count, 2);
    CU_ASSERT_TRUE(rig.page.more);
    file_rig_store(&rig);
    CU_ASSERT_EQUAL(file_rig_fetch(&rig, 2, 0), 0);
    CU_ASSERT_EQUAL(rig.page.count, 1);
    CU_ASSERT_FALSE(rig.page.more);
    file_rig_store(&rig);
    file_rig_expect_seen(&rig, "\"one\"|\"two\"|\"three\"|");
    CU_ASSERT_EQUAL(file_rig_fetch(&rig, 2, 0), 0);
    CU_ASSERT_EQUAL(rig.page.count, 0);
    CU_ASSERT_PTR_NULL(rig.page.cursor);
    file_rig_add(&rig, "ur\n");
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    file_rig_expect_seen(&rig, "\"four\"|");
    file_rig_close(&rig);
}

static void the_cursor_is_the_position(void)
{
    struct file_rig rig;
    struct stat info;
    char start[128];

    file_rig_open(&rig);
    file_rig_add(&rig, "one\ntwo\nthree\n");
    CU_ASSERT_EQUAL(file_rig_fetch(&rig, 2, 0), 0);
    file_rig_store(&rig);
    stat(rig.path, &info);
    snprintf(start, sizeof start, "%ju:%ju:8:", (uintmax_t)info.st_dev, (uintmax_t)info.st_ino);
    CU_ASSERT_EQUAL(strncmp(rig.cursor, start, strlen(start)), 0);
    file_rig_restart(&rig);
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    file_rig_expect_seen(&rig, "\"one\"|\"two\"|\"three\"|");
    /* set by an operator: the first three parts will do */
    free(rig.cursor);
    snprintf(start, sizeof start, "%ju:%ju:4", (uintmax_t)info.st_dev, (uintmax_t)info.st_ino);
    rig.cursor = strdup(start);
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    file_rig_expect_seen(&rig, "\"two\"|\"three\"|");
    free(rig.cursor);
    rig.cursor = strdup("17:x:4");
    CU_ASSERT_EQUAL(file_rig_drain(&rig), EP_EPROTO);
    file_rig_close(&rig);
}

static void a_page_that_was_not_stored_comes_again(void)
{
    struct file_rig rig;
    char uid[200];

    file_rig_open(&rig);
    file_rig_add(&rig, "one\ntwo\nthree\n");
    CU_ASSERT_EQUAL(file_rig_fetch(&rig, 2, 0), 0);
    snprintf(uid, sizeof uid, "%s", rig.page.events[0].uid);
    CU_ASSERT_EQUAL(file_rig_fetch(&rig, 2, 0), 0);
    CU_ASSERT_EQUAL_FATAL(rig.page.count, 2);
    CU_ASSERT_STRING_EQUAL(rig.page.events[0].uid, uid);
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    file_rig_expect_seen(&rig, "\"one\"|\"two\"|\"three\"|");
    file_rig_close(&rig);
}

static void begins_at_the_end_when_told(void)
{
    struct file_rig rig;

    file_rig_open(&rig);
    rig.config.file.from = FILE_FROM_END;
    file_rig_add(&rig, "old\nhal");
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    CU_ASSERT_PTR_NOT_NULL(rig.cursor); /* stored at once: what is written while we are down is new */
    file_rig_add(&rig, "f\nnew\n");
    file_rig_restart(&rig);
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    file_rig_expect_seen(&rig, "\"half\"|\"new\"|");
    file_rig_close(&rig);
    file_rig_open(&rig);
    rig.config.file.from = FILE_FROM_END;
    CU_ASSERT_EQUAL(file_rig_drain(&rig), EP_EBACKEND);
    file_rig_add(&rig, "all of it is new\n");
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    file_rig_expect_seen(&rig, "\"all of it is new\"|");
    file_rig_close(&rig);
}

static void knows_json_from_text(void)
{
    static const char lines[] = "{\"id\":9007199254740993,\"d\":\"dev\"}\n{broken\n[1, 2]\n17\n";
    struct file_rig rig;

    file_rig_open(&rig);
    rig.config.file.format = FILE_AUTO;
    rig.config.pointers.uid = "/id";
    rig.config.pointers.address = "/d";
    file_rig_add(&rig, "\xEF\xBB\xBF");
    file_rig_add(&rig, lines);
    CU_ASSERT_EQUAL(file_rig_fetch(&rig, 10, 0), 0);
    CU_ASSERT_EQUAL_FATAL(rig.page.count, 4);
    CU_ASSERT_STRING_EQUAL(rig.page.events[0].uid, "9007199254740993");
    CU_ASSERT_STRING_EQUAL(rig.page.events[0].address, "dev");
    file_rig_store(&rig);
    file_rig_expect_seen(&rig, "{\"id\":9007199254740993,\"d\":\"dev\"}|\"{broken\"|[1, 2]|\"17\"|");

    rig.config.file.format = FILE_JSON;
    free(rig.cursor);
    rig.cursor = NULL;
    CU_ASSERT_EQUAL(file_rig_fetch(&rig, 10, 0), 0);
    CU_ASSERT_EQUAL_FATAL(rig.page.count, 4);
    CU_ASSERT_EQUAL(rig.page.events[1].dead, STORE_REASON_CORRUPT);
    CU_ASSERT_STRING_EQUAL(rig.page.events[1].data, "{broken");
    CU_ASSERT_PTR_NOT_NULL(strstr(rig.page.events[1].error, "app.log is not valid JSON at its byte 1"));
    CU_ASSERT_EQUAL(rig.page.events[2].dead, STORE_REASON_NONE);
    CU_ASSERT_EQUAL(rig.page.events[3].dead, STORE_REASON_NONE);
    file_rig_close(&rig);
}

static void keeps_bytes_that_are_no_text(void)
{
    static const char bytes[] = "caf\xE9\nnul\0nul\nok \xC3\xA9\t\"\n";
    struct file_rig rig;

    file_rig_open(&rig);
    file_rig_put(rig.path, 0, bytes, sizeof bytes - 1);
    CU_ASSERT_EQUAL(file_rig_fetch(&rig, 10, 0), 0);
    CU_ASSERT_EQUAL_FATAL(rig.page.count, 3);
    CU_ASSERT_PTR_NOT_NULL(strstr(rig.page.events[0].data, "\"payload:b64\":\"Y2Fm6Q==\"}"));
    CU_ASSERT_PTR_NOT_NULL(strstr(rig.page.events[1].data, "\"payload:b64\":\"bnVsAG51bA==\"}"));
    CU_ASSERT_PTR_NOT_NULL(strstr(rig.page.events[2].data, "\"payload\":\"ok \xC3\xA9\\t\\\"\"}"));
    file_rig_close(&rig);
}

static void sets_a_line_too_long_aside(void)
{
    struct file_rig rig;
    size_t bytes = 300000;
    char *text = malloc(bytes);

    file_rig_open(&rig);
    rig.config.file.max_line_bytes = 100000;
    memset(text, 'x', bytes);
    file_rig_add(&rig, "before\n");
    file_rig_put(rig.path, O_APPEND, text, bytes);
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    file_rig_expect_seen(&rig, "\"before\"|"); /* its end is not there yet */
    file_rig_put(rig.path, O_APPEND, text, bytes);
    file_rig_add(&rig, "\nafter\n");
    CU_ASSERT_EQUAL(file_rig_fetch(&rig, 10, 0), 0);
    CU_ASSERT_EQUAL_FATAL(rig.page.count, 2);
    CU_ASSERT_EQUAL(rig.page.events[0].dead, STORE_REASON_CORRUPT);
    CU_ASSERT_EQUAL(rig.page.events[0].data_bytes, 65536);
    CU_ASSERT_PTR_NOT_NULL(strstr(rig.page.events[0].error, "line at byte 7 of "));
    CU_ASSERT_PTR_NOT_NULL(strstr(rig.page.events[0].error, "has 600000 bytes, but max_line allows 100000"));
    CU_ASSERT_EQUAL(rig.page.events[1].dead, STORE_REASON_NONE);
    text[99999] = '\n'; /* as long as it may be, minus one, and one more than it may be */
    file_rig_put(rig.path, O_TRUNC, text, 100000);
    memset(text, 'x', bytes);
    text[100001] = '\n';
    file_rig_put(rig.path, O_APPEND, text, 100002);
    file_rig_store(&rig);
    rig.seen[0] = '\0';
    CU_ASSERT_EQUAL(file_rig_fetch(&rig, 10, 0), 0);
    CU_ASSERT_EQUAL_FATAL(rig.page.count, 2);
    CU_ASSERT_EQUAL(rig.page.events[0].dead, STORE_REASON_NONE);
    CU_ASSERT_EQUAL(rig.page.events[1].dead, STORE_REASON_CORRUPT);
    free(text);
    file_rig_close(&rig);
}

static void reads_many_lines_across_its_chunks(void)
{
    struct file_rig rig;
    char line[200];
    size_t count = 0;
    FILE *file;

    file_rig_open(&rig);
    file = fopen(rig.path, "we");
    for (int i = 0; i < 5000; i++)
        fprintf(file, "%d %.*s\n", i, i % 150,
                "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
                "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
    fclose(file);
    do {
        CU_ASSERT_EQUAL_FATAL(file_rig_fetch(&rig, 97, 0), 0);
        for (size_t i = 0; i < rig.page.count; i++, count++) {
            snprintf(line, sizeof line, "\"payload\":\"%zu ", count);
            CU_ASSERT_PTR_NOT_NULL_FATAL(strstr(rig.page.events[i].data, line));
        }
        free(rig.cursor);
        rig.cursor = strdup(rig.page.cursor);
    } while (rig.page.more);
    CU_ASSERT_EQUAL(count, 5000);
    file_rig_close(&rig);
}

/* ---- absence ---- */

static void reports_a_missing_file_and_takes_it_up(void)
{
    struct file_rig rig;

    file_rig_open(&rig);
    CU_ASSERT_EQUAL(file_rig_fetch(&rig, 1, 0), EP_EBACKEND);
    CU_ASSERT_PTR_NOT_NULL(strstr(rig.failure.error.message, "app.log: no such file"));
    file_rig_add(&rig, "one\n");
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    file_rig_add(&rig, "two\nrest");
    unlink(rig.path);
    CU_ASSERT_EQUAL(file_rig_drain(&rig), EP_EBACKEND);
    file_rig_expect_seen(&rig, "\"one\"|\"two\"|\"rest\"|");
    CU_ASSERT_EQUAL(file_rig_fetch(&rig, 1, 0), EP_EBACKEND);
    file_rig_add(&rig, "three\n");
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    file_rig_expect_seen(&rig, "\"three\"|");
    file_rig_close(&rig);
}

static void refuses_what_is_no_file(void)
{
    struct file_rig rig;
    struct error error = {0};
    void *state;

    file_rig_open(&rig);
    CU_ASSERT_EQUAL(mkfifo(rig.path, 0600), 0);
    CU_ASSERT_EQUAL(file_rig_fetch(&rig, 1, 0), EP_ECONFIG);
    CU_ASSERT_PTR_NOT_NULL(strstr(rig.failure.error.message, "app.log is a FIFO: expected a regular file"));
    rig.config.file.path = rig.directory;
    CU_ASSERT_EQUAL(source_file_ops.open(&rig.config, &state, &error), EP_ECONFIG);
    CU_ASSERT_EQUAL(file_rig_fetch(&rig, 1, 0), EP_ECONFIG);
    file_rig_close(&rig);
}

/* ---- waiting ---- */

static void *run_fetch(void *user)
{
    struct file_rig *rig = user;

    file_rig_fetch(rig, 10, 60000);
    return NULL;
}

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Runs a fetch that waits, does something to the file, and expects it to be over, with so many events. True:
 * at once, which is sooner than the look once a second would find it. */
static bool is_woken(struct file_rig *rig, void (*change)(struct file_rig *), size_t count)
{
    pthread_t thread;
    struct timespec while_idle = {0, 100000000};

    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, run_fetch, rig), 0);
    nanosleep(&while_idle, NULL); /* not waited for: it may or may not wait by now, and both must go well */
    uint64_t start = now_ms();
    change(rig);
    pthread_join(thread, NULL);
    uint64_t took = now_ms() - start;
    CU_ASSERT_EQUAL(rig->page.count, count);
    file_rig_store(rig);
    return took < 700;
}

static void change_append(struct file_rig *rig)
{
    file_rig_add(rig, "two\n");
}

static void change_rotate(struct file_rig *rig)
{
    rename(rig->path, file_rig_beside(rig, ".1"));
    file_rig_add(rig, "");
    file_rig_add(rig, "three\n");
}

static void change_interrupt(struct file_rig *rig)
{
    source_file_ops.interrupt(rig->state);
}

static void change_abort(struct file_rig *rig)
{
    atomic_store(&rig->abort, true);
    source_file_ops.interrupt(rig->state);
}

/* False: something took longer than it should. */
static bool each_change_wakes(void)
{
    struct file_rig rig;
    struct rusage before, after;

    file_rig_open(&rig);
    file_rig_add(&rig, "one\n");
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    bool prompt = is_woken(&rig, change_append, 1);
    prompt &= is_woken(&rig, change_rotate, 0); /* the next file is entered */
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    file_rig_expect_seen(&rig, "\"one\"|\"two\"|\"three\"|");
    prompt &= is_woken(&rig, change_interrupt, 0);
    prompt &= is_woken(&rig, change_abort, 0);
    atomic_store(&rig.abort, false);
    getrusage(RUSAGE_THREAD, &before);
    CU_ASSERT_EQUAL(file_rig_fetch(&rig, 10, 300), 0);
    getrusage(RUSAGE_THREAD, &after);
    file_rig_close(&rig);
    return prompt && after.ru_nvcsw - before.ru_nvcsw <= 3;
}

/* A busy machine may be late once, and hardly each time. */
static void wakes_for_each_change_and_for_nothing_else(void)
{
    bool prompt = false;

    for (int tries = 0; !prompt && tries < 20; tries++)
        prompt = each_change_wakes();
    CU_ASSERT_TRUE(prompt);
}

UNIT_MAIN("source_file", {"takes whole lines as the file grows", takes_whole_lines_as_the_file_grows},
          {"the cursor is the position", the_cursor_is_the_position},
          {"a page that was not stored comes again", a_page_that_was_not_stored_comes_again},
          {"begins at the end when told", begins_at_the_end_when_told},
          {"knows JSON from text", knows_json_from_text},
          {"keeps bytes that are no text", keeps_bytes_that_are_no_text},
          {"sets a line too long aside", sets_a_line_too_long_aside},
          {"reads many lines across its chunks", reads_many_lines_across_its_chunks},
          {"reports a missing file, and takes it up", reports_a_missing_file_and_takes_it_up},
          {"refuses what is no file", refuses_what_is_no_file},
          {"wakes for each change, and for nothing else", wakes_for_each_change_and_for_nothing_else})
