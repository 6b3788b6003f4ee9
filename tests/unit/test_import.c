/* SPDX-License-Identifier: MIT */
/* An import from the file to the store: which source becomes which, where events go on, the account of it,
 * and that nothing comes twice. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "src/import/import.h"
#include "tests/lib/import_rig.h"
#include "tests/lib/store_fixture.h"

static struct error error;
static struct import_go *go;
static struct import_plan plan;

/* The configuration: quakes has the three stages of the store fixture, other has one. */
static struct stage_config quake_stages[] = {{.name = (char *)"first"},
                                             {.name = (char *)"second"},
                                             {.name = (char *)"third"}};
static struct stage_config other_stages[] = {{.name = (char *)"only"}};
static struct source_config sources[] = {
    {.id = (char *)"quakes", .stages = quake_stages, .stage_count = 3},
    {.id = (char *)"other", .stages = other_stages, .stage_count = 1},
};
static const struct config config = {.sources = sources, .source_count = 2};

static void begin(void)
{
    fixture_begin();
    import_rig_begin();
}

static void end(void)
{
    import_rig_end();
    fixture_end();
}

static int make_plan(const char *only, const char *as)
{
    error = (struct error){0};
    CU_ASSERT_EQUAL_FATAL(import_go_open(import_rig.path, NULL, NULL, &go, &error), 0);
    int code = import_make_plan(go, &config, only, as, &plan, &error);
    if (code != 0)
        import_go_close(&go);
    return code;
}

static void close_plan(void)
{
    import_close(&plan);
    import_go_close(&go);
}

/* Runs it for the fixture's store; the plan stays open for its account. */
static int run(bool trial, bool without_store)
{
    for (size_t i = 0; i < plan.mapping_count; i++)
        plan.mappings[i].store_id = strcmp(plan.mappings[i].source->id, "quakes") == 0 ? fixture.source : 0;
    return import_run(&plan, without_store ? NULL : fixture.store, trial, 7000, &error);
}

/* ---- the plan ---- */

static void sources_find_each_other(void)
{
    begin();
    sqlite3_close(import_rig_create("INSERT INTO sources VALUES('quakes', 'q'), ('other', '')"));
    CU_ASSERT_EQUAL_FATAL(make_plan(NULL, NULL), 0);
    CU_ASSERT_EQUAL_FATAL(plan.mapping_count, 2);
    CU_ASSERT_STRING_EQUAL(plan.mappings[0].from_id, "other");
    CU_ASSERT_PTR_EQUAL(plan.mappings[0].source, &sources[1]);
    CU_ASSERT_PTR_EQUAL(plan.mappings[1].source, &sources[0]);
    close_plan();
    CU_ASSERT_EQUAL_FATAL(make_plan("other", "quakes"), 0);
    CU_ASSERT_EQUAL_FATAL(plan.mapping_count, 1);
    CU_ASSERT_STRING_EQUAL(plan.mappings[0].from_id, "other");
    CU_ASSERT_PTR_EQUAL(plan.mappings[0].source, &sources[0]);
    close_plan();
    CU_ASSERT_EQUAL(make_plan(NULL, "quakes"), EP_EINVAL);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "the file has 2 sources"));
    CU_ASSERT_EQUAL(make_plan("nobody", NULL), EP_ENOENT);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "no source \"nobody\"; it has other, quakes"));
    CU_ASSERT_EQUAL(make_plan("other", "nobody"), EP_ECONFIG);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "no source \"nobody\"; it has quakes, other"));
    sqlite3_close(import_rig_create("INSERT INTO sources VALUES('quakes', 'q'), ('stranger', '')"));
    CU_ASSERT_EQUAL(make_plan(NULL, NULL), EP_ECONFIG);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "no source \"stranger\"; it has quakes, other"));
    CU_ASSERT_EQUAL(make_plan("quakes", NULL), 0);
    close_plan();
    sqlite3_close(import_rig_create("INSERT INTO sources VALUES('stranger', '')"));
    CU_ASSERT_EQUAL(make_plan(NULL, "quakes"), 0); /* the only one needs no --source */
    CU_ASSERT_EQUAL(plan.mapping_count, 1);
    close_plan();
    end();
}

/* ---- the account ---- */

static void fill(void)
{
    sqlite3 *db = import_rig_create("INSERT INTO sources VALUES('quakes', 'cursor-9')");
    struct text event = {0};
    import_rig_row(db, "quakes", "a", 1, true, "second- first+");
    import_rig_row(db, "quakes", "b", 2, false, "third+ zoo+ second+ attic+ first+");
    import_rig_row(db, "quakes", "c", 3, true, "second+ zoo-");
    import_rig_row(db, "quakes", "d", 4, true, NULL);
    import_rig_row(db, "quakes", "e", 5, false, "second+ first+ third-");
    import_rig_add(db, "quakes", "f", 6, true, IMPORT_RIG_TEXT("\xc1\xc1"), IMPORT_RIG_NULL);
    import_rig_event(&event, "f");
    import_rig_add(db, "quakes", "g", 7, false, import_rig_packed(&event), IMPORT_RIG_NULL);
    import_rig_add(db, "quakes", "h", 8, false, import_rig_packed(&event), IMPORT_RIG_TEXT("\x01"));
    base_text_free(&event);
    sqlite3_close(db);
}

static void expect_account(void)
{
    const struct import_mapping *mapping = &plan.mappings[0];
    CU_ASSERT_EQUAL(mapping->imported_count, 8);
    CU_ASSERT_EQUAL(mapping->known_count, 0);
    CU_ASSERT_EQUAL(mapping->corrupt_count, 2);
    CU_ASSERT_EQUAL(mapping->locked_count, 4);
    CU_ASSERT_EQUAL(mapping->stage_event_counts[0], 3); /* c, d, g */
    CU_ASSERT_EQUAL(mapping->stage_event_counts[1], 1); /* a */
    CU_ASSERT_EQUAL(mapping->stage_event_counts[2], 1); /* e */
    CU_ASSERT_EQUAL(mapping->complete_count, 1);        /* b */
    CU_ASSERT_EQUAL_FATAL(mapping->unknown_stage_count, 2);
    CU_ASSERT_STRING_EQUAL(mapping->unknown_stages[0].name, "attic");
    CU_ASSERT(mapping->unknown_stages[0].done_count == 1 && mapping->unknown_stages[0].waiting_count == 0);
    CU_ASSERT_STRING_EQUAL(mapping->unknown_stages[1].name, "zoo");
    CU_ASSERT(mapping->unknown_stages[1].done_count == 1 && mapping->unknown_stages[1].waiting_count == 1);
    CU_ASSERT_EQUAL(mapping->other_uid_count, 2);
    CU_ASSERT_STRING_EQUAL(mapping->first_row_uid, "g");
    CU_ASSERT_STRING_EQUAL(mapping->first_event_uid, "f");
    CU_ASSERT_TRUE(mapping->is_cursor_set);
}

static int on_item(const struct store_item *item, void *user)
{
    char *text = user;
    size_t used = strlen(text);
    snprintf(text + used, 4096 - used, "%s %s [%s] %.*s\n", item->uid, store_state_name(item->state),
             item->done, (int)item->context_bytes, item->context);
    return 0;
}

static void events_go_on_where_they_were(void)
{
    static char text[4096];
    struct store_select all = {.state = -1};
    begin();
    fill();
    for (int without_store = 1; without_store >= 0; without_store--) { /* what a trial says is what is done */
        CU_ASSERT_EQUAL_FATAL(make_plan(NULL, NULL), 0);
        CU_ASSERT_EQUAL(run(true, without_store), 0);
        expect_account();
        close_plan();
        CU_ASSERT_EQUAL(totals().fetched, 0);
    }
    CU_ASSERT_EQUAL_FATAL(make_plan(NULL, NULL), 0);
    CU_ASSERT_EQUAL(run(false, false), 0);
    expect_account();
    close_plan();
    text[0] = '\0';
    CU_ASSERT_EQUAL(store_list(fixture.store, &all, true, on_item, text), 0);
    CU_ASSERT_STRING_EQUAL(text, "a ready [first\n] {\"note\":\"a\"}\n"
                                 "b ready [first\nsecond\nthird\nattic\nzoo\n] {\"note\":\"b\"}\n"
                                 "c ready [second\n] {\"note\":\"c\"}\n"
                                 "d ready [] \n"
                                 "e ready [first\nsecond\n] {\"note\":\"e\"}\n"
                                 "f dead [] \n"
                                 "g ready [] \n"
                                 "h dead [] \n");
    CU_ASSERT(totals().live == 8 && totals().dead == 2 && totals().injected == 8);
    end();
}

static void again_there_is_nothing_new(void)
{
    begin();
    fill();
    for (int round = 0; round < 3; round++) {
        CU_ASSERT_EQUAL_FATAL(make_plan(NULL, NULL), 0);
        CU_ASSERT_EQUAL(run(round == 1, false), 0);
        CU_ASSERT_EQUAL(plan.mappings[0].imported_count, round == 0 ? 8 : 0);
        CU_ASSERT_EQUAL(plan.mappings[0].known_count, round == 0 ? 0 : 8);
        CU_ASSERT_EQUAL(plan.mappings[0].locked_count, round == 0 ? 4 : 0);
        CU_ASSERT_EQUAL(plan.mappings[0].stage_event_counts[0], round == 0 ? 3 : 0);
        CU_ASSERT_EQUAL(plan.mappings[0].unknown_stage_count, round == 0 ? 2 : 0);
        CU_ASSERT_EQUAL(plan.mappings[0].is_cursor_set, round == 0);
        close_plan();
        struct held held;
        claim(&held, 10, 8000);
        CU_ASSERT_EQUAL(held.count, round == 0 ? 6 : 0);
        for (size_t i = 0; i < held.count; i++)
            CU_ASSERT_TRUE(answer(held.at[i], (struct store_answer){.change = STORE_COMPLETE}));
    }
    CU_ASSERT(totals().live == 2 && totals().completed == 6 && totals().fetched == 8);
    end();
}

static void a_source_the_store_has_not_yet(void)
{
    begin();
    sqlite3 *db = import_rig_create("INSERT INTO sources VALUES('quakes', ''), ('other', 'o')");
    import_rig_row(db, "other", "x", 1, false, "only+");
    import_rig_row(db, "quakes", "u0", 1, true, "first+");
    sqlite3_close(db);
    CU_ASSERT_EQUAL(ingest("u", 0, 1).stored, 1);
    CU_ASSERT_EQUAL_FATAL(make_plan(NULL, NULL), 0);
    CU_ASSERT_EQUAL(run(true, false), 0);
    CU_ASSERT(plan.mappings[0].imported_count == 1 && plan.mappings[0].complete_count == 1 &&
              plan.mappings[0].is_cursor_set);
    CU_ASSERT(plan.mappings[1].known_count == 1 && plan.mappings[1].locked_count == 0 &&
              !plan.mappings[1].is_cursor_set);
    close_plan();
    end();
}

/* A page of rows is rubbish: the rows before it are not taken either. */
static void a_damaged_file_is_refused(void)
{
    begin();
    sqlite3 *db = import_rig_create("INSERT INTO sources VALUES('quakes', 'c')");
    import_rig_run(db, "CREATE TABLE apart(x)");
    for (int i = 0; i < 2000; i++) {
        char id[16];
        snprintf(id, sizeof id, "%06d", i);
        import_rig_row(db, "quakes", id, i, false, "first+");
    }
    /* the page with the last rows themselves, which neither index leads through */
    sqlite3_stmt *statement;
    sqlite3_prepare_v2(db, "SELECT max(pageno), 4096 FROM dbstat WHERE name = 'items' AND pagetype = 'leaf'",
                       -1, &statement, NULL);
    long page = 0;
    if (statement != NULL && sqlite3_step(statement) == SQLITE_ROW)
        page = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(db);
    CU_ASSERT_FATAL(page > 10);
    char rubbish[4096];
    memset(rubbish, 0xa5, sizeof rubbish);
    int fd = open(import_rig.path, O_WRONLY);
    CU_ASSERT_EQUAL(pwrite(fd, rubbish, sizeof rubbish, (page - 1) * 4096), 4096);
    close(fd);
    CU_ASSERT_EQUAL(import_go_open(import_rig.path, NULL, NULL, &go, &error), EP_EINVAL);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "damaged"));
    CU_ASSERT_EQUAL(totals().fetched, 0);
    end();
}

/* What the store refuses is said with the store's message. */
static void a_store_that_refuses(void)
{
    begin();
    fill();
    struct store *reader = fixture_open(true);
    CU_ASSERT_EQUAL_FATAL(make_plan(NULL, NULL), 0);
    plan.mappings[0].store_id = fixture.source;
    CU_ASSERT_EQUAL(import_run(&plan, reader, false, 7000, &error), EP_EINVAL);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "for reading only"));
    close_plan();
    store_close(&reader);
    end();
}

STORE_MAIN("import", {"sources of the file become those of the configuration", sources_find_each_other},
           {"events go on where they were", events_go_on_where_they_were},
           {"again there is nothing new", again_there_is_nothing_new},
           {"a source that the store has not yet", a_source_the_store_has_not_yet},
           {"a damaged file is refused", a_damaged_file_is_refused},
           {"a store that refuses", a_store_that_refuses})
