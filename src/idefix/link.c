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
 *     still `connection_number`. So an attempt that the owner dropped cannot come back.
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
#define NS_PER_MS UINT64_C(1000000)

struct outgoing {
    struct outgoing *next;
    struct idefix_frame frame;
};

struct idefix_link {
    struct idefix_mqtt_params params;
    size_t max_bytes;
    int thread_wake_fd, owner_wake_fd; /* eventfds */
    pthread_t thread;                  /* owner's */
    bool thread_started;               /* owner's */

    pthread_mutex_t lock; /* protects all members below */
    int references;
    bool quit_requested, thread_ended, is_listening;
    bool is_name_resolved; /* this attempt: the name is resolved */
    enum idefix_link_state state;
    uint64_t connection_number;
    struct idefix_failure failure;
    struct idefix_link_frame *first_frame, **frames_tail;
    size_t frame_count, frame_bytes;
    struct outgoing *first_outgoing, **outgoing_tail;
};

/* ---- waking the other thread */

/* Wakes the thread that waits for this eventfd: the owner of an Idefix client, or the client's
 * connection thread. Keeps errno, because idefix_interrupt may call it in a signal handler. */
static void wake_thread(int thread_eventfd)
{
    int errnum = errno;
    ssize_t written_bytes =
        write(thread_eventfd, &(uint64_t){1}, sizeof(uint64_t)); /* if it is full, it is readable anyway */
    (void)written_bytes;
    errno = errnum;
}

static void drain_eventfd(int fd)
{
    uint64_t count;
    ssize_t read_bytes = read(fd, &count, sizeof count);
    (void)read_bytes;
}

void idefix_link_wake(struct idefix_link *link)
{
    wake_thread(link->owner_wake_fd);
}

/* Waits until a frame arrives, the connection's state changes, idefix_link_wake is called, or until_ns
 * (CLOCK_MONOTONIC) is reached. Every wait of an Idefix client in a producer or a library caller goes
 * through this function, so that a shutdown can interrupt it. */
void idefix_link_wait(struct idefix_link *link, uint64_t until_ns)
{
    uint64_t now_ns = shm_now_ns(), remaining_ns = until_ns > now_ns ? until_ns - now_ns : 0;
    struct pollfd poll_fd = {.fd = link->owner_wake_fd, .events = POLLIN};
    struct timespec timeout = {.tv_sec = (time_t)(remaining_ns / 1000000000),
                               .tv_nsec = (long)(remaining_ns % 1000000000)};

    if (ppoll(&poll_fd, 1, &timeout, NULL) > 0)
        drain_eventfd(link->owner_wake_fd);
}

/* ---- memory */

/* Frees the frames that the Idefix client has received and no call has taken. The caller holds the lock,
 * or is the last user of the link (the object of one connection). Part of the Idefix client, in a
 * producer or a library caller. */
static void free_received_frames(struct idefix_link *link)
{
    while (link->first_frame != NULL) {
        struct idefix_link_frame *frame = link->first_frame;
        link->first_frame = frame->next;
        free(frame);
    }
    link->frames_tail = &link->first_frame;
    link->frame_count = link->frame_bytes = 0;
}

/* Frees a list of Idefix requests that were sent or can no longer be sent. The owner of an Idefix client
 * calls it as well as the connection thread. */
static void free_outgoing_frames(struct outgoing *frames)
{
    while (frames != NULL) {
        struct outgoing *next = frames->next;
        idefix_frame_free(&frames->frame);
        free(frames);
        frames = next;
    }
}

static void clear_outgoing_queue(struct idefix_link *link)
{
    free_outgoing_frames(link->first_outgoing);
    link->first_outgoing = NULL;
    link->outgoing_tail = &link->first_outgoing;
}

/* Frees the connection of an Idefix client and overwrites its MQTT password. Its owner (the thread that
 * calls the client) or the connection thread calls it, whichever ends last. */
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
    if (link->thread_wake_fd >= 0)
        close(link->thread_wake_fd);
    if (link->owner_wake_fd >= 0)
        close(link->owner_wake_fd);
    pthread_mutex_destroy(&link->lock);
    free(link);
}

/* Gives up one of the two references to an Idefix client's connection, its owner's or its connection
 * thread's; the last one frees it. Two references are needed because the thread may still be resolving
 * the broker's name when a producer or a library caller closes its client. */
static void release_link(struct idefix_link *link)
{
    pthread_mutex_lock(&link->lock);
    bool is_last_reference = --link->references == 0;
    pthread_mutex_unlock(&link->lock);
    if (is_last_reference)
        free_link(link);
}

static bool copy_text(const char *from, char **to)
{
    *to = from == NULL ? NULL : strdup(from);
    return from == NULL || *to != NULL;
}

/* Makes the connection object (link) of an Idefix client for its MQTT broker, with a copy of its
 * parameters. It does not connect and starts no thread: idefix_link_connect does. Returns 0 or an error
 * code with a message. Called whenever an Idefix client is opened, also to check a configuration. */
int idefix_link_open(const struct idefix_mqtt_params *params, size_t max_bytes, struct idefix_link **out,
                     struct error *error)
{
    struct idefix_link *link = calloc(1, sizeof *link);
    struct idefix_mqtt_params *copy;

    if (link == NULL)
        return base_error_set(error, EP_ENOMEM, "out of memory for the connection to %s", params->address);
    *link = (struct idefix_link){.params = *params, .max_bytes = max_bytes, .references = 1};
    link->frames_tail = &link->first_frame;
    link->outgoing_tail = &link->first_outgoing;
    pthread_mutex_init(&link->lock, NULL);
    link->thread_wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    link->owner_wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int errnum = link->thread_wake_fd < 0 || link->owner_wake_fd < 0 ? errno : 0;
    copy = &link->params;
    bool is_copied = copy_text(params->broker.host, &copy->broker.host);
    is_copied = copy_text(params->address, &copy->address) && is_copied;
    is_copied = copy_text(params->session, &copy->session) && is_copied;
    is_copied = copy_text(params->user, &copy->user) && is_copied;
    is_copied = copy_text(params->password, &copy->password) && is_copied;
    is_copied = copy_text(params->ca_file, &copy->ca_file) && is_copied;
    if (errnum != 0 || !is_copied) {
        free_link(link);
        if (errnum != 0)
            return base_error_set(error, EP_ESYSTEM, "cannot create an eventfd for the connection to %s: %s",
                                  params->address, strerror(errnum));
        return base_error_set(error, EP_ENOMEM, "out of memory for the connection to %s", params->address);
    }
    *out = link;
    return 0;
}

/* ---- the thread's side */

/* Callback for each MQTT message that an Idefix client receives: queues it for the owner (the calling
 * thread) if a call waits for an answer and the queue has room, otherwise drops it. Runs in the
 * connection thread, without the lock. */
static void on_received_frame(const char *flags, const void *body, size_t body_bytes, void *user)
{
    struct idefix_link *link = user;
    bool is_too_large = body_bytes > link->max_bytes;
    size_t kept_bytes = is_too_large ? 0 : body_bytes;

    pthread_mutex_lock(&link->lock);
    bool has_room = link->is_listening && link->frame_count < FRAMES_MAX &&
                    (link->frame_count == 0 || kept_bytes <= 2 * link->max_bytes - link->frame_bytes);
    struct idefix_link_frame *frame = has_room ? malloc(sizeof *frame + kept_bytes) : NULL;
    if (frame != NULL) {
        *frame = (struct idefix_link_frame){.bytes = body_bytes, .is_too_large = is_too_large};
        snprintf(frame->flags, sizeof frame->flags, "%s", flags);
        if (kept_bytes > 0)
            memcpy(frame->body, body, kept_bytes);
        *link->frames_tail = frame;
        link->frames_tail = &frame->next;
        link->frame_count++;
        link->frame_bytes += kept_bytes;
    }
    pthread_mutex_unlock(&link->lock);
    if (frame != NULL)
        wake_thread(link->owner_wake_fd);
}

/* Sets the state of the connection attempt with this number and wakes the owner (the calling thread),
 * unless the owner has dropped this attempt in the meantime. Runs in the connection thread of an Idefix
 * client. */
static void set_link_state(struct idefix_link *link, uint64_t connection_number, enum idefix_link_state state,
                           const struct idefix_failure *failure)
{
    pthread_mutex_lock(&link->lock);
    if (link->connection_number == connection_number && link->state != IDEFIX_LINK_DOWN) {
        link->state = state;
        if (state == IDEFIX_LINK_DOWN) {
            link->failure = *failure;
            clear_outgoing_queue(link);
        }
    }
    pthread_mutex_unlock(&link->lock);
    wake_thread(link->owner_wake_fd);
}

/* Moves the requests that the Idefix client wants to send to *frames, NULL if there are none. Returns
 * false if the client has dropped the connection with this number or is being closed; the connection
 * thread, which calls this, then disconnects. */
static bool take_outgoing_frames(struct idefix_link *link, uint64_t connection_number,
                                 struct outgoing **frames)
{
    *frames = NULL;
    pthread_mutex_lock(&link->lock);
    bool is_wanted = !link->quit_requested && link->connection_number == connection_number &&
                     link->state != IDEFIX_LINK_DOWN;
    if (is_wanted && link->state == IDEFIX_LINK_UP) {
        *frames = link->first_outgoing;
        link->first_outgoing = NULL;
        link->outgoing_tail = &link->first_outgoing;
    }
    pthread_mutex_unlock(&link->lock);
    return is_wanted;
}

/* Publishes the Idefix client's queued requests over MQTT, in order, until one fails. Returns 0 or the
 * failure's code. Runs in the connection thread of an Idefix client. */
static int publish_frames(struct idefix_mqtt *mqtt, const struct outgoing *frames,
                          struct idefix_failure *failure)
{
    int code = 0;

    for (; frames != NULL && code == 0; frames = frames->next)
        code =
            idefix_mqtt_publish(mqtt, frames->frame.flags, frames->frame.body, frames->frame.bytes, failure);
    return code;
}

/* Connects to the broker, then sends and receives until the connection ends or the client drops it. After
 * the open, which blocks while the broker's name is looked up, it notes that the name is resolved;
 * connect_to_broker extends its deadline then. Runs in the connection thread of an Idefix client. */
static void run_connection(struct idefix_link *link, uint64_t connection_number)
{
    struct idefix_mqtt *mqtt = NULL;
    struct idefix_failure failure;
    struct outgoing *frames;
    bool is_up = false;
    int code = idefix_mqtt_open(&link->params, on_received_frame, link, &mqtt, &failure);

    pthread_mutex_lock(&link->lock);
    link->is_name_resolved = link->connection_number == connection_number;
    pthread_mutex_unlock(&link->lock);
    while (code == 0 && take_outgoing_frames(link, connection_number, &frames)) {
        code = publish_frames(mqtt, frames, &failure);
        free_outgoing_frames(frames);
        if (code == 0)
            code = idefix_mqtt_wait_and_exchange(mqtt, link->thread_wake_fd, &failure);
        drain_eventfd(link->thread_wake_fd);
        if (code == 0 && !is_up && idefix_mqtt_ready(mqtt)) {
            is_up = true;
            set_link_state(link, connection_number, IDEFIX_LINK_UP, NULL);
        }
    }
    if (code != 0)
        set_link_state(link, connection_number, IDEFIX_LINK_DOWN, &failure);
    idefix_mqtt_close(&mqtt);
}

/* Main function of the thread that keeps an Idefix client's connection. Waits until the owner asks for a
 * connection, and runs it; ends when the owner closes the client. Part of the Idefix client, in a
 * producer or a library caller. */
static void *run_link_thread(void *user)
{
    struct idefix_link *link = user;
    uint64_t served_number = 0;

    for (;;) {
        pthread_mutex_lock(&link->lock);
        bool must_quit = link->quit_requested,
             is_wanted = link->state == IDEFIX_LINK_CONNECTING && link->connection_number != served_number;
        uint64_t connection_number = link->connection_number;
        pthread_mutex_unlock(&link->lock);
        if (must_quit)
            break;
        if (is_wanted) {
            served_number = connection_number;
            run_connection(link, connection_number);
            continue;
        }
        struct pollfd poll_fd = {.fd = link->thread_wake_fd, .events = POLLIN};
        poll(&poll_fd, 1, -1);
        drain_eventfd(link->thread_wake_fd);
    }
    pthread_mutex_lock(&link->lock);
    link->thread_ended = true;
    pthread_mutex_unlock(&link->lock);
    wake_thread(link->owner_wake_fd);
    release_link(link);
    return NULL;
}

/* ---- the owner's side */

/* Starts the connection thread of an Idefix client. All signals are blocked in it, so that they reach
 * the main thread of the producer or of the library caller. Returns 0 or an errno. Called for the first
 * connection. */
static int start_link_thread(struct idefix_link *link)
{
    sigset_t all_signals, old_mask;

    link->references = 2; /* without the lock: the thread does not run yet */
    sigfillset(&all_signals);
    pthread_sigmask(SIG_SETMASK, &all_signals, &old_mask);
    int errnum = pthread_create(&link->thread, NULL, run_link_thread, link);
    pthread_sigmask(SIG_SETMASK, &old_mask, NULL);
    link->thread_started = errnum == 0;
    if (errnum != 0)
        link->references = 1;
    return errnum;
}

/* Asks the connection thread of an Idefix client to connect if the connection is down, and starts the
 * thread if there is none yet. Does not wait for the connection. Returns 0, or EP_ESYSTEM with a message.
 * Called by the Idefix client before each request. */
int idefix_link_connect(struct idefix_link *link, struct error *error)
{
    pthread_mutex_lock(&link->lock);
    bool was_down = link->state == IDEFIX_LINK_DOWN;
    if (was_down) {
        link->state = IDEFIX_LINK_CONNECTING;
        link->connection_number++;
        link->is_name_resolved = false;
        link->failure = (struct idefix_failure){0};
    }
    pthread_mutex_unlock(&link->lock);
    if (!was_down)
        return 0;
    int errnum = link->thread_started ? 0 : start_link_thread(link);
    if (errnum == 0) {
        wake_thread(link->thread_wake_fd);
        return 0;
    }
    link->state = IDEFIX_LINK_DOWN;
    return base_error_set(error, EP_ESYSTEM, "cannot start a thread for the connection to %s: %s",
                          link->params.address, strerror(errnum));
}

/* Sets the state of an Idefix client's connection to down at once; the connection thread disconnects
 * later. The Idefix client calls it after two missing answers in a row, so that the next request connects
 * again. */
void idefix_link_drop(struct idefix_link *link)
{
    pthread_mutex_lock(&link->lock);
    link->state = IDEFIX_LINK_DOWN;
    link->failure = (struct idefix_failure){0};
    clear_outgoing_queue(link);
    pthread_mutex_unlock(&link->lock);
    wake_thread(link->thread_wake_fd);
}

/* Copies the state and number of an Idefix client's present connection, and the failure that ended it.
 * The Idefix client calls it while it waits. */
void idefix_link_get_status(struct idefix_link *link, struct idefix_link_status *status)
{
    pthread_mutex_lock(&link->lock);
    *status = (struct idefix_link_status){link->state, link->connection_number, link->is_name_resolved,
                                          link->failure};
    pthread_mutex_unlock(&link->lock);
}

/* Queues an encoded Idefix request for the connection thread to send, and takes over its body. Returns 0,
 * or EP_ENOMEM, after which the caller still owns the body. Without a connection the frame is dropped;
 * the Idefix client, which waits for the answer, then finds that the connection is down. */
int idefix_link_queue_frame(struct idefix_link *link, struct idefix_frame *frame)
{
    struct outgoing *queued = malloc(sizeof *queued);

    if (queued == NULL)
        return EP_ENOMEM;
    *queued = (struct outgoing){.frame = *frame};
    *frame = (struct idefix_frame){0};
    pthread_mutex_lock(&link->lock);
    bool is_up = link->state == IDEFIX_LINK_UP;
    if (is_up) {
        *link->outgoing_tail = queued;
        link->outgoing_tail = &queued->next;
    }
    pthread_mutex_unlock(&link->lock);
    if (is_up)
        wake_thread(link->thread_wake_fd);
    else
        free_outgoing_frames(queued);
    return 0;
}

/* Sets whether an Idefix client's connection keeps received frames, and drops those kept so far. The
 * Idefix client listens only while a request waits for its answer; otherwise late answers would fill the
 * memory. */
void idefix_link_set_listening(struct idefix_link *link, bool must_listen)
{
    pthread_mutex_lock(&link->lock);
    link->is_listening = must_listen;
    free_received_frames(link);
    pthread_mutex_unlock(&link->lock);
}

/* Takes the oldest frame received from the Idefix backend out of the queue and returns it, or NULL if
 * there is none. The Idefix client, which calls it while it waits for an answer, frees the frame. */
struct idefix_link_frame *idefix_link_take_frame(struct idefix_link *link)
{
    pthread_mutex_lock(&link->lock);
    struct idefix_link_frame *frame = link->first_frame;
    if (frame != NULL) {
        link->first_frame = frame->next;
        if (link->first_frame == NULL)
            link->frames_tail = &link->first_frame;
        link->frame_count--;
        link->frame_bytes -= frame->is_too_large ? 0 : frame->bytes;
    }
    pthread_mutex_unlock(&link->lock);
    return frame;
}

/* Returns whether the connection thread of an Idefix client has ended, so that joining it does not block.
 * Called while a producer or a library caller closes its Idefix client. */
static bool has_thread_ended(struct idefix_link *link)
{
    pthread_mutex_lock(&link->lock);
    bool has_ended = link->thread_ended;
    pthread_mutex_unlock(&link->lock);
    return has_ended;
}

/* Ends an Idefix client's connection and its thread; waits one second at most. A thread that still
 * resolves the broker's name is detached and frees the connection itself. Called when a producer or a
 * library caller closes its Idefix client. Accepts a pointer to NULL. */
void idefix_link_close(struct idefix_link **link)
{
    struct idefix_link *old = *link;

    if (old == NULL)
        return;
    *link = NULL;
    pthread_mutex_lock(&old->lock);
    old->quit_requested = true;
    old->is_listening = false;
    pthread_mutex_unlock(&old->lock);
    wake_thread(old->thread_wake_fd);
    if (old->thread_started) {
        uint64_t deadline_ns = shm_now_ns() + CLOSE_MS * NS_PER_MS;
        while (!has_thread_ended(old) && shm_now_ns() < deadline_ns)
            idefix_link_wait(old, deadline_ns);
        if (has_thread_ended(old))
            pthread_join(old->thread, NULL);
        else
            pthread_detach(old->thread);
    }
    release_link(old);
}
