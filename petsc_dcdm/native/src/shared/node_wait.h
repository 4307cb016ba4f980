/* The block through which the ranks of a team talk, and how they wait for each other. Included by node_team.c.
 *
 * Waiting ranks spin for a moment. Then they go on as long as nobody else wants their core, up to a millisecond, for to
 * be woken takes longer than most of what they wait for, and in the end they sleep.
 *
 * Where other programs want the cores they spin that long without giving way. A rank that leaves its core, even for
 * less than the time in which it had it, gets it back when a program there has had as much of it, at the next tick of a
 * clock that may be one of 4 milliseconds (Linux 6.6 and later): in place of a wait it loses its turn, and all wait for
 * it. Ticks come at the same time on all cores, so that those who keep theirs work side by side from one to the next
 * but one. Where ranks of the team have no core each they do sleep at once, for they keep each other from work.
 *
 * A rank that has ended, by a signal say, ends those that wait for it.
 */
#ifndef DCDM_NODE_WAIT_H
#define DCDM_NODE_WAIT_H

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#endif
#include <time.h>
#include <unistd.h>

#include "shared/node_team.h"

/* A spin is some 30 nanoseconds; all other times are in nanoseconds. A sleep of a fifth of a second is followed by a
 * look at whether the others live. */
enum { SPINS = 1000, BETWEEN = 50, PATIENCE = 1000000, TAKEN = 400000, SLEEP = 200000000 };
enum { LINE = 64, MAX_RANKS = 1024, MAX_VALUES = 64, FEWEST = 8, MOST = 512 };
enum { CORES = 16, MOST_PARTS = 1 << 13, MEETS = 1 << 16, FORGET = 1 << 20, AHEAD = 16 };

/* What is waited for. */
typedef _Atomic uint32_t counter;

typedef struct {
    _Alignas(LINE) int64_t first, threads, process; /* its parts, and which process it is */
    uint32_t seen, turn; /* number of the last command that it has taken; of values it has told or asked for */
    counter section;     /* that it serves in, counted from 1 */
} team_rank;

typedef struct dcdm_team {
    _Alignas(LINE) _Atomic uint64_t command; /* its number << 32, MEETS if its parts do, and how many these are */
    counter number;                          /* once more, for those who wait for the next one */
    counter sections;                        /* that are over */
    int64_t function;                        /* bytes from `here` to the part function */
    _Alignas(LINE) counter left;             /* parts of the last command that are not done */
    _Alignas(LINE) counter arrived;          /* ranks, at a barrier */
    _Alignas(LINE) counter barriers;
    _Alignas(LINE) counter met; /* parts, at a meeting */
    _Alignas(LINE) counter meetings;
    _Alignas(LINE) counter asleep; /* ranks that sleep, for whatever */
    _Alignas(LINE) int64_t ranks, threads;
    _Atomic uint64_t cores[CORES]; /* a bit for each that any of the ranks may use */
    int64_t shared[2]; /* of this turn and the last one: who is ahead of others is so by less than a barrier */
    team_rank rank[MAX_RANKS];
    counter begun[MOST_PARTS]; /* the last command of which somebody has begun this part */
    double values[2][MAX_RANKS][MAX_VALUES];
    _Alignas(LINE) char arguments[TEAM_ARGUMENTS];
} dcdm_team;

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* Ends this process if a rank is no more: nothing of it would ever come. */
static void require_all(const dcdm_team *t) {
    for (int64_t k = 0; k < t->ranks; k++)
        if (kill((pid_t)t->rank[k].process, 0) && errno == ESRCH) {
            fprintf(stderr, "petsc_dcdm: rank %lld of %lld that share a box here has ended, and so does this one\n",
                    (long long)k, (long long)t->ranks);
            fflush(stderr);
            _exit(1);
        }
}

/* Sleeps while *what is `value`, or not as long. */
static void sleep_on(dcdm_team *t, counter *what, uint32_t value) {
    const struct timespec most = {.tv_nsec = SLEEP};
#ifdef __linux__
    atomic_fetch_add(&t->asleep, 1);
    const long woken = syscall(SYS_futex, what, FUTEX_WAIT, value, &most, NULL, 0);
    const int late = woken && errno == ETIMEDOUT;
    atomic_fetch_sub(&t->asleep, 1);
    if (late) require_all(t);
#else
    (void)what, (void)value, (void)most;
    nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    require_all(t);
#endif
}

/* So many of the next waits give way to nobody: another program had our core when it was offered. And how many it will
 * be where that happens again: often means often. */
static _Thread_local int crowded, more = FEWEST;

/* Notes the cores that the calling rank may use. */
static void note_cores(dcdm_team *t) {
#ifdef __linux__
    uint64_t own[CORES] = {0};
    if (sched_getaffinity(0, sizeof own, (cpu_set_t *)own)) return;
    for (int w = 0; w < CORES; w++) atomic_fetch_or(&t->cores[w], own[w]);
#else
    (void)t;
#endif
}

/* Whether the ranks are known to have a core for each of their threads. */
static int have_cores(const dcdm_team *t) {
    int64_t found = 0;
    for (int w = 0; w < CORES; w++)
        found += __builtin_popcountll(atomic_load_explicit(&t->cores[w], memory_order_relaxed));
    return found >= t->threads;
}

/* Waits until *what is `value`, or if `other` until it is not. */
static void wait_for(dcdm_team *t, counter *what, uint32_t value, int other) {
    int64_t end = 0, at = 0;
    int gives_way = 1;
    for (int n = 0;; n++) {
        const uint32_t found = atomic_load_explicit(what, memory_order_acquire);
        if ((found == value) != other) {
            if (at < end && gives_way) more -= (more - FEWEST) / 8; /* nobody wanted the core */
            return;
        }
        if (n < SPINS || (at < end && n % BETWEEN)) pause_briefly();
        else if (!end) {
            at = now();
            gives_way = !crowded;
            end = gives_way || have_cores(t) ? at + PATIENCE : at;
            crowded -= !gives_way;
        } else if (at < end) {
            const int64_t before = now();
            if (gives_way) sched_yield();
            at = now();
            if (at - before > TAKEN) end = at, crowded = more, more = more < MOST ? 2 * more : MOST;
        } else sleep_on(t, what, found);
    }
}

/* Adds something, for all who wait. */
static uint32_t count(dcdm_team *t, counter *what, uint32_t step) {
    const uint32_t before = atomic_fetch_add(what, step);
#ifdef __linux__
    if (atomic_load(&t->asleep)) syscall(SYS_futex, what, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
#else
    (void)t;
#endif
    return before;
}

#endif
