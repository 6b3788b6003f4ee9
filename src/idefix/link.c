/* SPDX-License-Identifier: MIT */
/*
 * The thread that keeps an Idefix client's MQTT connection, and its owner's access to it. Runs in
 * producers and in programs that use the library. The thread starts with the first connection and ends
 * when the link is closed. All signals are blocked in it.
 *
 * Invariants
 *  1. `lock` protects everything that both threads use, and no thread waits while it holds it. Each
 *     thread wakes the other with an eventfd.
 *  2. Owner and thread each hold a reference. When the owner closes the link, the thread may be in the
 *     resolver, which cannot be interrupted. So the thread uses nothing that belongs to the owner, and
 *     frees the link if it ends last.
 *  3. Each connection attempt has a number. The thread may change the state only while its number is
 *     still `connection`. So an attempt that the owner dropped cannot come back.
 *  4. Queues are bounded. Frames beyond FRAMES_MAX, or beyond twice max_bytes, are dropped as if the
 *     network had lost them; calls have deadlines.
 *
 * Survived: all failures. They are in the view once the state is DOWN.
 */
#include "src/idefix/link.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "shm/slot.h" /* shm_now_ns */

#define FRAMES_MAX 64
#define CLOSE_MS 1000
#define MS UINT64_C(1000000)

struct outgoing {
    struct outgoing *next;
    struct idefix_frame frame;
};

struct idefix_link {
    struct idefix_mqtt_params params;
    size_t max_bytes;
    int thread_fd, owner_fd; /* eventfds */
    pthread_t thread;        /* owner's */
    bool started;            /* owner's */

    pthread_mutex_t lock; /* protects all members below */
    int references;
    bool quit, ended, listening;
    bool begun; /* this attempt: the name is resolved */
    enum idefix_link_state state;
    uint64_t connection;
    struct idefix_failure failure;
    struct idefix_link_frame *first, **last;
    size_t count, bytes;
    struct outgoing *out, **out_last;
};

/* ---- waking the other thread */

/* Idefix connection: wakes the thread that waits for this eventfd, the owner or the connection's thread.
 * Keeps errno, since idefix_interrupt may run in a signal handler. */
static void signal_eventfd(int fd)
{
    int errnum = errno;
    ssize_t done = write(fd, &(uint64_t){1}, sizeof(uint64_t)); /* if it is full, it is readable anyway */
    (void)done;
    errno = errnum;
}

static void drain_eventfd(int fd)
{
    uint64_t count;
    ssize_t done = read(fd, &count, sizeof count);
    (void)done;
}

void idefix_link_wake(struct idefix_link *link)
{
    signal_eventfd(link->owner_fd);
}

/* Idefix connection, in a producer or the library's caller: the owner waits here for a frame, a change of
 * state, idefix_link_wake or the time until_ns. Every wait of an Idefix client is this one, so that a
 * shutdown interrupts it. */
void idefix_link_wait(struct idefix_link *link, uint64_t until_ns)
{
    uint64_t now = shm_now_ns(), left = until_ns > now ? until_ns - now : 0;
    struct pollfd polled = {.fd = link->owner_fd, .events = POLLIN};
    struct timespec timeout = {.tv_sec = (time_t)(left / 1000000000), .tv_nsec = (long)(left % 1000000000)};

    if (ppoll(&polled, 1, &timeout, NULL) > 0)
        drain_eventfd(link->owner_fd);
}

/* ---- memory */

/* Idefix connection: frees the received frames that no call has read. The caller holds the lock, or is the
 * last that uses the connection. Runs in a producer or in a program that uses the library. */
static void free_received_frames(struct idefix_link *link)
{
    while (link->first != NULL) {
        struct idefix_link_frame *frame = link->first;
        link->first = frame->next;
        free(frame);
    }
    link->last = &link->first;
    link->count = link->bytes = 0;
}

/* Idefix connection: frees frames that were sent or can no longer be sent. Runs in both threads of the
 * connection, in a producer or in a program that uses the library. */
static void free_outgoing_frames(struct outgoing *out)
{
    while (out != NULL) {
        struct outgoing *next = out->next;
        idefix_frame_free(&out->frame);
        free(out);
        out = next;
    }
}

static void clear_outgoing_queue(struct idefix_link *link)
{
    free_outgoing_frames(link->out);
    link->out = NULL;
    link->out_last = &link->out;
}

/* Idefix connection: frees the connection and overwrites the MQTT password. The thread that ends last
 * calls it, in a producer or in a program that uses the library. */
static void free_link(struct idefix_link *link)
{
    free_received_frames(link);
    clear_outgoing_queue(link);
    if (link->params.password != NULL)
        explicit_bzero(link->params.password, strlen(link->params.password));
    free(link->params.broker.host);
    free(link->params.address);
    free(link->params.session);
    free(link->params.user);
    free(link->params.password);
    free(link->params.ca_file);
    if (link->thread_fd >= 0)
        close(link->thread_fd);
    if (link->owner_fd >= 0)
        close(link->owner_fd);
    pthread_mutex_destroy(&link->lock);
    free(link);
}

/* Idefix connection: gives up one of the two references (owner, thread) and frees the connection with the
 * last. Needed because the thread may still be in the resolver when a producer or a program that uses the
 * library closes the client. */
static void release_link(struct idefix_link *link)
{
    pthread_mutex_lock(&link->lock);
    bool last = --link->references == 0;
    pthread_mutex_unlock(&link->lock);
    if (last)
        free_link(link);
}

static bool copy_text(const char *from, char **to)
{
    *to = from == NULL ? NULL : strdup(from);
    return from == NULL || *to != NULL;
}

/* Idefix connection: makes a connection to a broker that is still down, with a copy of its parameters and
 * without a thread. Called when an Idefix client is opened, in a producer, in a check of the
 * configuration, or in a program that uses the library. */
int idefix_link_open(const struct idefix_mqtt_params *params, size_t max_bytes, struct idefix_link **out,
                     struct error *error)
{
    struct idefix_link *link = calloc(1, sizeof *link);
    struct idefix_mqtt_params *own;

    if (link == NULL)
        return base_error_set(error, EP_ENOMEM, "no memory for a connection");
    *link = (struct idefix_link){.params = *params, .max_bytes = max_bytes, .references = 1};
    link->last = &link->first;
    link->out_last = &link->out;
    pthread_mutex_init(&link->lock, NULL);
    link->thread_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    link->owner_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int errnum = link->thread_fd < 0 || link->owner_fd < 0 ? errno : 0;
    own = &link->params;
    bool copied = copy_text(params->broker.host, &own->broker.host);
    copied = copy_text(params->address, &own->address) && copied;
    copied = copy_text(params->session, &own->session) && copied;
    copied = copy_text(params->user, &own->user) && copied;
    copied = copy_text(params->password, &own->password) && copied;
    copied = copy_text(params->ca_file, &own->ca_file) && copied;
    if (errnum != 0 || !copied) {
        free_link(link);
        if (errnum != 0)
            return base_error_set(error, EP_ESYSTEM, "cannot create an eventfd for the connection: %s",
                                  strerror(errnum));
        return base_error_set(error, EP_ENOMEM, "no memory for a connection");
    }
    *out = link;
    return 0;
}

/* ---- the thread's side */

/* Idefix client, in the connection's thread: callback for a received MQTT message; queues it for the owner
 * if a call waits and the queue has room. idefix_mqtt_step calls it, so the lock is not held. */
static void on_frame(const char *flags, const void *body, size_t bytes, void *user)
{
    struct idefix_link *link = user;
    bool too_large = bytes > link->max_bytes;
    size_t kept = too_large ? 0 : bytes;

    pthread_mutex_lock(&link->lock);
    bool room = link->listening && link->count < FRAMES_MAX &&
                (link->count == 0 || kept <= 2 * link->max_bytes - link->bytes);
    struct idefix_link_frame *frame = room ? malloc(sizeof *frame + kept) : NULL;
    if (frame != NULL) {
        *frame = (struct idefix_link_frame){.bytes = bytes, .too_large = too_large};
        snprintf(frame->flags, sizeof frame->flags, "%s", flags);
        if (kept > 0)
            memcpy(frame->body, body, kept);
        *link->last = frame;
        link->last = &frame->next;
        link->count++;
        link->bytes += kept;
    }
    pthread_mutex_unlock(&link->lock);
    if (frame != NULL)
        signal_eventfd(link->owner_fd);
}

/* Idefix client, in the connection's thread: sets the state of a connection attempt, unless the owner has
 * dropped the attempt, and wakes the owner. */
static void set_link_state(struct idefix_link *link, uint64_t connection, enum idefix_link_state state,
                           const struct idefix_failure *failure)
{
    pthread_mutex_lock(&link->lock);
    if (link->connection == connection && link->state != IDEFIX_LINK_DOWN) {
        link->state = state;
        if (state == IDEFIX_LINK_DOWN) {
            link->failure = *failure;
            clear_outgoing_queue(link);
        }
    }
    pthread_mutex_unlock(&link->lock);
    signal_eventfd(link->owner_fd);
}

/* Idefix client, in the connection's thread: moves the frames that the owner wants to send to *out. Returns
 * false if the owner dropped the attempt or closes the client. */
static bool take_outgoing_frames(struct idefix_link *link, uint64_t connection, struct outgoing **out)
{
    *out = NULL;
    pthread_mutex_lock(&link->lock);
    bool wanted = !link->quit && link->connection == connection && link->state != IDEFIX_LINK_DOWN;
    if (wanted && link->state == IDEFIX_LINK_UP) {
        *out = link->out;
        link->out = NULL;
        link->out_last = &link->out;
    }
    pthread_mutex_unlock(&link->lock);
    return wanted;
}

/* Idefix client, in the connection's thread: publishes the owner's frames over MQTT, in order, until one
 * fails. */
static int publish_frames(struct idefix_mqtt *mqtt, const struct outgoing *out,
                          struct idefix_failure *failure)
{
    int code = 0;

    for (; out != NULL && code == 0; out = out->next)
        code = idefix_mqtt_publish(mqtt, out->frame.flags, out->frame.body, out->frame.bytes, failure);
    return code;
}

/* Idefix client, in the connection's thread: connects to the broker, then sends and receives until the
 * connection ends or the owner drops it. */
static void run_connection(struct idefix_link *link, uint64_t connection)
{
    struct idefix_mqtt *mqtt = NULL;
    struct idefix_failure failure;
    struct outgoing *out;
    bool up = false;
    int code = idefix_mqtt_open(&link->params, on_frame, link, &mqtt, &failure);

    pthread_mutex_lock(&link->lock);
    link->begun = link->connection == connection;
    pthread_mutex_unlock(&link->lock);
    while (code == 0 && take_outgoing_frames(link, connection, &out)) {
        code = publish_frames(mqtt, out, &failure);
        free_outgoing_frames(out);
        if (code == 0)
            code = idefix_mqtt_step(mqtt, link->thread_fd, &failure);
        drain_eventfd(link->thread_fd);
        if (code == 0 && !up && idefix_mqtt_ready(mqtt)) {
            up = true;
            set_link_state(link, connection, IDEFIX_LINK_UP, NULL);
        }
    }
    if (code != 0)
        set_link_state(link, connection, IDEFIX_LINK_DOWN, &failure);
    idefix_mqtt_close(&mqtt);
}

/* Idefix connection: main function of the connection's thread, in a producer or a program that uses the
 * library. Waits until the owner asks for a connection and runs it; ends when the owner closes the client. */
static void *run_link_thread(void *user)
{
    struct idefix_link *link = user;
    uint64_t served = 0;

    for (;;) {
        pthread_mutex_lock(&link->lock);
        bool quit = link->quit, wanted = link->state == IDEFIX_LINK_CONNECTING && link->connection != served;
        uint64_t connection = link->connection;
        pthread_mutex_unlock(&link->lock);
        if (quit)
            break;
        if (wanted) {
            served = connection;
            run_connection(link, connection);
            continue;
        }
        struct pollfd polled = {.fd = link->thread_fd, .events = POLLIN};
        poll(&polled, 1, -1);
        drain_eventfd(link->thread_fd);
    }
    pthread_mutex_lock(&link->lock);
    link->ended = true;
    pthread_mutex_unlock(&link->lock);
    signal_eventfd(link->owner_fd);
    release_link(link);
    return NULL;
}

/* ---- the owner's side */

/* Idefix connection: starts the connection's thread with all signals blocked, so that they reach the main
 * thread of the producer or of the program that uses the library. Returns an errno. Called before the
 * first connection. */
static int start_link_thread(struct idefix_link *link)
{
    sigset_t all, before;

    link->references = 2; /* without the lock: the thread does not run yet */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int errnum = pthread_create(&link->thread, NULL, run_link_thread, link);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    link->started = errnum == 0;
    if (errnum != 0)
        link->references = 1;
    return errnum;
}

/* Idefix connection, in a producer or the library's caller: asks the connection's thread to connect if it is
 * down, and starts the thread at the first call. Does not wait. */
int idefix_link_connect(struct idefix_link *link, struct error *error)
{
    pthread_mutex_lock(&link->lock);
    bool begins = link->state == IDEFIX_LINK_DOWN;
    if (begins) {
        link->state = IDEFIX_LINK_CONNECTING;
        link->connection++;
        link->begun = false;
        link->failure = (struct idefix_failure){0};
    }
    pthread_mutex_unlock(&link->lock);
    if (!begins)
        return 0;
    int errnum = link->started ? 0 : start_link_thread(link);
    if (errnum == 0) {
        signal_eventfd(link->thread_fd);
        return 0;
    }
    link->state = IDEFIX_LINK_DOWN;
    return base_error_set(error, EP_ESYSTEM, "cannot start a thread for the connection: %s",
                          strerror(errnum));
}

/* Idefix connection, in a producer or the library's caller: sets the state to down at once; the connection's
 * thread disconnects later. The client calls it after two missing answers in a row. */
void idefix_link_drop(struct idefix_link *link)
{
    pthread_mutex_lock(&link->lock);
    link->state = IDEFIX_LINK_DOWN;
    link->failure = (struct idefix_failure){0};
    clear_outgoing_queue(link);
    pthread_mutex_unlock(&link->lock);
    signal_eventfd(link->thread_fd);
}

/* Idefix connection, in a producer or the library's caller: copies its present state and number. */
void idefix_link_look(struct idefix_link *link, struct idefix_link_view *view)
{
    pthread_mutex_lock(&link->lock);
    *view = (struct idefix_link_view){link->state, link->connection, link->begun, link->failure};
    pthread_mutex_unlock(&link->lock);
}

/* Idefix connection, in a producer or the library's caller: queues a frame for the connection's thread and
 * takes over its body. Without a connection the frame is dropped; the caller's wait then finds that the
 * connection is down. */
int idefix_link_send(struct idefix_link *link, struct idefix_frame *frame)
{
    struct outgoing *out = malloc(sizeof *out);

    if (out == NULL)
        return EP_ENOMEM;
    *out = (struct outgoing){.frame = *frame};
    *frame = (struct idefix_frame){0};
    pthread_mutex_lock(&link->lock);
    bool up = link->state == IDEFIX_LINK_UP;
    if (up) {
        *link->out_last = out;
        link->out_last = &out->next;
    }
    pthread_mutex_unlock(&link->lock);
    if (up)
        signal_eventfd(link->thread_fd);
    else
        free_outgoing_frames(out);
    return 0;
}

/* Idefix connection, in a producer or the library's caller: switches on or off that received frames are
 * kept, and drops those kept so far. A client listens only during a call, so late answers do not fill the
 * memory. */
void idefix_link_listen(struct idefix_link *link, bool listen)
{
    pthread_mutex_lock(&link->lock);
    link->listening = listen;
    free_received_frames(link);
    pthread_mutex_unlock(&link->lock);
}

/* Idefix connection, in a producer or the library's caller: returns the oldest received frame, which the
 * caller frees, or NULL. */
struct idefix_link_frame *idefix_link_take(struct idefix_link *link)
{
    pthread_mutex_lock(&link->lock);
    struct idefix_link_frame *frame = link->first;
    if (frame != NULL) {
        link->first = frame->next;
        if (link->first == NULL)
            link->last = &link->first;
        link->count--;
        link->bytes -= frame->too_large ? 0 : frame->bytes;
    }
    pthread_mutex_unlock(&link->lock);
    return frame;
}

/* Idefix connection: returns whether the connection's thread has ended, so that joining it does not block.
 * Called when a producer or a program that uses the library closes the client. */
static bool has_thread_ended(struct idefix_link *link)
{
    pthread_mutex_lock(&link->lock);
    bool ended = link->ended;
    pthread_mutex_unlock(&link->lock);
    return ended;
}

/* Idefix connection: ends the connection and its thread. Waits one second at most: a thread that hangs in
 * the resolver is detached and frees the connection itself. Called when a producer or a program that uses
 * the library closes the client. */
void idefix_link_close(struct idefix_link **link)
{
    struct idefix_link *old = *link;

    if (old == NULL)
        return;
    *link = NULL;
    pthread_mutex_lock(&old->lock);
    old->quit = true;
    old->listening = false;
    pthread_mutex_unlock(&old->lock);
    signal_eventfd(old->thread_fd);
    if (old->started) {
        uint64_t end = shm_now_ns() + CLOSE_MS * MS;
        while (!has_thread_ended(old) && shm_now_ns() < end)
            idefix_link_wait(old, end);
        if (has_thread_ended(old))
            pthread_join(old->thread, NULL);
        else
            pthread_detach(old->thread);
    }
    release_link(old);
}
