/* SPDX-License-Identifier: MIT */
/*
 * The orders that contrib/idefix-sim reads from standard input, one on each line. It answers each with
 * one line, `ok ...` or `error ...`. Most orders make it misbehave like a backend in trouble.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "contrib/idefix_sim.h"

/* Takes the next word from *rest; NULL if there is none. */
static char *word(char **rest)
{
    char *found;
    do
        found = strsep(rest, " \t");
    while (found != NULL && *found == '\0');
    return found;
}

static bool read_number(const char *text, uint64_t *number)
{
    char *end;
    if (text == NULL || *text < '0' || *text > '9')
        return false;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0')
        return false;
    *number = value;
    return true;
}

/* Reads a count: left out = 1, 0 = no limit. */
static bool read_count(const char *text, uint64_t *count)
{
    *count = 1;
    if (text == NULL)
        return true;
    if (!read_number(text, count))
        return false;
    if (*count == 0)
        *count = UINT64_MAX;
    return true;
}

/* ---- the orders: each returns 0, or a negative code with a message */

static int order_number(uint64_t *number, char *rest, struct error *error)
{
    return read_number(word(&rest), number) ? 0 : base_error_set(error, EP_EINVAL, "a number was expected");
}

static int order_drop(struct sim *sim, char *rest, struct error *error)
{
    return order_number(&sim->drop_every, rest, error);
}

static int order_duplicate(struct sim *sim, char *rest, struct error *error)
{
    return order_number(&sim->duplicate_every, rest, error);
}

static int order_disconnect(struct sim *sim, char *rest, struct error *error)
{
    return order_number(&sim->disconnect_every, rest, error);
}

static int order_delay(struct sim *sim, char *rest, struct error *error)
{
    return order_number(&sim->delay_ms, rest, error);
}

static int order_garbage(struct sim *sim, char *rest, struct error *error)
{
    const char *name = word(&rest);
    enum sim_garbage kind = name != NULL ? sim_garbage_read(name) : SIM_GARBAGE_KINDS;
    uint64_t count;
    if (kind == SIM_GARBAGE_KINDS)
        return base_error_set(
            error, EP_EINVAL,
            "kinds: random not-gzip gzip-bomb truncated deep lying types flags bad-event timestamps off");
    if (!read_count(word(&rest), &count))
        return base_error_set(error, EP_EINVAL, "COUNT is a number, 0 = without end");
    sim->garbage = kind;
    sim->garbage_count = count;
    sim->garbage_variant = 0;
    if (kind != SIM_GARBAGE_NONE)
        sim_polls_events_added(sim); /* answers the waiting polls */
    return 0;
}

static int order_error(struct sim *sim, char *rest, struct error *error)
{
    const char *name = word(&rest), *command;
    uint64_t code = 0, count;
    if (name != NULL && strcmp(name, "off") == 0) {
        sim->error_count = 0;
        return 0;
    }
    if (!read_number(name, &code) || code == 0 || code > 999)
        return base_error_set(error, EP_EINVAL, "a code from 1 to 999 was expected, or off");
    if (!read_count(word(&rest), &count))
        return base_error_set(error, EP_EINVAL, "COUNT is a number, 0 = without end");
    command = word(&rest);
    sim->error_code = (int)code;
    sim->error_count = count;
    snprintf(sim->error_command, sizeof sim->error_command, "%s", command != NULL ? command : "events.get");
    return 0;
}

static int order_silent(struct sim *sim, char *rest, struct error *error)
{
    const char *how = word(&rest);
    if (how == NULL || (strcmp(how, "on") != 0 && strcmp(how, "off") != 0))
        return base_error_set(error, EP_EINVAL, "on or off was expected");
    sim->silent = strcmp(how, "on") == 0;
    return 0;
}

static int order_late(struct sim *sim, char *rest, struct error *error)
{
    const char *ms = word(&rest);
    uint64_t late_ms = 11000; /* a second beyond what the original client waits */
    if ((ms != NULL && !read_number(ms, &late_ms)) || !read_count(word(&rest), &sim->late_count))
        return base_error_set(error, EP_EINVAL, "late [MS [COUNT]]");
    sim->late_ms = late_ms;
    return 0;
}

static int order_event(struct sim *sim, char *rest, struct error *error)
{
    if (rest == NULL || sim_events_add(&sim->events, rest, strlen(rest), error) != 0)
        return rest == NULL ? base_error_set(error, EP_EINVAL, "event JSON") : EP_EINVAL;
    sim_polls_events_added(sim);
    return 0;
}

static int order_events(struct sim *sim, char *rest, struct error *error)
{
    if (rest == NULL)
        return base_error_set(error, EP_EINVAL, "events FILE");
    long added = sim_events_load(&sim->events, rest, error);
    sim_polls_events_added(sim); /* also those before a bad line */
    return added >= 0 ? 0 : EP_EINVAL;
}

static int order_generate(struct sim *sim, char *rest, struct error *error)
{
    uint64_t count = 0;
    if (order_number(&count, rest, error) != 0)
        return EP_EINVAL;
    if (sim_events_generate(&sim->events, count) != 0)
        return base_error_set(error, EP_ENOMEM, "no memory");
    sim_polls_events_added(sim);
    return 0;
}

static int order_requests(struct sim *sim, char *rest, struct error *error)
{
    FILE *file = rest != NULL ? fopen(rest, "ae") : NULL;
    if (file == NULL)
        return base_error_set(error, EP_EINVAL, "%s", rest != NULL ? strerror(errno) : "requests FILE");
    if (sim->requests != NULL)
        fclose(sim->requests);
    sim->requests = file;
    return 0;
}

static int order_kick(struct sim *sim, char *rest, struct error *error)
{
    (void)rest;
    (void)error;
    for (const struct sim_session *session = sim->sessions; session != NULL; session = session->next)
        sim_kick(sim, session->id);
    sim->stats.kicks++;
    return 0;
}

static int order_quit(struct sim *sim, char *rest, struct error *error)
{
    (void)rest;
    (void)error;
    sim->quit = true;
    return 0;
}

void sim_print_stats(const struct sim *sim)
{
    const struct sim_stats *stats = &sim->stats;
    const struct {
        const char *name;
        uint64_t count;
    } members[] = {{"events", sim->events.count},
                   {"held", sim_polls_held(sim)},
                   {"requests", stats->requests},
                   {"logins", stats->logins},
                   {"refused", stats->refused},
                   {"polls", stats->polls},
                   {"creates", stats->creates},
                   {"answers", stats->answers},
                   {"events_sent", stats->events_sent},
                   {"dropped", stats->dropped},
                   {"duplicated", stats->duplicated},
                   {"errors", stats->errors},
                   {"garbage", stats->garbage},
                   {"late", stats->late},
                   {"ignored", stats->ignored},
                   {"undecodable", stats->undecodable},
                   {"kicks", stats->kicks},
                   {"disconnects", stats->disconnects},
                   {"connects", stats->connects},
                   {"unsent", stats->unsent}};
    printf("ok {");
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        printf("%s\"%s\":%" PRIu64, i != 0 ? "," : "", members[i].name, members[i].count);
    printf("}\n");
}

static const struct {
    const char *name;
    int (*take)(struct sim *sim, char *rest, struct error *error);
} orders[] = {
    {"drop-every", order_drop},
    {"duplicate-every", order_duplicate},
    {"disconnect-every", order_disconnect},
    {"delay", order_delay},
    {"garbage", order_garbage},
    {"error", order_error},
    {"silent", order_silent},
    {"late", order_late},
    {"event", order_event},
    {"events", order_events},
    {"generate", order_generate},
    {"requests", order_requests},
    {"kick", order_kick},
    {"quit", order_quit},
};

int sim_order(struct sim *sim, char *line, struct error *error)
{
    char *rest = line;
    const char *name = word(&rest);
    for (size_t i = 0; name != NULL && i < sizeof orders / sizeof orders[0]; i++)
        if (strcmp(orders[i].name, name) == 0)
            return orders[i].take(sim, rest, error);
    return base_error_set(error, EP_EINVAL, "unknown order: %s", name != NULL ? name : "");
}
