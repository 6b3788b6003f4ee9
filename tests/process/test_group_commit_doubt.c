/* SPDX-License-Identifier: MIT */
/* What an owner of a commit request is told when others crash: never the result of another's answers, and
 * what was in doubt counts once, however often its commit is tried. */
#include <signal.h>
#include <sqlite3.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/write_lock.h"
#include "src/process/group_codec.h"
#include "src/process/group_commit.h"
#include "tests/lib/fake_segment.h"
#include "tests/lib/store_files.h"
#include "tests/lib/until.h"

#define PATIENCE_MS 120000
#define TAKER 3
#define OWNER 4
#define EVENTS 3

static struct segment segment;
static struct held held;
static const struct store_answer advances = {.change = STORE_ADVANCE, .done = "first\n"};

/* No handle of ours is open when a child is made. */
static void begin(uint32_t busy_timeout_ms)
{
    fixture_begin();
    fake_create(&segment);
    segment_unlink(fake_instance);
    ingest_claiming("u", 0, EVENTS, NULL, &held, EVENTS);
    CU_ASSERT_EQUAL_FATAL(held.count, EVENTS);
    store_close(&fixture.store);
    fixture.options.busy_timeout_ms = busy_timeout_ms;
}

static void end(void)
{
    segment_close(&segment);
    fixture_end();
}

static sqlite3 *lock_store(void)
{
    sqlite3 *other;
    CU_ASSERT_EQUAL_FATAL(sqlite3_open(store_files_path(), &other), SQLITE_OK);
    CU_ASSERT_EQUAL_FATAL(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    return other;
}

/* A worker that commits one answer once it is told to, as process_worker_commit_pending does. It says
 * that it is ready, and when it has found the store locked. */
static void work(uint32_t slot, struct store_event_lock lock, int channel)
{
    static struct process_group_commit group_commit;
    char byte;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    fixture.options.write_lock = &segment.header->write_lock;
    group_commit.segment = &segment;
    group_commit.slot = slot;
    group_commit.store = fixture_open(false);
    if (write(channel, "r", 1) != 1 || read(channel, &byte, 1) != 1)
        _exit(EXIT_FAILURE);
    struct store_answer answer = advances;
    answer.lock = lock;
    bool said = false;
    int code;
    while ((code = process_group_commit(&group_commit, fixture.source, fixture.stages[0], &answer, 1)) ==
           EP_ESTOREBUSY) {
        if (!said && write(channel, "l", 1) != 1)
            _exit(EXIT_FAILURE);
        said = true;
    }
    _exit(code == 0 && answer.applied ? EXIT_SUCCESS : EXIT_FAILURE);
}

static void expect_word(int channel, char word)
{
    char byte = 0;
    CU_ASSERT_EQUAL(read(channel, &byte, 1), 1);
    CU_ASSERT_EQUAL(byte, word);
}

static pid_t worker(uint32_t slot, struct store_event_lock lock, int *channel)
{
    int ends[2];
    CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        work(slot, lock, ends[1]);
    }
    close(ends[1]);
    *channel = ends[0];
    expect_word(*channel, 'r');
    return child;
}

static void expect_success(pid_t child)
{
    int status = -1;
    CU_ASSERT_EQUAL(waitpid(child, &status, 0), child);
    CU_ASSERT_EQUAL(status, 0);
}

static bool taken(void)
{
    static char body[SHM_COMMIT_REQUEST_BYTES];
    uint32_t step = 1, slot, bytes;
    return commit_request_take(&segment, TAKER, &step, &slot, body, &bytes);
}

/* The taker commits and crashes; then the store is locked for longer than its owner waits. */
static void doubt_outlasts_a_locked_store(void)
{
    int channel;
    begin(20);
    CU_ASSERT_EQUAL_FATAL(write_lock_acquire(&segment.header->write_lock, 0), 0);
    pid_t owner = worker(OWNER, held.at[0], &channel);
    CU_ASSERT_EQUAL(write(channel, "g", 1), 1);
    CU_ASSERT_TRUE(UNTIL(PATIENCE_MS, taken()));
    fixture.store = fixture_open(false);
    CU_ASSERT_TRUE(answer(held.at[0], advances));
    sqlite3 *other = lock_store();
    commit_request_recover(&segment, TAKER);
    write_lock_release(&segment.header->write_lock);
    expect_word(channel, 'l');
    sqlite3_close(other);
    expect_success(owner);
    CU_ASSERT_EQUAL(stage_totals().processed, 1);
    close(channel);
    end();
}

static void lay_out(struct store_event_lock lock)
{
    struct store_answer answer = advances;
    answer.lock = lock;
    struct store_group_member own = {.source = fixture.source,
                                     .stage = fixture.stages[0],
                                     .answers = &answer,
                                     .count = 1};
    size_t bytes =
        process_group_codec_encode(&own, commit_request_body(&segment, OWNER), SHM_COMMIT_REQUEST_BYTES);
    CU_ASSERT_NOT_EQUAL(bytes, 0);
    commit_request_submit(&segment, OWNER, (uint32_t)bytes);
}

/* An owner crashes after its commit request was taken; its successor makes one while that transaction still
 * goes on. The crashed one's lock is lost, so the two results are not alike. */
static void a_successor_is_not_told_of_its_predecessor(void)
{
    uint32_t result;
    int channel;
    begin(PATIENCE_MS);
    lay_out((struct store_event_lock){held.at[0].event, held.at[0].token + 1});
    pid_t taker = worker(TAKER, held.at[1], &channel);
    fixture.store = fixture_open(false);
    sqlite3 *other = lock_store();
    CU_ASSERT_EQUAL(write(channel, "g", 1), 1);
    CU_ASSERT_TRUE(UNTIL(PATIENCE_MS, commit_request_poll(&segment, OWNER, &result) == COMMIT_REQUEST_TAKEN));
    commit_request_recover(&segment, OWNER);
    lay_out(held.at[2]);
    sqlite3_close(other);
    expect_success(taker);
    enum commit_request_state state = commit_request_poll(&segment, OWNER, &result);
    CU_ASSERT_TRUE(state == COMMIT_REQUEST_DONE || state == COMMIT_REQUEST_RETURNED);
    bool committed = stage_totals().processed == 2;
    CU_ASSERT_EQUAL(state == COMMIT_REQUEST_DONE && result == 1, committed);
    close(channel);
    end();
}

STORE_MAIN("group commit, in doubt",
           {"what may have been committed counts once, also after a locked store",
            doubt_outlasts_a_locked_store},
           {"a successor is not told of its predecessor's answers",
            a_successor_is_not_told_of_its_predecessor})
