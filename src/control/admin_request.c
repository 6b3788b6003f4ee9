/* SPDX-License-Identifier: MIT */
/*
 * Reads and checks a request to the keeper before anything is done: types, ranges, no member that the
 * command does not know, and filters for a command that changes events. Runs in the keeper and in the
 * command line. Pure, but for the names of sources and stages (admin_names.c).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shm/slot.h"
#include "src/control/admin.h"

#define NUMBER_MAX 9007199254740992.0 /* 2^53: beyond it JSON numbers, read as doubles, are not exact */

/* Reads a member of a control request that must be a string. *out points into the request and is not
 * freed. Returns EP_OK, or EP_EINVAL with a message. Runs in the keeper, or in a child of `eventpipe`
 * while the daemon is down. */
static int read_string_member(const cJSON *member, const char **out, struct error *error)
{
    if (!cJSON_IsString(member))
        return base_error_set(error, EP_EINVAL, "\"%s\" must be a string", member->string);
    *out = member->valuestring;
    return EP_OK;
}

/* Reads a member of a control request that must be true or false, such as "dry_run". Returns EP_OK, or
 * EP_EINVAL with a message. Runs in the keeper, or in a child of `eventpipe` while the daemon is down. */
static int read_bool_member(const cJSON *member, bool *out, struct error *error)
{
    if (!cJSON_IsBool(member))
        return base_error_set(error, EP_EINVAL, "\"%s\" must be true or false", member->string);
    *out = cJSON_IsTrue(member);
    return EP_OK;
}

/* Reads a member of a control request that must be a whole number and not less than `minimum`. Numbers
 * above 2^53 are rejected, because cJSON rounds them. Returns EP_OK, or EP_EINVAL with a message. Runs in
 * the keeper, or in a child of `eventpipe` while the daemon is down. */
static int read_number_member(const cJSON *member, double minimum, uint64_t *out, struct error *error)
{
    double value = cJSON_IsNumber(member) ? member->valuedouble : NAN;
    if (!(value >= minimum && value <= NUMBER_MAX) || value != floor(value))
        return base_error_set(error, EP_EINVAL, "\"%s\" must be a whole number from %.0f to %.0f",
                              member->string, minimum, NUMBER_MAX);
    *out = (uint64_t)value;
    return EP_OK;
}

/* Reads the 1 to 5000 UIDs by which a control request selects events. Only the array is allocated, and the
 * request frees it; the texts stay where they are. Returns EP_OK, or EP_EINVAL or EP_ENOMEM with a
 * message. Runs in the keeper, or in a child of `eventpipe` while the daemon is down. */
static int read_uids_member(struct admin_request *request, const cJSON *member, struct error *error)
{
    int count = cJSON_IsArray(member) ? cJSON_GetArraySize(member) : 0;
    if (count < 1 || count > ADMIN_UIDS_MAX || request->uids != NULL)
        return base_error_set(error, EP_EINVAL, "\"uids\" must be a list of 1 to %d UIDs", ADMIN_UIDS_MAX);
    request->uids = calloc((size_t)count, sizeof *request->uids);
    if (request->uids == NULL)
        return base_error_set(error, EP_ENOMEM, "out of memory");
    const cJSON *uid;
    size_t uid_count = 0;
    cJSON_ArrayForEach(uid, member)
    {
        if (!cJSON_IsString(uid) || uid->valuestring[0] == '\0')
            return base_error_set(error, EP_EINVAL, "each UID in \"uids\" must be a string, and not empty");
        request->uids[uid_count++] = uid->valuestring;
    }
    request->select.uids = request->uids;
    request->select.uid_count = uid_count;
    return EP_OK;
}

/* Reads the filter "state" of a control request, the name of an event state as in `eventpipe queue --state
 * dead`. Returns EP_OK, or EP_EINVAL with a message that lists the states. Runs in the keeper, or in a
 * child of `eventpipe` while the daemon is down. */
static int read_state_member(struct admin_request *request, const cJSON *member, struct error *error)
{
    const char *name = "";
    int code = read_string_member(member, &name, error);
    if (code != EP_OK)
        return code;
    for (int state = STORE_READY; state <= STORE_DEAD; state++)
        if (strcmp(store_state_name((enum store_state)state), name) == 0) {
            request->select.state = state;
            return EP_OK;
        }
    return base_error_set(error, EP_EINVAL,
                          "there is no state \"%s\": it is one of ready, running, delayed, held, dead", name);
}

/* Reads the filter "older_ms" of a control request and turns this age into the latest time of arrival that
 * the request selects. Returns EP_OK, or EP_EINVAL with a message. Runs in the keeper, or in a child of
 * `eventpipe` while the daemon is down. */
static int read_minimum_age(struct admin_request *request, const cJSON *member, struct error *error)
{
    uint64_t age_ms = 0, now_ms = shm_realtime_ms();
    int code = read_number_member(member, 0, &age_ms, error);
    if (code == EP_OK) /* at least 1: 0 would select any age, and no event arrived before 1970 */
        request->select.older_than_ms = age_ms < now_ms ? now_ms - age_ms : 1;
    return code;
}

enum member_kind {
    TEXT_SOURCE,
    TEXT_STAGE,
    TEXT_ADDRESS,
    TEXT_TYPE,
    TEXT_ERROR,
    TEXT_SET,
    STATE,
    UIDS,
    ALL,
    DRY_RUN,
    OLDER,
    LIMIT,
    LINE
};

#define FILTERS CONTROL_ACCEPTS_FILTERS
#define UIDS_ONLY CONTROL_ACCEPTS_UIDS
#define ONE_SOURCE (CONTROL_ACCEPTS_SET | CONTROL_ACCEPTS_LINES)
static const struct member_rule {
    const char *name;
    enum member_kind kind;
    unsigned accepted_by; /* bits of enum control_accepts: commands with one of them know the member */
    bool is_filter;
} member_rules[] = {
    {"uids", UIDS, FILTERS | UIDS_ONLY, true},
    {"all", ALL, FILTERS, true},
    {"source", TEXT_SOURCE, FILTERS | UIDS_ONLY | ONE_SOURCE, true},
    {"stage", TEXT_STAGE, FILTERS, true},
    {"state", STATE, FILTERS, true},
    {"address", TEXT_ADDRESS, FILTERS, true},
    {"type", TEXT_TYPE, FILTERS, true},
    {"older_ms", OLDER, FILTERS, true},
    {"error", TEXT_ERROR, FILTERS, true},
    {"limit", LIMIT, FILTERS, false},
    {"dry_run", DRY_RUN, CONTROL_ACCEPTS_DRY_RUN, false},
    {"set", TEXT_SET, CONTROL_ACCEPTS_SET, false},
    {"line", LINE, CONTROL_ACCEPTS_LINES, false},
};

/* Reads one member of a control request into the command's filters and options, and checks its type and
 * range. Returns EP_OK or an error code with a message. Runs in the keeper, or in a child of `eventpipe`
 * while the daemon is down. */
static int read_member(struct admin_request *request, const cJSON *member, enum member_kind kind,
                       struct error *error)
{
    struct store_select *select = &request->select;
    switch (kind) {
    case TEXT_SOURCE:
        return read_string_member(member, &select->source, error);
    case TEXT_STAGE:
        return read_string_member(member, &select->stage, error);
    case TEXT_ADDRESS:
        return read_string_member(member, &select->address, error);
    case TEXT_TYPE:
        return read_string_member(member, &select->type, error);
    case TEXT_ERROR:
        return read_string_member(member, &select->error, error);
    case TEXT_SET:
        return read_string_member(member, &request->new_cursor, error);
    case STATE:
        return read_state_member(request, member, error);
    case UIDS:
        return read_uids_member(request, member, error);
    case ALL:
        return read_bool_member(member, &request->select_all, error);
    case DRY_RUN:
        return read_bool_member(member, &request->dry_run, error);
    case OLDER:
        return read_minimum_age(request, member, error);
    case LIMIT:
        return read_number_member(member, 1, &select->limit, error);
    case LINE:
        return read_number_member(member, 1, &request->first_line, error);
    }
    return EP_OK;
}

/* Checks the members of a control request against each other, after all are read. A command that changes
 * events needs a filter, because a forgotten filter would change every event. Returns EP_OK, or EP_EINVAL
 * with a message. Runs in the keeper, or in a child of `eventpipe` while the daemon is down. */
static int check_member_combination(const struct admin_request *request, struct error *error)
{
    const struct control_command *command = request->command;
    if (command->change != NULL && !request->has_filter)
        return base_error_set(error, EP_EINVAL,
                              "no events are selected: give UIDs or filters, or ALL for every event");
    if ((command->accepts & UIDS_ONLY) != 0 && request->uids == NULL)
        return base_error_set(error, EP_EINVAL, "no event is selected: give its UID");
    if ((command->accepts & ONE_SOURCE) != 0 && request->select.source == NULL)
        return base_error_set(error, EP_EINVAL, "no source is given");
    if (request->select_all && request->uids != NULL)
        return base_error_set(error, EP_EINVAL, "give either UIDs or ALL, not both");
    return EP_OK;
}

/* Returns the rule for a member of a control request, such as "stage", or NULL if the command does not
 * accept this member. Runs in the keeper, or in a child of `eventpipe` while the daemon is down. */
static const struct member_rule *find_member_rule(const struct control_command *command, const char *name)
{
    for (size_t i = 0; i < sizeof member_rules / sizeof member_rules[0]; i++)
        if (strcmp(member_rules[i].name, name) == 0 && (member_rules[i].accepted_by & command->accepts) != 0)
            return &member_rules[i];
    return NULL;
}

/* Reads all members of a control request. An unknown member is an error, because a misspelt filter that
 * was ignored would select more events than the operator meant. Returns EP_OK or an error code with a
 * message. Runs in the keeper, or in a child of `eventpipe` while the daemon is down. */
static int read_members(struct admin_request *request, const cJSON *json, struct error *error)
{
    const cJSON *member;
    cJSON_ArrayForEach(member, json)
    {
        if (strcmp(member->string, "command") == 0)
            continue;
        const struct member_rule *rule = find_member_rule(request->command, member->string);
        if (rule == NULL)
            return base_error_set(error, EP_EINVAL, "%s does not know the member \"%.64s\"",
                                  request->command->name, member->string);
        int code = read_member(request, member, rule->kind, error);
        if (code != EP_OK)
            return code;
        if (rule->is_filter && (rule->kind != ALL || request->select_all))
            request->has_filter = true;
    }
    return check_member_combination(request, error);
}

/* Reads and checks a control request (JSON) completely before its command does anything, and reads the
 * names of sources and stages. Returns EP_OK, EP_EINVAL with a message for the operator, or another error
 * code. The caller closes the request in every case. Runs in the keeper, or in a child of `eventpipe`
 * while the daemon is down. */
int control_admin_read_request(struct admin_request *request, const cJSON *json, struct error *error)
{
    request->select.state = -1;
    request->first_line = 1;
    const cJSON *command = cJSON_IsObject(json) ? cJSON_GetObjectItemCaseSensitive(json, "command") : NULL;
    if (command == NULL || !cJSON_IsString(command))
        return base_error_set(error, EP_EINVAL, "a request is a JSON object with the member \"command\"");
    request->command = control_command_find(command->valuestring);
    if (request->command == NULL || request->command->server != CONTROL_BY_KEEPER)
        return base_error_set(error, EP_EINVAL, "the keeper does not know the command \"%.64s\"",
                              command->valuestring);
    int code = read_members(request, json, error);
    if (code == EP_OK)
        code = control_admin_read_names(request->admin, &request->names, error);
    if (code == EP_OK) {
        request->select.chain_sources = (const char *const *)request->names->sources;
        request->select.chains = (const char *const *const *)request->names->chains;
        request->select.chain_count = request->names->count;
    }
    return code;
}

/* Frees what a control request owns. control_admin_serve calls it after the command has run or was
 * refused. */
void control_admin_close_request(struct admin_request *request)
{
    free(request->uids);
    control_admin_free_names(request->names);
    request->uids = NULL;
    request->names = NULL;
}
