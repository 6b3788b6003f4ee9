/* SPDX-License-Identifier: MIT */
/* An instance from its beginning to its end. */
#include "tests/lib/supervisor_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

struct instance instance;

void instance_prepare(uint32_t events)
{
    static int number;
    const char *temporary = getenv("TMPDIR");
    memset(&instance, 0, sizeof instance);
    snprintf(instance.directory, sizeof instance.directory, "%.40s/instanceXXXXXX",
             temporary != NULL && strlen(temporary) < 40 ? temporary : "/tmp");
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(instance.directory));
    snprintf(instance.storage, sizeof instance.storage, "sqlite:%s/store.db", instance.directory);
    snprintf(instance.control, sizeof instance.control, "%s/control", instance.directory);
    snprintf(instance.log_path, sizeof instance.log_path, "%s/log", instance.directory);
    snprintf(instance.name, sizeof instance.name, "instance-%d-%d", (int)getpid(), ++number);
    static char *const names[INSTANCE_STAGES] = {"first", "second"};
    for (int i = 0; i < INSTANCE_STAGES; i++) {
        config_set_stage_defaults(&instance.stages[i]);
        instance.stages[i].name = names[i];
        instance.stages[i].concurrency = INSTANCE_WORKERS;
        instance.stages[i].input_buffer = 16;
    }
    instance.source = (struct source_config){.id = "quakes",
                                             .type = SOURCE_GENERATE,
                                             .stages = instance.stages,
                                             .stage_count = INSTANCE_STAGES};
    instance.config = (struct config){.instance = instance.name,
                                      .storage = instance.storage,
                                      .control = instance.control,
                                      .control_mode = 0600,
                                      .drain_timeout_ms = 10000,
                                      .log_level = EP_LOG_DEBUG,
                                      .sources = &instance.source,
                                      .source_count = 1};
    instance.options =
        (struct supervisor_options){.config = &instance.config, .until_end = true, .hold_wait_ms = 5000};
    instance_world =
        mmap(NULL, sizeof *instance_world, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CU_ASSERT_PTR_NOT_EQUAL_FATAL(instance_world, MAP_FAILED);
    atomic_store(&instance_world->events, events);
}

void instance_start(void)
{
    int log = open(instance.log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int mine = dup(STDERR_FILENO);
    dup2(log, STDERR_FILENO); /* the supervisor's process has our standard error */
    base_log_open(EP_LOG_DEBUG, NULL, NULL);
    struct error error = {0};
    int result = supervisor_fork(&instance.options, &instance.pid, &instance.result_fd, &error);
    dup2(mine, STDERR_FILENO);
    close(mine);
    close(log);
    CU_ASSERT_EQUAL_FATAL(result, 0);
}

int instance_wait(struct error *error)
{
    *error = (struct error){0};
    siginfo_t ended = {0};
    if (!UNTIL(INSTANCE_PATIENCE_MS,
               waitid(P_PID, (id_t)instance.pid, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
                   ended.si_pid != 0)) {
        CU_FAIL("the instance does not end");
        kill(instance.pid, SIGKILL);
    }
    int result = supervisor_wait(instance.pid, instance.result_fd, error);
    instance.pid = 0;
    return result;
}

static bool instance_attached(void)
{
    if (instance.segment.header != NULL)
        return true;
    return segment_attach(instance.name, &instance.segment) == 0;
}

bool instance_runs(void)
{
    return UNTIL(INSTANCE_PATIENCE_MS,
                 instance_attached() && atomic_load(&instance.segment.header->phase) == SHM_PHASE_RUNNING);
}

const struct shm_slot *instance_worker(uint32_t stage, uint32_t index)
{
    return segment_slot(&instance.segment, segment_stage(&instance.segment, stage)->first_slot + index);
}

bool instance_process_exists(pid_t pid)
{
    return pid > 0 && kill(pid, 0) == 0;
}

bool instance_log_has(const char *message)
{
    static char text[1 << 22];
    int fd = open(instance.log_path, O_RDONLY | O_CLOEXEC);
    ssize_t bytes = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
        close(fd);
    text[bytes > 0 ? bytes : 0] = '\0';
    return strstr(text, message) != NULL;
}

uint32_t instance_events_done(void)
{
    uint32_t done = 0;
    for (uint32_t id = 1; id <= atomic_load(&instance_world->events); id++)
        done += atomic_load(&instance_world->event[id].done) > 0;
    return done;
}

void instance_end(void)
{
    if (instance.pid > 0) {
        kill(instance.pid, SIGKILL);
        struct error error;
        instance_wait(&error);
    }
    if (instance.segment.header != NULL)
        segment_close(&instance.segment);
    segment_unlink(instance.name);
    for (int i = 0; i < INSTANCE_STAGES; i++)
        free(instance.stages[i].options);
    char command[256];
    snprintf(command, sizeof command, "rm -rf '%s'", instance.directory);
    if (system(command) != 0)
        CU_FAIL("the test's directory is left");
    munmap(instance_world, sizeof *instance_world);
}

const char *instance_ask(const char *request)
{
    static char answer[4096];
    answer[0] = '\0';
    int fd;
    struct error error = {0};
    if (control_connect(instance.control, &fd, &error) != 0)
        return "";
    if (send(fd, request, strlen(request), MSG_NOSIGNAL) < 0)
        answer[0] = '\0';
    shutdown(fd, SHUT_WR);
    size_t used = 0;
    for (ssize_t got;
         used < sizeof answer - 1 && (got = recv(fd, answer + used, sizeof answer - 1 - used, 0)) > 0;)
        used += (size_t)got;
    answer[used] = '\0';
    close(fd);
    return answer;
}
