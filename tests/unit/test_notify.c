/* SPDX-License-Identifier: MIT */
/* The messages to the service manager, against a socket of our own in its place. */
#include "supervisor/notify.h"

#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/lib/unit.h"

#define SECOND UINT64_C(1000000000)

/* The manager's end, bound to a path or (beginning with '@') an abstract name. */
static int manager_open(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, name, strlen(name));
    if (name[0] == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
    if (bind(fd, (struct sockaddr *)&address, bytes) != 0) {
        close(fd);
        return -1;
    }
    setenv("NOTIFY_SOCKET", name, 1);
    return fd;
}

static const char *manager_receives(int fd)
{
    static char message[2048];
    ssize_t got = recv(fd, message, sizeof message - 1, MSG_DONTWAIT);
    message[got > 0 ? got : 0] = '\0';
    return message;
}

static void check_both_ways(const char *name)
{
    int manager = manager_open(name);
    CU_ASSERT_FATAL(manager >= 0);
    struct notify notify;
    notify_open(&notify);
    CU_ASSERT_PTR_NULL(getenv("NOTIFY_SOCKET")); /* children are not asked */
    notify_send(&notify, "READY=1\nMAINPID=%d", 4711);
    CU_ASSERT_STRING_EQUAL(manager_receives(manager), "READY=1\nMAINPID=4711");
    notify_send(&notify, "STOPPING=1");
    CU_ASSERT_STRING_EQUAL(manager_receives(manager), "STOPPING=1");
    notify_close(&notify);
    notify_send(&notify, "STATUS=not received");
    CU_ASSERT_STRING_EQUAL(manager_receives(manager), "");
    close(manager);
}

static void test_path(void)
{
    char name[100];
    const char *directory = getenv("TMPDIR");
    snprintf(name, sizeof name, "%s/eventpipe-notify-%d", directory != NULL ? directory : "/tmp",
             (int)getpid());
    check_both_ways(name);
    unlink(name);
}

static void test_abstract_name(void)
{
    char name[100];
    snprintf(name, sizeof name, "@eventpipe-notify-%d", (int)getpid());
    check_both_ways(name);
}

static void test_without_a_manager(void)
{
    static const char *const useless[] = {
        NULL, "", "/", "relative", "vsock:2:1234", "/nonexistent/eventpipe/socket"};
    for (size_t i = 0; i < sizeof useless / sizeof useless[0]; i++) {
        if (useless[i] != NULL)
            setenv("NOTIFY_SOCKET", useless[i], 1);
        struct notify notify;
        notify_open(&notify);
        notify_send(&notify, "READY=1");
        CU_ASSERT_EQUAL(notify_send_watchdog(&notify, SECOND), UINT64_MAX);
        notify_close(&notify);
        notify_close(&notify);
    }
}

static void open_with_watchdog(struct notify *notify, int *manager, const char *usec, long pid)
{
    char name[100], number[32];
    snprintf(name, sizeof name, "@eventpipe-watchdog-%d", (int)getpid());
    *manager = manager_open(name);
    setenv("WATCHDOG_USEC", usec, 1);
    snprintf(number, sizeof number, "%ld", pid);
    setenv("WATCHDOG_PID", number, 1);
    notify_open(notify);
    CU_ASSERT_PTR_NULL(getenv("WATCHDOG_USEC"));
    CU_ASSERT_PTR_NULL(getenv("WATCHDOG_PID"));
}

static void test_watchdog_at_half_time(void)
{
    struct notify notify;
    int manager;
    open_with_watchdog(&notify, &manager, "4000000", getpid());
    CU_ASSERT_EQUAL(notify_send_watchdog(&notify, 10 * SECOND), 12 * SECOND);
    CU_ASSERT_STRING_EQUAL(manager_receives(manager), "WATCHDOG=1");
    CU_ASSERT_EQUAL(notify_send_watchdog(&notify, 11 * SECOND), 12 * SECOND);
    CU_ASSERT_STRING_EQUAL(manager_receives(manager), "");
    CU_ASSERT_EQUAL(notify_send_watchdog(&notify, 12 * SECOND), 14 * SECOND);
    CU_ASSERT_STRING_EQUAL(manager_receives(manager), "WATCHDOG=1");
    notify_close(&notify);
    close(manager);
}

static void test_watchdog_of_others(void)
{
    struct notify notify;
    int manager;
    open_with_watchdog(&notify, &manager, "4000000", (long)getpid() + 1);
    CU_ASSERT_EQUAL(notify_send_watchdog(&notify, SECOND), UINT64_MAX);
    notify_close(&notify);
    close(manager);
    open_with_watchdog(&notify, &manager, "soon", getpid());
    CU_ASSERT_EQUAL(notify_send_watchdog(&notify, SECOND), UINT64_MAX);
    CU_ASSERT_STRING_EQUAL(manager_receives(manager), "");
    notify_close(&notify);
    close(manager);
}

UNIT_MAIN("notify", {"messages reach a socket with a path", test_path},
          {"and one with an abstract name", test_abstract_name},
          {"without a manager nothing happens", test_without_a_manager},
          {"a sign of life at half the watchdog's time", test_watchdog_at_half_time},
          {"not when the watchdog is another process', or malformed", test_watchdog_of_others})
