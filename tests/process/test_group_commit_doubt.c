/* SPDX-License-Identifier: MIT */
/* What an owner of an offer is told when others die: never the result of another's answers, and what was in
 * doubt counts once, however often its commit is tried. */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "shm/write_lock.h"
#include "src/process/group_commit.h"
#include "src/process/group_codec.h"
#include "tests/unit/fake_segment.h"
#include "tests/unit/store_files.h"

#define PATIENCE_MS UINT64_C(120000)
#include "tests/process/until.h"

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
    struct store_claim wanted = held_claim(&held, EVENTS);
    CU_ASSERT_EQUAL_FATAL(ingest_claiming("u", 0, EVENTS, NULL, &wanted).claimed, EVENTS);
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
    CU_ASSERT_EQUAL_FATAL(sqlite3_open(database(), &other), SQLITE_OK);
    CU_ASSERT_EQUAL_FATAL(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    return other;
}

/* A worker that commits one answer once it is told to, as worker_commit does. It says that it is ready, and
 * when it has found the store locked. */
static void work(uint32_t slot, struct store_lease lease, int talk)
{
    static struct group group;
    char byte;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    fixture.options.gate = &segment.header->gate;
    group.segment = &segment;
    group.slot = slot;
    group.store = fixture_open(false);
    if (write(talk, "r", 1) != 1 || read(talk, &byte, 1) != 1)
        _exit(EXIT_FAILURE);
    struct store_answer answer = advances;
    answer.lease = lease;
    bool said = false;
    int code;
    while ((code = group_commit(&group, fixture.source, fixture.stages[0], &answer, 1)) == EP_ESTOREBUSY) {
        if (!said && write(talk, "l", 1) != 1)
            _exit(EXIT_FAILURE);
        said = true;
    }
    _exit(code == 0 && answer.applied ? EXIT_SUCCESS : EXIT_FAILURE);
}

static void expect_word(int talk, char word)
{
    char byte = 0;
    CU_ASSERT_EQUAL(read(talk, &byte, 1), 1);
    CU_ASSERT_EQUAL(byte, word);
}

static pid_t worker(uint32_t slot, struct store_lease lease, int *talk)
{
    int ends[2];
    CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        work(slot, lease, ends[1]);
    }
    close(ends[1]);
    *talk = ends[0];
    expect_word(*talk, 'r');
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
    static char body[SHM_OFFER_BYTES];
    uint32_t step = 1, slot, bytes;
    return offer_take(&segment, TAKER, &step, &slot, body, &bytes);
}

/* The taker commits and dies; then the store is locked for longer than its owner waits. */
static void doubt_outlasts_a_locked_store(void)
{
    int talk;
    begin(20);
    CU_ASSERT_EQUAL_FATAL(gate_enter(&segment.header->gate, 0), 0);
    pid_t owner = worker(OWNER, held.at[0], &talk);
    CU_ASSERT_EQUAL(write(talk, "g", 1), 1);
    CU_ASSERT_TRUE(UNTIL(taken()));
    fixture.store = fixture_open(false);
    CU_ASSERT_TRUE(answer(held.at[0], advances));
    sqlite3 *other = lock_store();
    offer_bury(&segment, TAKER);
    gate_leave(&segment.header->gate);
    expect_word(talk, 'l');
    sqlite3_close(other);
    expect_success(owner);
    CU_ASSERT_EQUAL(stage_totals().processed, 1);
    close(talk);
    end();
}

static void lay_out(struct store_lease lease)
{
    struct store_answer answer = advances;
    answer.lease = lease;
    struct store_group own = {.source = fixture.source,
                              .stage = fixture.stages[0],
                              .answers = &answer,
                              .count = 1};
    size_t bytes = group_pack(&own, offer_body(&segment, OWNER), SHM_OFFER_BYTES);
    CU_ASSERT_NOT_EQUAL(bytes, 0);
    offer_make(&segment, OWNER, (uint32_t)bytes);
}

/* An owner dies after its offer was taken; its successor makes one while that transaction still goes on. The
 * dead one's lock is lost, so the two results are not alike. */
static void a_successor_is_not_told_of_its_predecessor(void)
{
    uint32_t result;
    int talk;
    begin(PATIENCE_MS);
    lay_out((struct store_lease){held.at[0].event, held.at[0].token + 1});
    pid_t taker = worker(TAKER, held.at[1], &talk);
    fixture.store = fixture_open(false);
    sqlite3 *other = lock_store();
    CU_ASSERT_EQUAL(write(talk, "g", 1), 1);
    CU_ASSERT_TRUE(UNTIL(offer_look(&segment, OWNER, &result) == OFFER_TAKEN));
    offer_bury(&segment, OWNER);
    lay_out(held.at[2]);
    sqlite3_close(other);
    expect_success(taker);
    enum offer_state state = offer_look(&segment, OWNER, &result);
    CU_ASSERT_TRUE(state == OFFER_DONE || state == OFFER_BACK);
    bool committed = stage_totals().processed == 2;
    CU_ASSERT_EQUAL(state == OFFER_DONE && result == 1, committed);
    close(talk);
    end();
}

STORE_MAIN("group commit, in doubt",
           {"what may have been committed counts once, also after a locked store",
            doubt_outlasts_a_locked_store},
           {"a successor is not told of its predecessor's answers",
            a_successor_is_not_told_of_its_predecessor})
