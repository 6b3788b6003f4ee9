/* SPDX-License-Identifier: MIT */
/* The file source follows its file through rotation, truncation and restarts. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/file_rig.h"

/* ---- rotation ---- */

static void follows_a_rotation(void)
{
    struct file_rig rig;

    file_rig_open(&rig);
    file_rig_add(&rig, "one\ntwo\n");
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    int writer = open(rig.path, O_WRONLY | O_APPEND | O_CLOEXEC);
    rename(rig.path, file_rig_beside(&rig, ".1"));
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0); /* no new file yet */
    CU_ASSERT_EQUAL(write(writer, "three\n", 6), 6);
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    file_rig_add(&rig, "");
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0); /* a new file, empty: the writer may not have switched */
    CU_ASSERT_EQUAL(write(writer, "four\nrest", 9), 9);
    close(writer);
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    file_rig_expect_seen(&rig, "\"one\"|\"two\"|\"three\"|\"four\"|");
    file_rig_add(&rig, "five\n");
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    file_rig_expect_seen(&rig, "\"rest\"|\"five\"|");
    CU_ASSERT_STRING_EQUAL(strrchr(rig.cursor, ':'), ":1"); /* the generation: uids of equal lines differ */
    file_rig_close(&rig);
}

static void follows_rotations_while_it_was_down(void)
{
    struct file_rig rig;

    file_rig_open(&rig);
    file_rig_add(&rig, "one\ntwo\nthree\n");
    CU_ASSERT_EQUAL(file_rig_fetch(&rig, 1, 0), 0);
    file_rig_store(&rig);
    source_file_ops.close(rig.state);
    file_rig_add(&rig, "four");
    file_rig_put(file_rig_beside(&rig, ".3"), 0, "long ago\n", 9);
    file_rig_written_at(file_rig_beside(&rig, ".3"), 1000);
    file_rig_put(file_rig_beside(&rig, ".2.gz"), 0, "not a log\n", 10);
    file_rig_put(file_rig_beside(&rig, ".old"), 0, "not of the rotation\n", 20);
    file_rig_put(file_rig_beside(&rig, "-errors"), 0, "another log\n", 12);
    rename(rig.path, file_rig_beside(&rig, ".2"));
    file_rig_written_at(file_rig_beside(&rig, ".2"), 2000);
    file_rig_put(file_rig_beside(&rig, ".1"), 0, "five\nsix\n", 9);
    file_rig_written_at(file_rig_beside(&rig, ".1"), 2000); /* in the same moment: the name tells */
    file_rig_add(&rig, "seven\n");
    file_rig_open_source(&rig);
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    file_rig_expect_seen(&rig, "\"one\"|\"two\"|\"three\"|\"four\"|\"five\"|\"six\"|\"seven\"|");
    file_rig_close(&rig);
}

static void follows_dated_rotations(void)
{
    struct file_rig rig;

    file_rig_open(&rig);
    file_rig_add(&rig, "one\n");
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    source_file_ops.close(rig.state);
    rename(rig.path, file_rig_beside(&rig, "-20260101"));
    file_rig_put(file_rig_beside(&rig, "-20260103"), 0, "three\n", 6);
    file_rig_put(file_rig_beside(&rig, "-20260102"), 0, "two\n", 4);
    file_rig_written_at(file_rig_beside(&rig, "-20260101"), 5000);
    file_rig_written_at(file_rig_beside(&rig, "-20260102"), 5000);
    file_rig_written_at(file_rig_beside(&rig, "-20260103"), 5000);
    file_rig_add(&rig, "four\n");
    file_rig_open_source(&rig);
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    file_rig_expect_seen(&rig, "\"one\"|\"two\"|\"three\"|\"four\"|");
    file_rig_close(&rig);
}

static void begins_again_when_its_file_is_gone(void)
{
    struct file_rig rig;

    file_rig_open(&rig);
    file_rig_add(&rig, "one\n");
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    source_file_ops.close(rig.state);
    rename(rig.path, file_rig_beside(&rig, ".1.gz"));
    file_rig_add(&rig, "two, longer than one\n");
    file_rig_open_source(&rig);
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    file_rig_expect_seen(&rig, "\"one\"|\"two, longer than one\"|");
    file_rig_close(&rig);
}

static void tells_a_reused_inode(void)
{
    struct file_rig rig;
    char forged[200];
    struct stat info;

    file_rig_open(&rig);
    file_rig_add(&rig, "one\ntwo\n");
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    source_file_ops.close(rig.state);
    const char *hash = rig.cursor;
    for (int i = 0; i < 3; i++)
        hash = strchr(hash, ':') + 1;
    file_rig_put(file_rig_beside(&rig, ".new"), 0, "uno\ndos\ntres\n", 13);
    rename(file_rig_beside(&rig, ".new"), rig.path);
    stat(rig.path, &info);
    /* as if the new file had been given the old one's inode */
    snprintf(forged, sizeof forged, "%ju:%ju:8:%s", (uintmax_t)info.st_dev, (uintmax_t)info.st_ino, hash);
    free(rig.cursor);
    rig.cursor = strdup(forged);
    file_rig_open_source(&rig);
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    file_rig_expect_seen(&rig, "\"one\"|\"two\"|\"uno\"|\"dos\"|\"tres\"|");
    file_rig_close(&rig);
}

/* ---- truncation ---- */

static void begins_again_after_a_truncation(void)
{
    struct file_rig rig;
    char first[200];

    file_rig_open(&rig);
    file_rig_add(&rig, "same\nmore\n");
    CU_ASSERT_EQUAL(file_rig_fetch(&rig, 10, 0), 0);
    snprintf(first, sizeof first, "%s", rig.page.events[0].uid);
    file_rig_store(&rig);
    file_rig_put(rig.path, O_TRUNC, "same\n", 5);
    CU_ASSERT_EQUAL(file_rig_fetch(&rig, 10, 0), 0);
    CU_ASSERT_EQUAL_FATAL(rig.page.count, 1);
    CU_ASSERT_STRING_NOT_EQUAL(rig.page.events[0].uid,
                               first); /* equal content at the same place is another event */
    file_rig_store(&rig);
    file_rig_put(rig.path, O_TRUNC, "longer than ever before\n",
                 24); /* grown past our place before we looked */
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    file_rig_expect_seen(&rig, "\"same\"|\"more\"|\"same\"|\"longer than ever before\"|");
    file_rig_close(&rig);
}

static void reads_the_rest_from_the_copy_of_a_copytruncate(void)
{
    struct file_rig rig;
    static const char old[] =
        "the first line, with enough in it to be known again by its content: 0123456789\nsecond\nthird\n";

    for (int down = 0; down < 2; down++) {
        file_rig_open(&rig);
        file_rig_add(&rig, old);
        CU_ASSERT_EQUAL(file_rig_fetch(&rig, 2, 0), 0);
        file_rig_store(&rig);
        if (down == 1)
            source_file_ops.close(rig.state);
        file_rig_put(file_rig_beside(&rig, ".1"), 0, old, sizeof old - 1);
        file_rig_put(rig.path, O_TRUNC, "fourth\n", 7);
        if (down == 1)
            file_rig_open_source(&rig);
        CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
        CU_ASSERT_PTR_NOT_NULL(strstr(rig.seen, "|\"second\"|\"third\"|\"fourth\"|"));
        file_rig_close(&rig);
    }
}

static void goes_on_in_a_file_written_again(void)
{
    struct file_rig rig;
    static const char old[] =
        "the first line, with enough in it to be known again by its content: 0123456789\nsecond\n";

    file_rig_open(&rig);
    file_rig_add(&rig, old);
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    rig.seen[0] = '\0';
    file_rig_put(file_rig_beside(&rig, ".edit"), 0, old, sizeof old - 1);
    file_rig_put(file_rig_beside(&rig, ".edit"), O_APPEND, "third\n", 6);
    rename(file_rig_beside(&rig, ".edit"), rig.path);
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    file_rig_expect_seen(&rig, "\"third\"|");
    file_rig_close(&rig);
}

static void forgets_half_a_line_that_was_cut_off(void)
{
    struct file_rig rig;

    file_rig_open(&rig);
    file_rig_add(&rig, "one\nhalf");
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    CU_ASSERT_EQUAL(truncate(rig.path, 4), 0);
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    file_rig_add(&rig, "whole line\n");
    CU_ASSERT_EQUAL(file_rig_drain(&rig), 0);
    file_rig_expect_seen(&rig, "\"one\"|\"whole line\"|");
    file_rig_close(&rig);
}

UNIT_MAIN("source_file_rotation", {"follows a rotation", follows_a_rotation},
          {"follows rotations while it was down", follows_rotations_while_it_was_down},
          {"follows dated rotations", follows_dated_rotations},
          {"begins again when its file is gone", begins_again_when_its_file_is_gone},
          {"tells a reused inode", tells_a_reused_inode},
          {"begins again after a truncation", begins_again_after_a_truncation},
          {"reads the rest from the copy of a copytruncate", reads_the_rest_from_the_copy_of_a_copytruncate},
          {"goes on in a file written again", goes_on_in_a_file_written_again},
          {"forgets half a line that was cut off", forgets_half_a_line_that_was_cut_off})
