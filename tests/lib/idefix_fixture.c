/* SPDX-License-Identifier: MIT */
/* The broker, the test's own client, and a test's beginning and end. */
#include "tests/lib/idefix_fixture.h"

#include <dirent.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

struct idefix_fixture idefix_fixture;

int idefix_fixture_free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &bytes) != 0)
        abort();
    close(fd);
    return ntohs(address.sin_port);
}

static bool port_open(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool open = connect(fd, (struct sockaddr *)&address, sizeof address) == 0;

    close(fd);
    return open;
}

void idefix_fixture_stop(pid_t *pid)
{
    if (*pid > 0) {
        kill(*pid, SIGKILL);
        waitpid(*pid, NULL, 0);
    }
    *pid = 0;
}

/* ---- the broker's */

static const char *mosquitto_path(void)
{
    static const char *const paths[] = {"/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto",
                                        "/usr/bin/mosquitto"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        if (access(paths[i], X_OK) == 0)
            return paths[i];
    return NULL;
}

static void broker_start(void)
{
    char path[260];
    const char *directory = idefix_fixture.directory;
    snprintf(path, sizeof path, "%s/mosquitto.conf", directory);
    FILE *file = fopen(path, "w");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    fprintf(
        file,
        "user root\npersistence false\nlog_dest none\nset_tcp_nodelay true\nper_listener_settings true\n");
    fprintf(file, "listener %d 127.0.0.1\nallow_anonymous true\n", idefix_fixture.port);
    fprintf(file, "listener %d 127.0.0.1\nallow_anonymous false\n", idefix_fixture.closed_port);
    if (idefix_fixture.tls)
        for (int i = 0; i < 2; i++)
            fprintf(file,
                    "listener %d 127.0.0.1\nallow_anonymous true\ncertfile %s/%s.pem\nkeyfile %s/%s.key\n",
                    i == 0 ? idefix_fixture.tls_port : idefix_fixture.wrong_port, directory,
                    i == 0 ? "good" : "wrong", directory, i == 0 ? "good" : "wrong");
    fclose(file);
    idefix_fixture.broker = fork();
    CU_ASSERT_FATAL(idefix_fixture.broker >= 0);
    if (idefix_fixture.broker == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (freopen("/dev/null", "w", stderr) == NULL) /* it warns of root */
            _exit(126);
        execl(mosquitto_path(), "mosquitto", "-c", path, (char *)NULL);
        _exit(127);
    }
    idefix_world->broker = idefix_fixture.broker;
    CU_ASSERT_FATAL(UNTIL(IDEFIX_PATIENCE_MS, port_open(idefix_fixture.port)));
}

/* ---- a test's beginning and end */

bool idefix_fixture_open(void)
{
    const char *base = getenv("TMPDIR");

    if (mosquitto_path() == NULL)
        return false;
    idefix_world =
        mmap(NULL, sizeof *idefix_world, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    snprintf(idefix_fixture.directory, sizeof idefix_fixture.directory, "%s/idefix.XXXXXX",
             base != NULL ? base : "/tmp");
    if (idefix_world == MAP_FAILED || mkdtemp(idefix_fixture.directory) == NULL)
        abort();
    idefix_world->test = getpid();
    idefix_fixture.port = idefix_fixture_free_port();
    idefix_fixture.tls_port = idefix_fixture_free_port();
    idefix_fixture.wrong_port = idefix_fixture_free_port();
    idefix_fixture.closed_port = idefix_fixture_free_port();
    return true;
}

void idefix_fixture_begin(void)
{
    if (idefix_fixture.broker == 0)
        broker_start();
    if (idefix_fixture.backend == 0)
        idefix_backend_start(idefix_fixture.port, &idefix_fixture.backend);
    atomic_store(&idefix_world->login, LOGIN_OK);
    atomic_store(&idefix_world->get, GET_PAGE);
    atomic_store(&idefix_world->logins, 0);
    atomic_store(&idefix_world->gets, 0);
    atomic_store(&idefix_world->creates, 0);
}

void idefix_fixture_close(void)
{
    char path[520];
    DIR *directory = opendir(idefix_fixture.directory);

    idefix_fixture_stop(&idefix_fixture.backend);
    idefix_fixture_stop(&idefix_fixture.broker);
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", idefix_fixture.directory, entry->d_name);
        if (entry->d_name[0] != '.')
            unlink(path);
    }
    if (directory != NULL)
        closedir(directory);
    rmdir(idefix_fixture.directory);
}

const char *idefix_fixture_url(const char *scheme, const char *host, int port)
{
    static char text[8][100];
    static unsigned next;
    char *url = text[next++ % 8];

    snprintf(url, sizeof text[0], "%s://%s:%d", scheme, host, port);
    return url;
}

ep_idefix *idefix_fixture_client(struct ep_idefix_params params)
{
    ep_idefix *client = NULL;
    char errbuf[500] = "";

    if (params.broker == NULL)
        params.broker = idefix_fixture_url("tcp", "127.0.0.1", idefix_fixture.port);
    if (params.account == NULL)
        params.account = "user-1";
    if (params.token == NULL)
        params.token = "tok";
    if (ep_idefix_open(&params, &client, errbuf, sizeof errbuf) != EP_OK)
        printf("\n    %s\n", errbuf);
    CU_ASSERT_PTR_NOT_NULL_FATAL(client);
    return client;
}

int idefix_fixture_get(ep_idefix *client, uint64_t wait_ms, size_t *count)
{
    struct ep_idefix_page *page = NULL;
    int code =
        ep_idefix_events_get(client, &(struct ep_idefix_query){.domain = "acme", .wait_ms = wait_ms}, &page);

    CU_ASSERT_EQUAL(code == EP_OK, page != NULL);
    if (count != NULL)
        *count = page != NULL ? page->count : 0;
    ep_idefix_page_free(&page);
    return code;
}

size_t idefix_fixture_entries(const char *path)
{
    DIR *directory = opendir(path);
    size_t count = 0;

    while (directory != NULL && readdir(directory) != NULL)
        count++;
    if (directory != NULL)
        closedir(directory);
    return count;
}

bool idefix_fixture_says(ep_idefix *client, const char *errbuf)
{
    bool found = strstr(ep_idefix_errmsg(client), errbuf) != NULL;
    if (!found)
        printf("\n    expected \"%s\" in: %s\n", errbuf, ep_idefix_errmsg(client));
    return found;
}
