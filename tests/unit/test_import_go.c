/* SPDX-License-Identifier: MIT */
/* A Go eventpipe's database as it is read: values exact, order, what cannot be read, and the file left alone.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/hash.h"
#include "tests/lib/import_rig.h"

static struct error error;
static struct import_go *go;
static struct import_row row;
static bool locked;

static void open_go(void)
{
    error = (struct error){0};
    int code = import_go_open(import_rig.path, NULL, NULL, &go, &error);
    if (code != 0)
        fprintf(stderr, "%s\n", error.message);
    CU_ASSERT_EQUAL_FATAL(code, 0);
    CU_ASSERT_EQUAL(import_rig_entries(import_rig.temporary), 0); /* the copy has lost its name already */
}

static void close_go(void)
{
    import_row_free(&row);
    import_go_close(&go);
    CU_ASSERT_PTR_NULL(go);
}

static void start(const char *source)
{
    CU_ASSERT_EQUAL_FATAL(import_go_select_source(go, source, &error), 0);
}

static bool next(void)
{
    int code = import_go_read_row(go, &row, &locked, &error);
    if (code < 0)
        fprintf(stderr, "%s\n", error.message);
    CU_ASSERT(code >= 0);
    return code == 1;
}

/* The file is refused, with this message and its name. */
static void expect_refused(int code, const char *expected)
{
    struct import_go *refused = NULL;
    error = (struct error){0};
    int found = import_go_open(import_rig.path, NULL, NULL, &refused, &error);
    if (found != code || strstr(error.message, expected) == NULL)
        fprintf(stderr, "expected %d \"%s\", found %d: %s\n", code, expected, found, error.message);
    CU_ASSERT_EQUAL(found, code);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, expected));
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "go?#.db"));
    CU_ASSERT_PTR_NULL(refused);
    CU_ASSERT_EQUAL(import_rig_entries(import_rig.temporary), 0);
}

/* ---- values ---- */

static void values_are_exact(void)
{
    import_rig_begin();
    sqlite3 *db = import_rig_create("INSERT INTO sources VALUES('s', 'c')");
    struct text event = {0}, context = {0};
    json_msgpack_write_map(&event, 10);
    import_rig_text(&event, "uid"), import_rig_text(&event, "u");
    import_rig_text(&event, "address"), import_rig_text(&event, "dev");
    import_rig_text(&event, "type"), import_rig_text(&event, "a/b; c=\"d\"");
    import_rig_text(&event, "payload"), json_msgpack_write_bytes(&event, "\t\0\xff", 3);
    import_rig_text(&event, "two63"), json_msgpack_write_uint(&event, UINT64_C(1) << 63);
    import_rig_text(&event, "max"), json_msgpack_write_uint(&event, UINT64_MAX);
    import_rig_text(&event, "least"), json_msgpack_write_int(&event, INT64_MIN);
    import_rig_text(&event, "minus"), json_msgpack_write_int(&event, -3);
    import_rig_text(&event, "nul"), json_msgpack_write_text(&event, "a\0b", 3);
    import_rig_text(&event, "float"), json_msgpack_write_double(&event, 0.1);
    json_msgpack_write_map(&context, 1);
    import_rig_text(&context, "pipelineContext");
    json_msgpack_write_map(&context, 2);
    import_rig_text(&context, "raw"), json_msgpack_write_bytes(&context, "\xfe", 1);
    import_rig_text(&context, "big"), json_msgpack_write_uint(&context, UINT64_MAX - 1);
    import_rig_add(db, "s", "u", 1, false, import_rig_packed(&event), import_rig_packed(&context));
    sqlite3_close(db);
    open_go();
    start("s");
    CU_ASSERT_TRUE_FATAL(next());
    CU_ASSERT_EQUAL(row.event.dead, STORE_REASON_NONE);
    CU_ASSERT_STRING_EQUAL(row.event.uid, "u");
    CU_ASSERT_STRING_EQUAL(row.event.address, "dev");
    CU_ASSERT_STRING_EQUAL(row.event.type, "a/b; c=\"d\"");
    CU_ASSERT_STRING_EQUAL(
        row.event.data,
        "{\"uid\":\"u\",\"address\":\"dev\",\"type\":\"a/b; c=\\\"d\\\"\",\"payload:b64\":\"CQD/\","
        "\"two63\":9223372036854775808,\"max\":18446744073709551615,"
        "\"least\":-9223372036854775808,\"minus\":-3,\"nul\":\"a\\u0000b\",\"float\":0.1}");
    CU_ASSERT_EQUAL(row.event.data_bytes, strlen(row.event.data));
    CU_ASSERT_STRING_EQUAL(row.context.text, "{\"raw:b64\":\"/g==\",\"big\":18446744073709551614}");
    CU_ASSERT_PTR_NULL(row.other_uid);
    CU_ASSERT_EQUAL(row.mark_count, 0);
    CU_ASSERT_FALSE(next());
    close_go();
    base_text_free(&event);
    base_text_free(&context);
    import_rig_end();
}

static void rows_come_in_order(void)
{
    static const char *const expected[] = {"third", "fifth", "first", "second", "fourth"};
    import_rig_begin();
    sqlite3 *db = import_rig_create("INSERT INTO sources VALUES('s', 'c')");
    import_rig_row(db, "s", "first", 7, true, "a+ b-");
    import_rig_row(db, "s", "second", 7, false, NULL); /* the same index: as they were put in */
    import_rig_row(db, "s", "third", -2, true, "");
    import_rig_row(db, "s", "fourth", 70, false, NULL);
    import_rig_row(db, "s", "fifth", 6, false, NULL);
    import_rig_row(db, "t", "other", 0, false, NULL);
    sqlite3_close(db);
    open_go();
    for (int again = 0; again < 2; again++) {
        start("s");
        for (size_t i = 0; i < 5; i++) {
            CU_ASSERT_TRUE_FATAL(next());
            CU_ASSERT_STRING_EQUAL(row.event.uid, expected[i]);
            CU_ASSERT_EQUAL(locked, i == 0 || i == 2);
            CU_ASSERT_EQUAL(row.mark_count, i == 2 ? 2 : 0);
            CU_ASSERT_EQUAL(row.context.bytes > 0, i == 0 || i == 2);
        }
        CU_ASSERT_FALSE(next());
    }
    start("nobody");
    CU_ASSERT_FALSE(next());
    close_go();
    import_rig_end();
}

static void sources_are_listed(void)
{
    import_rig_begin();
    sqlite3 *db =
        import_rig_create("INSERT INTO sources VALUES('b', 'cursor of b'), ('a', ''), ('empty', 'x')");
    import_rig_row(db, "b", "1", 1, false, NULL);
    import_rig_row(db, "orphan", "2", 1, false, NULL); /* SQLite does not hold the reference by itself */
    import_rig_row(db, "orphan", "3", 2, false, NULL);
    sqlite3_close(db);
    open_go();
    const struct import_go_source *sources;
    CU_ASSERT_EQUAL_FATAL(import_go_list_sources(go, &sources), 4);
    CU_ASSERT_STRING_EQUAL(sources[0].id, "a");
    CU_ASSERT_STRING_EQUAL(sources[0].cursor, "");
    CU_ASSERT_STRING_EQUAL(sources[1].id, "b");
    CU_ASSERT_STRING_EQUAL(sources[1].cursor, "cursor of b");
    CU_ASSERT_STRING_EQUAL(sources[2].id, "empty");
    CU_ASSERT_STRING_EQUAL(sources[3].id, "orphan");
    CU_ASSERT_PTR_NULL(sources[3].cursor);
    close_go();
    sqlite3_close(import_rig_create(""));
    open_go();
    CU_ASSERT_EQUAL(import_go_list_sources(go, &sources), 0);
    close_go();
    import_rig_end();
}

static void the_row_names_the_event(void)
{
    import_rig_begin();
    sqlite3 *db = import_rig_create("");
    struct text event = {0};
    import_rig_event(&event, "inner");
    import_rig_add(db, "s", "outer", 1, false, import_rig_packed(&event), IMPORT_RIG_NULL);
    import_rig_add(db, "s", "none", 2, false, IMPORT_RIG_TEXT("\x81\xa1n\x01"), IMPORT_RIG_NULL);
    import_rig_add(db, "s", "void", 3, false, IMPORT_RIG_TEXT("\x80"), IMPORT_RIG_NULL);
    import_rig_add(db, "s", "number", 4, false, IMPORT_RIG_TEXT("\x81\xa3uid\x05"), IMPORT_RIG_NULL);
    import_rig_add(db, "s", "bad \xff id", 5, false, IMPORT_RIG_TEXT("\x81\xa3uid\xc0"), IMPORT_RIG_NULL);
    import_rig_add(db, "s", "bad \xfe id", 6, false, IMPORT_RIG_TEXT("\x81\xa3uid\xc0"), IMPORT_RIG_NULL);
    char bad[2][HASH_UID_DIGITS + 1]; /* no text: each becomes a uid of its own */
    base_hash_write_hex("bad \xff id", 8, bad[0], HASH_UID_DIGITS);
    base_hash_write_hex("bad \xfe id", 8, bad[1], HASH_UID_DIGITS);
    sqlite3_close(db);
    base_text_free(&event);
    const struct {
        const char *uid, *other, *data;
    } expected[] = {
        {"outer", "inner", "{\"uid\":\"inner\",\"address\":\"device-1\",\"type\":\"t\"}"},
        {"none", NULL, "{\"uid\":\"none\",\"n\":1}"},
        {"void", NULL, "{\"uid\":\"void\"}"},
        {"number", "5", "{\"uid\":5}"},
        {bad[0], NULL, "{\"uid\":null}"},
        {bad[1], NULL, "{\"uid\":null}"},
    };
    open_go();
    start("s");
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        CU_ASSERT_TRUE_FATAL(next());
        CU_ASSERT_STRING_EQUAL(row.event.uid, expected[i].uid);
        CU_ASSERT_STRING_EQUAL(row.event.data, expected[i].data);
        CU_ASSERT_EQUAL(row.event.dead, STORE_REASON_NONE);
        CU_ASSERT_EQUAL(row.other_uid == NULL, expected[i].other == NULL);
        if (row.other_uid != NULL && expected[i].other != NULL)
            CU_ASSERT_STRING_EQUAL(row.other_uid, expected[i].other);
    }
    close_go();
    import_rig_end();
}

/* ---- what cannot be read ---- */

#define GOOD "\x81\xa3uid\xa1x"
#define CONTEXT(map) "\x81\xafpipelineContext" map
#define STAGES(map) "\x81\xafprocessedStages" map

static const struct {
    struct import_rig_bytes data, context;
    const char *error; /* NULL: all is well */
    const char *kept;  /* of the event; NULL: its raw bytes */
} unreadable[] = {
    {IMPORT_RIG_TEXT(""), {NULL, 0}, "data", NULL},
    {IMPORT_RIG_TEXT("\x93\x01\x02\x03"), {NULL, 0}, "expected a map, found an array", NULL},
    {IMPORT_RIG_TEXT("\x82\xa3uid\xa1x"), {NULL, 0}, "data", NULL}, /* ends too early */
    {IMPORT_RIG_TEXT(GOOD "\0\0"), {NULL, 0}, "unexpected bytes after the value: 2", NULL},
    {IMPORT_RIG_TEXT("\x81\xa3uid\xc7\x01\x05z"), {NULL, 0}, "data", NULL}, /* an extension nobody knows */
    {IMPORT_RIG_TEXT("\xdf\xff\xff\xff\xff"), {NULL, 0}, "data", NULL},     /* claims what is not there */
    {IMPORT_RIG_TEXT(GOOD), IMPORT_RIG_TEXT(""), NULL, "{\"uid\":\"x\"}"},
    {IMPORT_RIG_TEXT(GOOD), IMPORT_RIG_TEXT("\xc0"), NULL, "{\"uid\":\"x\"}"},
    {IMPORT_RIG_TEXT(GOOD), IMPORT_RIG_TEXT("\x80"), NULL, "{\"uid\":\"x\"}"},
    {IMPORT_RIG_TEXT(GOOD), IMPORT_RIG_TEXT(CONTEXT("\xc0")), NULL, "{\"uid\":\"x\"}"},
    {IMPORT_RIG_TEXT(GOOD), IMPORT_RIG_TEXT(STAGES("\xc0")), NULL, "{\"uid\":\"x\"}"},
    {IMPORT_RIG_TEXT(GOOD), IMPORT_RIG_TEXT("\xff"),
     "context in the database of the Go eventpipe cannot be read: expected a map", "{\"uid\":\"x\"}"},
    {IMPORT_RIG_TEXT(GOOD), IMPORT_RIG_TEXT("\x81"), "context", "{\"uid\":\"x\"}"},
    {IMPORT_RIG_TEXT(GOOD), IMPORT_RIG_TEXT("\x80\x80"), "unexpected bytes after the value: 1",
     "{\"uid\":\"x\"}"},
    {IMPORT_RIG_TEXT(GOOD), IMPORT_RIG_TEXT(CONTEXT("\xa1y")), "pipelineContext: expected a map, found text",
     "{\"uid\":\"x\"}"},
    {IMPORT_RIG_TEXT(GOOD), IMPORT_RIG_TEXT(CONTEXT("\x90")),
     "pipelineContext: expected a map, found an array", "{\"uid\":\"x\"}"},
    {IMPORT_RIG_TEXT(GOOD), IMPORT_RIG_TEXT(CONTEXT("\x81\xa1k\xd4\x05z")), "context", "{\"uid\":\"x\"}"},
    {IMPORT_RIG_TEXT(GOOD), IMPORT_RIG_TEXT(STAGES("\x90")), "processedStages: expected a map",
     "{\"uid\":\"x\"}"},
    {IMPORT_RIG_TEXT(GOOD), IMPORT_RIG_TEXT(STAGES("\x81\xa1r\x01")),
     "r: expected true or false, found an integer", "{\"uid\":\"x\"}"},
    {IMPORT_RIG_TEXT(GOOD), IMPORT_RIG_TEXT(STAGES("\x81\x01\xc3")), "a stage's name is an integer",
     "{\"uid\":\"x\"}"},
    {IMPORT_RIG_TEXT(GOOD),
     IMPORT_RIG_TEXT(STAGES("\x81\xa3"
                            "a\nb\xc3")),
     "line feed", "{\"uid\":\"x\"}"},
    {IMPORT_RIG_TEXT("\xc0"), IMPORT_RIG_TEXT("\x90"),
     "data in the database of the Go eventpipe cannot be read: expected a map, "
     "found nil",
     NULL},
};

static void what_cannot_be_read_is_dead(void)
{
    size_t count = sizeof unreadable / sizeof unreadable[0];
    import_rig_begin();
    sqlite3 *db = import_rig_create("");
    for (size_t i = 0; i < count; i++) {
        char id[16];
        snprintf(id, sizeof id, "%zu", i);
        import_rig_add(db, "s", id, (int)i, false, unreadable[i].data, unreadable[i].context);
    }
    sqlite3_close(db);
    open_go();
    start("s");
    for (size_t i = 0; i < count; i++) {
        CU_ASSERT_TRUE_FATAL(next());
        bool dead = unreadable[i].error != NULL;
        const char *error = row.event.error != NULL ? row.event.error : "";
        bool right = row.event.dead == (dead ? STORE_REASON_CORRUPT : STORE_REASON_NONE) &&
                     strstr(error, dead ? unreadable[i].error : "") != NULL;
        if (!right)
            fprintf(stderr, "case %zu: \"%s\"\n", i, error);
        CU_ASSERT_TRUE(right);
        CU_ASSERT_EQUAL(row.context.bytes, 0);
        CU_ASSERT_EQUAL(row.mark_count, 0);
        struct import_rig_bytes kept =
            unreadable[i].kept != NULL
                ? (struct import_rig_bytes){unreadable[i].kept, strlen(unreadable[i].kept)}
                : unreadable[i].data;
        CU_ASSERT_EQUAL_FATAL(row.event.data_bytes, kept.bytes);
        CU_ASSERT_EQUAL(memcmp(row.event.data, kept.at, kept.bytes), 0);
    }
    CU_ASSERT_FALSE(next());
    close_go();
    import_rig_end();
}

static void a_mark_that_comes_twice(void)
{
    import_rig_begin();
    sqlite3 *db = import_rig_create("");
    import_rig_row(db, "s", "1", 1, false, "b+ a- b- a+ c+");
    sqlite3_close(db);
    open_go();
    start("s");
    CU_ASSERT_TRUE_FATAL(next());
    CU_ASSERT_EQUAL_FATAL(row.mark_count, 3);
    for (size_t i = 0; i < 3; i++)
        CU_ASSERT_EQUAL(row.marks[i].done, strcmp(row.marks[i].stage, "b") != 0); /* the last one counts */
    close_go();
    import_rig_end();
}

/* ---- other files ---- */

static void other_files_are_refused(void)
{
    import_rig_begin();
    expect_refused(EP_ENOENT, "No such file");
    sqlite3_close(import_rig_create("PRAGMA user_version = 2"));
    expect_refused(EP_EINVAL, "user_version is 2; expected 1");
    sqlite3_close(import_rig_create("PRAGMA application_id = 77"));
    expect_refused(EP_EINVAL, "another program (application id 77)");
    sqlite3_close(import_rig_create("DROP TABLE items"));
    expect_refused(EP_EINVAL, "no table \"items\"");
    sqlite3_close(import_rig_create("DROP TABLE sources; CREATE VIEW sources AS SELECT 1 id, 2 cursor"));
    expect_refused(EP_EINVAL, "no table \"sources\"");
    sqlite3_close(import_rig_create("ALTER TABLE items DROP COLUMN context"));
    expect_refused(EP_EINVAL, "no column \"context\"");
    sqlite3_close(import_rig_create(
        "DROP TABLE items; CREATE TABLE items(source_id, id, data, context, locked, order_index);"
        "INSERT INTO items VALUES('s', 'a', 1, 2, 3, 4), ('s', 'a', 1, 2, 3, 5)"));
    expect_refused(EP_EINVAL, "two rows of one source and id");
    /* an index that has lost a row would hide it */
    sqlite3 *db = import_rig_create("CREATE INDEX late ON items(id)");
    import_rig_row(db, "s", "a", 1, false, "");
    import_rig_run(
        db,
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, '(id)', '(order_index)') "
        "WHERE name = 'late'");
    sqlite3_close(db);
    expect_refused(EP_EINVAL, "the database is damaged");
    CU_ASSERT_EQUAL(truncate(import_rig.path, 0), 0);
    expect_refused(EP_EINVAL, "user_version is 0; expected 1");
    CU_ASSERT_EQUAL(unlink(import_rig.path), 0);
    FILE *file = fopen(import_rig.path, "w");
    for (int i = 0; i < 400; i++)
        fputs("a diary, and no database. ", file);
    fclose(file);
    expect_refused(EP_EINVAL, "not an SQLite database");
    CU_ASSERT_EQUAL(unlink(import_rig.path), 0);
    CU_ASSERT_EQUAL(mkfifo(import_rig.path, 0600), 0);
    expect_refused(EP_EINVAL, "expected a regular file that holds a database");
    CU_ASSERT_EQUAL(unlink(import_rig.path), 0);
    CU_ASSERT_EQUAL(mkdir(import_rig.path, 0700), 0);
    expect_refused(EP_EINVAL, "expected a regular file that holds a database");
    CU_ASSERT_EQUAL(rmdir(import_rig.path), 0);
    sqlite3_close(import_rig_create(""));
    char wal[PATH_MAX + 8]; /* it would be read for ever */
    snprintf(wal, sizeof wal, "%s-wal", import_rig.path);
    CU_ASSERT_EQUAL(symlink("/dev/zero", wal), 0);
    expect_refused(EP_EINVAL, "-wal: expected a regular file that holds a database");
    CU_ASSERT_EQUAL(unlink(wal), 0);
    import_rig_end();
}

static void damage_is_said(void)
{
    import_rig_begin();
    sqlite3 *db = import_rig_create("INSERT INTO sources VALUES('s', '')");
    for (int i = 0; i < 500; i++) {
        char id[16];
        snprintf(id, sizeof id, "%d", i);
        import_rig_row(db, "s", id, i, false, "a+");
    }
    sqlite3_close(db);
    int fd = open(import_rig.path, O_WRONLY);
    char rubbish[4096];
    memset(rubbish, 0xa5, sizeof rubbish);
    for (int page = 8; page < 14; page++)
        CU_ASSERT_EQUAL(pwrite(fd, rubbish, sizeof rubbish, page * 4096L), 4096);
    close(fd);
    int code = import_go_open(import_rig.path, NULL, NULL, &go, &error);
    if (code == 0) {
        start("s");
        while ((code = import_go_read_row(go, &row, &locked, &error)) == 1)
            continue;
    }
    CU_ASSERT_EQUAL(code, EP_EINVAL);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "damaged"));
    close_go();
    import_rig_end();
}

UNIT_MAIN("import: the Go eventpipe's database",
          {"binary values, integers and NUL are exact", values_are_exact},
          {"rows come by order_index, locked or not", rows_come_in_order},
          {"its sources", sources_are_listed}, {"the row's id is the uid", the_row_names_the_event},
          {"what cannot be read is dead, with the reason", what_cannot_be_read_is_dead},
          {"a mark that comes twice", a_mark_that_comes_twice},
          {"other files are refused, and why", other_files_are_refused}, {"damage is said", damage_is_said})
