/* SPDX-License-Identifier: MIT */
/* The one table of Idefix's error codes and what to do about each. Pure: any process, any thread. */
#include "src/idefix/client.h"

static const struct {
    int code;
    enum idefix_verdict verdict;
    const char *setting;
} codes[] = {
    {4, IDEFIX_REFUSED, NULL},                                         /* not authorized */
    {5, IDEFIX_REFUSED, NULL},                                         /* permission denied */
    {7, IDEFIX_NOTHING_YET, NULL},                                     /* timeout */
    {102, IDEFIX_SESSION, NULL},                                       /* invalid session */
    {201, IDEFIX_REFUSED, NULL},                                       /* invalid token */
    {203, IDEFIX_SETTING, "domain"},                                   /* missing domain */
    {204, IDEFIX_SETTING, "address"},                                  /* missing address */
    {205, IDEFIX_SETTING, "address"},                                  /* invalid address */
    {206, IDEFIX_SETTING, NULL},                                       /* in this range, meaning unknown */
    {207, IDEFIX_SETTING, NULL},      {208, IDEFIX_SETTING, "domain"}, /* domain not found */
    {209, IDEFIX_SETTING, "address"},                                  /* address not found */
};

/* Returns the verdict, what to do about an error code of the Idefix backend: correct the account or a
 * setting, log in again, poll again because there is nothing new, or treat it as any other failure.
 * *setting is the wrong setting's name or NULL. A producer calls it after each failed fetch, ep_idefix
 * functions for a library caller. */
enum idefix_verdict idefix_error_verdict(int code, const char **setting)
{
    *setting = NULL;
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (codes[i].code == code) {
            *setting = codes[i].setting;
            return codes[i].verdict;
        }
    return IDEFIX_FAILED;
}
