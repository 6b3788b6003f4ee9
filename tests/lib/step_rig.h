/* SPDX-License-Identifier: MIT */
/*
 * One process, halted after any of its instructions. A child forked by step_fork does something between two
 * marks; its parent brings it forward instruction by instruction, or system call by system call, and kills it
 * where it likes. What cannot be stepped (no ptrace, sanitizers) skips the test with a message.
 */
#ifndef TESTS_LIB_STEP_RIG_H
#define TESTS_LIB_STEP_RIG_H

#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#define STEP_PATIENCE_MS 120000

enum step_stop { STEP_HALTED, STEP_DONE, STEP_LOST };

/* In the child: the operation begins, and ends, here. */
void step_mark(void);

/* Kills it and waits for it; does nothing for a pid of -1. */
void step_kill(pid_t pid);

/* Forks a child that runs body(user) up to its first mark. -1: it did not get there. */
pid_t step_fork(void (*body)(void *user), void *user);

/* What it stopped for. A signal that is none of ours ends the matter: STEP_LOST. */
enum step_stop step_wait(pid_t pid);

/* On by `count` instructions, or to the second mark. */
enum step_stop step_on(pid_t pid, uint32_t count);

/* On by `count` halts at system calls (each halts twice: where it begins and where it ends). */
enum step_stop step_calls(pid_t pid, uint32_t count);

/* On to the second mark. */
enum step_stop step_finish(pid_t pid);

/* Ends the test with a message where stepping is impossible, or its thirty times as many instructions
 * senseless. */
void step_or_skip(void);

/* Whether STEP_LONG is set: the long form of the test. */
bool step_long(void);

/* The long form where there are too many instructions for every one: STEP_LONG=N takes every Nth. */
bool step_takes(uint32_t instruction);

/* Its state, as ps shows it; 'Z' also when there is none. */
char step_state(pid_t pid);

/* Waits until a process sleeps in the kernel. */
bool step_asleep(pid_t pid);

#endif
