/* Whether other programs take the cores of the threads, as these notice. Included by team.c. */
#ifndef DCDM_BUSY_H
#define DCDM_BUSY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <time.h>

/* All in nanoseconds but TURNS. */
enum {
    LOST = 1000000,    /* a thread that was kept from work for so long by others, */
    OFTEN = 25000000,  /* twice within this time, */
    BUSY = 100000000,  /* takes them to be taken for this long; */
    SUSPECT = 300000,  /* so does one that was kept for so long, */
    TURNS = 16,        /* and has had to leave its core so often within that time */
};

static _Atomic long lost_at, busy_until, times_busy;

static long time_of(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static long nanoseconds(void) { return time_of(CLOCK_MONOTONIC); }

static bool is_busy(long time) { return time < atomic_load(&busy_until); }

static void note_busy(long time) {
    if (!is_busy(time)) atomic_fetch_add(&times_busy, 1);
    atomic_store(&busy_until, time + BUSY);
}

/* Takes the cores to be taken if the calling thread has left its own for others often: some thousand times a second
 * where they are, 25 or 50 on an idle system. */
static void note_turns(long time) {
    static _Thread_local long since, known;
    struct rusage used;
    if (getrusage(RUSAGE_THREAD, &used)) return;
    const bool often = time - since <= BUSY && used.ru_nivcsw - known >= TURNS;
    if (often) note_busy(time);
    if (often || time - since > BUSY) since = time, known = used.ru_nivcsw;
}

/* Something has kept a thread from work for so long up to now. Once is no reason to change anything: systems have their
 * own work, and a virtual machine its host. */
static void note_lost(long lost, long time) {
    if (lost > SUSPECT) note_turns(time);
    if (lost > LOST && time - atomic_exchange(&lost_at, time) <= OFTEN) note_busy(time);
}

#endif
