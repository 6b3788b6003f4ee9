/* SPDX-License-Identifier: MIT */
/* The supervisor as others see it: the control socket, a second supervisor, the service manager. */
#include "tests/lib/supervisor_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#define SUPERVISOR_CLIENTS_TESTED 32 /* as many as the supervisor serves at once */
#define ANSWERS(request, code, text)              \
    CU_ASSERT_STRING_EQUAL(instance_ask(request), \
                           "{\"end\":true,\"code\":" #code ",\"message\":\"" text "\"}\n")

static void start_for_good(uint32_t events)
{
    instance_prepare(events);
    atomic_store(&instance_world->never_ends, 1);
}

static void stop(void)
{
    kill(instance.pid, SIGTERM);
    struct error error;
    CU_ASSERT_EQUAL(instance_wait(&error), 0);
    instance_end();
}

static void test_malformed_requests(void)
{
    start_for_good(1);
    instance_start();
    CU_ASSERT_FATAL(instance_runs());
    ANSWERS("hello\n", 2, "expected one line, a JSON object with \\\"command\\\"");
    ANSWERS("[]\n", 2, "expected one line, a JSON object with \\\"command\\\"");
    ANSWERS("{\"command\":\"dance\"}\n", 2, "unknown command dance");
    ANSWERS("{\"command\":\"pause\"}\n", 2, "expected a source");
    ANSWERS("{\"command\":\"pause\",\"source\":\"nowhere\"}\n", 4, "there is no source nowhere");
    ANSWERS("{\"command\":\"pause\",\"source\":\"quakes\",\"stage\":\"third\"}\n", 4,
            "source quakes has no stage third");
    /* What is misspelt or mistyped never makes an order wider: the whole source is not paused for a bad
     * stage. */
    ANSWERS("{\"command\":\"pause\",\"source\":\"quakes\",\"stge\":\"locate\"}\n", 2,
            "unknown member \\\"stge\\\"");
    ANSWERS("{\"command\":\"pause\",\"source\":\"quakes\",\"stage\":7}\n", 2, "\\\"stage\\\" must be a text");
    ANSWERS("{\"command\":\"stop\",\"dry_run\":1}\n", 2, "\\\"dry_run\\\" must be true or false");
    ANSWERS("{\"command\":\"stop\"}x\n", 2, "expected one line, a JSON object with \\\"command\\\"");
    CU_ASSERT_STRING_EQUAL(instance_ask("{\"command\":\"ping\""), ""); /* no line: its sender went away */
    static char huge[CONTROL_REQUEST_BYTES + 100];
    memset(huge, ' ', sizeof huge - 1);
    ANSWERS(huge, 2, "the request is longer than 65536 bytes");
    CU_ASSERT(strstr(instance_ask("{\"command\":\"ping\"}\n"), "is running, process") != NULL);
    stop();
}

static void test_a_line_in_pieces(void)
{
    start_for_good(1);
    instance_start();
    CU_ASSERT_FATAL(instance_runs());
    int fd;
    struct error error = {0};
    CU_ASSERT_EQUAL_FATAL(control_connect(instance.control, &fd, &error), 0);
    static const char first[] = "{\"command\":", rest[] = "\"ping\"}\n";
    CU_ASSERT_EQUAL(send(fd, first, sizeof first - 1, 0), sizeof first - 1);
    /* Other clients are served meanwhile, and a silent client does not hold up the shutdown. */
    CU_ASSERT(strstr(instance_ask("{\"command\":\"ping\"}\n"), "\"code\":0") != NULL);
    CU_ASSERT_EQUAL(send(fd, rest, sizeof rest - 1, 0), sizeof rest - 1);
    char answer[256];
    ssize_t got = recv(fd, answer, sizeof answer - 1, 0);
    answer[got > 0 ? got : 0] = '\0';
    CU_ASSERT(strstr(answer, "\"code\":0") != NULL);
    close(fd);
    int silent[SUPERVISOR_CLIENTS_TESTED];
    for (int i = 0; i < SUPERVISOR_CLIENTS_TESTED; i++)
        CU_ASSERT_EQUAL(control_connect(instance.control, &silent[i], &error), 0);
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS,
                    strstr(instance_ask("{\"command\":\"ping\"}\n"), "too many clients") != NULL));
    for (int i = 0; i < SUPERVISOR_CLIENTS_TESTED; i++)
        close(silent[i]);
    CU_ASSERT(
        UNTIL(INSTANCE_PATIENCE_MS, strstr(instance_ask("{\"command\":\"ping\"}\n"), "is running") != NULL));
    stop();
}

static void test_keeper_commands_are_handed_on(void)
{
    start_for_good(1);
    instance_start();
    CU_ASSERT_FATAL(instance_runs());
    /* the line whole, and what follows it unread */
    ANSWERS("{\"command\":\"inject\",\"source\":\"quakes\"}\nfirst event\nsecond event\n", 0,
            "keeper read [{\\\"command\\\":\\\"inject\\\",\\\"source\\\":\\\"quakes\\\"}] and [first "
            "event\\nsecond event\\n]");
    stop();
}

static void test_pause_and_resume(void)
{
    start_for_good(50);
    atomic_store(&instance_world->event[1].doom, DOOM_WAIT);
    instance_start();
    CU_ASSERT_FATAL(instance_runs());
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS, instance_events_done() == 49));
    const struct shm_stage *second = segment_stage(&instance.segment, 1);
    ANSWERS("{\"command\":\"pause\",\"source\":\"quakes\",\"stage\":\"second\",\"dry_run\":true}\n", 0,
            "would have paused quakes/second");
    CU_ASSERT_EQUAL(second->paused, 0);
    ANSWERS("{\"command\":\"pause\",\"source\":\"quakes\",\"stage\":\"second\"}\n", 0,
            "paused quakes/second");
    ANSWERS("{\"command\":\"pause\",\"source\":\"quakes\",\"stage\":\"second\"}\n", 0,
            "quakes/second was paused already");
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS, atomic_load(&instance_worker(1, 0)->state) == SHM_SLOT_PAUSED));
    atomic_store(&instance_world->let_go, 1);
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS, ring_count(&second->ring) == 1));
    CU_ASSERT_EQUAL(instance_events_done(), 49);
    ANSWERS("{\"command\":\"resume\",\"source\":\"quakes\",\"stage\":\"second\"}\n", 0,
            "resumed quakes/second");
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS, instance_events_done() == 50));
    ANSWERS("{\"command\":\"pause\",\"source\":\"quakes\"}\n", 0, "paused quakes");
    CU_ASSERT_EQUAL(segment_source(&instance.segment, 0)->paused, 1);
    stop();
}

static void test_restart_without_blame(void)
{
    start_for_good(3);
    atomic_store(&instance_world->event[2].doom, DOOM_HANG);
    instance.stages[0].timeout_ms = 0;
    instance_start();
    CU_ASSERT_FATAL(instance_runs());
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS,
                    instance_events_done() == 2 && atomic_load(&instance_world->waiting) == 1));
    atomic_store(&instance_world->event[2].doom, DOOM_NONE);
    int32_t grandchild = atomic_load(&instance_world->grandchild);
    ANSWERS("{\"command\":\"restart\",\"source\":\"quakes\",\"stage\":\"first\"}\n", 0,
            "restarted 3 processes of quakes/first");
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS, instance_events_done() == 3));
    CU_ASSERT_EQUAL(instance_world->event[2].crashes, 0);
    CU_ASSERT_EQUAL(instance_world->event[2].released, 1);
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS, !instance_process_exists(grandchild)));
    for (uint32_t i = 0; i < INSTANCE_WORKERS; i++) {
        CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS, atomic_load(&instance_worker(0, i)->generation) == 2));
        CU_ASSERT_EQUAL(instance_worker(1, i)->generation, 1);
    }
    ANSWERS("{\"command\":\"restart\",\"source\":\"quakes\"}\n", 0, "restarted 7 processes of quakes");
    const struct shm_slot *producer =
        segment_slot(&instance.segment, segment_source(&instance.segment, 0)->producer_slot);
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS, atomic_load(&producer->generation) == 2));
    stop();
}

static void test_drain_ends_by_itself(void)
{
    start_for_good(40);
    atomic_store(&instance_world->event[40].doom, DOOM_WAIT);
    instance_start();
    CU_ASSERT_FATAL(instance_runs());
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS, instance_events_done() == 39));
    CU_ASSERT(strstr(instance_ask("{\"command\":\"drain\"}\n"), "draining instance-") != NULL);
    CU_ASSERT_EQUAL(instance.segment.header->phase, SHM_PHASE_DRAINING);
    atomic_store(&instance_world->let_go, 1);
    struct error error;
    CU_ASSERT_EQUAL(instance_wait(&error), 0);
    CU_ASSERT_EQUAL(instance_events_done(), 40);
    instance_end();
}

static void test_stop_by_request(void)
{
    start_for_good(1);
    instance_start();
    CU_ASSERT_FATAL(instance_runs());
    CU_ASSERT(strstr(instance_ask("{\"command\":\"stop\",\"dry_run\":true}\n"), "would stop") != NULL);
    CU_ASSERT_EQUAL(instance.segment.header->phase, SHM_PHASE_RUNNING);
    CU_ASSERT(strstr(instance_ask("{\"command\":\"stop\"}\n"), "stopping instance-") != NULL);
    struct error error;
    CU_ASSERT_EQUAL(instance_wait(&error), 0);
    instance_end();
}

static void test_others_may_read_only(void)
{
    if (geteuid() != 0)
        return; /* needs root to change the user */
    start_for_good(1);
    instance.config.control_mode = 0666;
    instance_start();
    CU_ASSERT_FATAL(instance_runs());
    CU_ASSERT_EQUAL(chmod(instance.directory, 0755), 0);
    CU_ASSERT_EQUAL(chmod(getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp", 01777), 0);
    pid_t stranger = fork();
    if (stranger == 0) {
        if (setgid(65534) != 0 || setuid(65534) != 0)
            _exit(9);
        static const char *const forbidden[] = {
            "{\"command\":\"stop\"}\n", "{\"command\":\"pause\",\"source\":\"quakes\"}\n",
            "{\"command\":\"remove\",\"all\":true}\n",
            "{\"command\":\"cursor\",\"source\":\"quakes\",\"set\":\"1\"}\n"};
        for (int i = 0; i < 4; i++)
            if (strstr(instance_ask(forbidden[i]), "\"code\":1,\"message\":\"not allowed to ") == NULL)
                _exit(i + 1);
        bool reads =
            strstr(instance_ask("{\"command\":\"ping\"}\n"), "\"code\":0") != NULL &&
            strstr(instance_ask("{\"command\":\"cursor\",\"source\":\"quakes\"}\n"), "keeper read") != NULL;
        _exit(reads ? 0 : 8);
    }
    int status = -1;
    waitpid(stranger, &status, 0);
    CU_ASSERT_EQUAL(status, 0);
    CU_ASSERT_EQUAL(instance.segment.header->phase, SHM_PHASE_RUNNING);
    stop();
}

/* What a second supervisor answers, in a process of its own. */
static int second(struct config *config, struct error *error)
{
    const struct supervisor_options options = {.config = config, .until_end = true, .hold_wait_ms = 50};
    pid_t pid;
    int result_fd;
    *error = (struct error){0};
    CU_ASSERT_EQUAL_FATAL(supervisor_fork(&options, &pid, &result_fd, error), 0);
    return supervisor_wait(pid, result_fd, error);
}

static void test_second_supervisor_is_refused(void)
{
    start_for_good(1);
    instance_start();
    CU_ASSERT_FATAL(instance_runs());
    struct error error;
    struct config config = instance.config;
    char other[160], message[160];
    snprintf(other, sizeof other, "%s-other", instance.name);
    config.instance = other;
    CU_ASSERT_EQUAL(second(&config, &error), EP_EBUSY); /* the same store */
    snprintf(message, sizeof message, "%d", (int)instance.pid);
    CU_ASSERT(strstr(error.message, message) != NULL); /* names the holder */
    char storage[160];
    snprintf(storage, sizeof storage, "%s-other", instance.storage);
    config.storage = storage;
    CU_ASSERT_EQUAL(second(&config, &error), EP_EBUSY); /* the same control socket */
    CU_ASSERT(strstr(error.message, "another daemon listens there") != NULL);
    config.control = NULL;
    config.instance = instance.name;
    CU_ASSERT_EQUAL(second(&config, &error), EP_EBUSY); /* the same name */
    CU_ASSERT(strstr(error.message, "runs already") != NULL);
    /* the first one has not noticed */
    CU_ASSERT(strstr(instance_ask("{\"command\":\"ping\"}\n"), "is running") != NULL);
    stop();
}

static void test_what_is_in_the_way(void)
{
    instance_prepare(1);
    FILE *file = fopen(instance.control, "w");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    fclose(file);
    struct error error;
    CU_ASSERT_EQUAL(second(&instance.config, &error), EP_EEXIST);
    CU_ASSERT_EQUAL(access(instance.control, F_OK), 0);
    unlink(instance.control);
    /* a socket without a listener is only a remnant */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%.100s", instance.control);
    int remnant = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CU_ASSERT_EQUAL(bind(remnant, (struct sockaddr *)&address, sizeof address), 0);
    close(remnant);
    instance_start();
    CU_ASSERT_EQUAL(instance_wait(&error), 0);
    CU_ASSERT_EQUAL(instance_events_done(), 1);
    instance_end();
}

static const char *manager_receives(int fd)
{
    static char message[2048];
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    message[0] = '\0';
    if (poll(&ready, 1, INSTANCE_PATIENCE_MS) == 1) {
        ssize_t got = recv(fd, message, sizeof message - 1, 0);
        message[got > 0 ? got : 0] = '\0';
    }
    return message;
}

static bool receives_in_time(int manager, const char *message)
{
    for (int i = 0; i < 20; i++)
        if (strstr(manager_receives(manager), message) != NULL)
            return true;
    return false;
}

static void test_service_manager(void)
{
    start_for_good(1);
    instance.options.daemon = true;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%.80s/manager", instance.directory);
    int manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CU_ASSERT_EQUAL_FATAL(bind(manager, (struct sockaddr *)&address, sizeof address), 0);
    setenv("NOTIFY_SOCKET", address.sun_path, 1);
    setenv("WATCHDOG_USEC", "400000", 1);
    atomic_store(&instance_world->open_fails, 1); /* degraded is started, too */
    instance_start();
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    char message[64];
    snprintf(message, sizeof message, "READY=1\nMAINPID=%d", (int)instance.pid);
    CU_ASSERT(receives_in_time(manager, message));
    CU_ASSERT(receives_in_time(manager, "STATUS=running; 1 of 2 stages degraded"));
    CU_ASSERT(receives_in_time(manager, "WATCHDOG=1"));
    CU_ASSERT(receives_in_time(manager, "WATCHDOG=1"));
    kill(instance.pid, SIGTERM);
    CU_ASSERT(receives_in_time(manager, "STOPPING=1"));
    struct error error;
    CU_ASSERT_EQUAL(instance_wait(&error), 0);
    close(manager);
    instance_end();
}

static void test_caller_exits(void)
{
    start_for_good(5);
    pid_t caller = fork();
    if (caller == 0) {
        instance_start();
        instance_runs();
        raise(SIGKILL);
    }
    waitpid(caller, NULL, 0);
    /* it ends cleanly and leaves nothing */
    struct error error = {0};
    int lock = -1;
    const struct store_options store = {.url = instance.storage, .instance = instance.name};
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS, store_hold(&store, 0, &lock, &error) == 0));
    close(lock);
    CU_ASSERT_EQUAL(segment_attach(instance.name, &instance.segment), -ENOENT);
    CU_ASSERT_NOT_EQUAL(access(instance.control, F_OK), 0);
    instance_end();
}

UNIT_MAIN("supervisor_control", {"malformed requests are refused, with a message", test_malformed_requests},
          {"a request may come in pieces, and slow clients hold up no other", test_a_line_in_pieces},
          {"the keeper's requests are handed on, the rest of the stream unread",
           test_keeper_commands_are_handed_on},
          {"pause and resume", test_pause_and_resume},
          {"restart blames no event", test_restart_without_blame},
          {"a drain lets all through, then stops", test_drain_ends_by_itself}, {"stop", test_stop_by_request},
          {"other users may read only", test_others_may_read_only},
          {"a second supervisor is refused, whichever thing they share", test_second_supervisor_is_refused},
          {"remnants are removed, foreign files are not", test_what_is_in_the_way},
          {"the service manager is notified", test_service_manager},
          {"a library's supervisor ends with its caller", test_caller_exits})
