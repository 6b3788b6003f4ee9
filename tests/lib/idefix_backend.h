/* SPDX-License-Identifier: MIT */
/*
 * A child process that answers as Idefix does, or as `idefix_world->login` and `idefix_world->get` tell it
 * to. What it saw is in `idefix_world`, memory that it shares with the test.
 */
#ifndef TESTS_LIB_IDEFIX_BACKEND_H
#define TESTS_LIB_IDEFIX_BACKEND_H

#include <stdatomic.h>
#include <unistd.h>

#define IDEFIX_PATIENCE_MS 20000

enum login_mode { LOGIN_OK, LOGIN_REFUSED, LOGIN_SILENT, LOGIN_LATER, LOGIN_TWICE, LOGIN_SIGNAL };

enum get_mode {
    GET_PAGE,     /* three events and a cid */
    GET_FULL,     /* as many events as the limit, and the cid that was sent, or "start" */
    GET_EMPTY,    /* no events, the cid that was sent */
    GET_ERROR,    /* idefix_world->error */
    GET_TWICE,    /* the page, and again */
    GET_KEEP,     /* no answer; the request is remembered */
    GET_LATE,     /* first an answer to what was remembered, then the page */
    GET_STRANGER, /* an answer to nobody, then the page */
    GET_GARBAGE,
    GET_HUGE,   /* larger than max_bytes when inflated */
    GET_SIGNAL, /* no answer; SIGUSR1 to the test */
    GET_CUT     /* no answer; the broker is killed */
};

struct idefix_world {
    atomic_int login, get, ready;
    atomic_uint logins, gets, creates;
    pid_t test, broker;
    char error[100];
    char session[64], flags[8], to[64], reply[64]; /* of the last request */
    char login_data[2048], get_data[2048], create_data[2048];
};

extern struct idefix_world *idefix_world;

/* Starts it on the broker at this port, and waits until it has subscribed. */
void idefix_backend_start(int port, pid_t *pid);

#endif
