/* The threads of the kernels: what gcc makes of `#pragma omp` calls these functions, which have the names and the
 * meaning of those in its own library, libgomp, and are hidden in this one.
 *
 * libgomp's threads spin for milliseconds at either end of a region. Where other programs use the cores each region
 * then costs a turn of the scheduler, and how long they spin is read when the library is loaded, which PETSc has done
 * before anybody here can say a word. These threads
 *
 * - are awake for a fraction of a millisecond after their work, and hardly at all while others take their cores from
 *   them; OMP_WAIT_POLICY and GOMP_SPINCOUNT are heeded where the user has set them;
 * - need not come: what none of them has begun when the thread that called is done, that one does itself, unless parts
 *   wait for each other within a region;
 * - are no other's: a pool that the program has for itself is left alone.
 *
 * Other compilers bring a library of their own, and this file is empty but for what is asked for views.
 */
#if defined(_OPENMP) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)

#define _GNU_SOURCE
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "busy.h"

#define HIDDEN __attribute__((visibility("hidden")))

enum {
    MOST = 1024,          /* parts of a region */
    LOOPS = 4,            /* loops that one part may be ahead of another */
    A_COUNT = 20,         /* nanoseconds that one of GOMP_SPINCOUNT stands for; all times are in nanoseconds: */
    SPIN = 200000,        /* awake, unless the user says otherwise */
    BUSY_SPIN = 2000,     /* the same where cores are taken */
};

/* A loop whose pieces go to whoever comes first. */
typedef struct {
    _Atomic long number; /* which of the loops of a region it is, counted from 1; negative while it is being set up */
    _Atomic long next;
    long end, step;
} shared_loop;

/* The region that is being worked on; there is one at a time. */
static struct {
    void (*run)(void *);
    void *data;
    _Atomic uint64_t ticket;   /* number of the region << 32 | parts << 16 | the first part that nobody has begun */
    _Atomic uint32_t begun;    /* the number once more, for those who wait for the next one */
    _Atomic uint32_t sleeping; /* how many of them are not awake */
    _Atomic uint32_t left;     /* parts that are not done */
    _Atomic uint32_t waits;    /* whether the thread that called is not awake */
    _Atomic uint32_t arrived, round, resting; /* at a barrier; `resting`: not awake there */
    shared_loop loops[LOOPS];
} now;

static pthread_mutex_t one_region = PTHREAD_MUTEX_INITIALIZER;
static int workers;               /* that have been started */
static long spin = -1;            /* -1: nobody has asked yet */
static bool told;                 /* by the user */
static _Atomic int lock_of_all, lock_of_atomics;

/* What the calling thread does. */
static _Thread_local struct {
    int part, parts;
    long loops, rested; /* `rested`: nanoseconds at barriers, not awake */
} mine = {.parts = 1};

static void pause_a_moment(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static long spin_of_user(void) {
    const char *policy = getenv("OMP_WAIT_POLICY"), *count = getenv("GOMP_SPINCOUNT");
    told = policy || count;
    if (count) {
        if (count[0] == 'i' || count[0] == 'I') return LONG_MAX / 2;
        const long n = atol(count);
        return n < 0 ? 0 : n < LONG_MAX / 2 / A_COUNT ? n * A_COUNT : LONG_MAX / 2;
    }
    if (policy) return policy[0] == 'p' || policy[0] == 'P' ? 0 : LONG_MAX / 2;
    return SPIN;
}

static void sleep_while(_Atomic uint32_t *word, uint32_t value) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake(_Atomic uint32_t *word, int count) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

/* Stays awake until *word is not `value`, or for as long as `spin` says; returns whether it is not. */
static bool came(_Atomic uint32_t *word, uint32_t value) {
    if (atomic_load(word) != value) return true;
    if (!spin) return false;
    const long start = nanoseconds();
    const bool busy = !told && is_busy(start);
    const long limit = busy ? BUSY_SPIN : spin;
    if (busy) note_turns(start); /* who sleeps soon has its core when it needs it, and loses little time */
    for (long before = start, time;; before = time) {
        for (int i = 0; i < 32; i++) {
            pause_a_moment();
            if (atomic_load_explicit(word, memory_order_acquire) != value) return true;
        }
        time = nanoseconds();
        note_lost(time - before, time);
        if (time - start >= limit) return false;
    }
}

static void run_part(int part, int parts) {
    const long start = nanoseconds(), worked = time_of(CLOCK_THREAD_CPUTIME_ID);
    mine.part = part, mine.parts = parts, mine.loops = mine.rested = 0;
    now.run(now.data);
    const long end = nanoseconds(), rested = mine.rested;
    if (end - start - rested > SUSPECT)
        note_lost(end - start - rested - (time_of(CLOCK_THREAD_CPUTIME_ID) - worked), end);
}

/* Begins a part that nobody has begun of region `number`; its number, or -1 where there is none. */
static int claim(uint32_t number, int *parts) {
    uint64_t ticket = atomic_load(&now.ticket);
    for (;;) {
        const uint32_t next = ticket & 0xFFFF, count = ticket >> 16 & 0xFFFF;
        if (ticket >> 32 != number || next >= count) return -1;
        if (atomic_compare_exchange_weak(&now.ticket, &ticket, ticket + 1)) {
            *parts = (int)count;
            return (int)next;
        }
    }
}

static void done_with_part(void) {
    if (atomic_fetch_sub(&now.left, 1) == 1 && atomic_load(&now.waits)) wake(&now.left, 1);
}

static void *work(void *unused) {
    (void)unused;
    uint32_t seen = 0; /* a region may have begun before this thread did: then it has parts, or is over */
    for (;;) {
        const uint32_t number = atomic_load(&now.begun);
        if (number == seen) {
            if (!came(&now.begun, seen)) {
                atomic_fetch_add(&now.sleeping, 1);
                while (atomic_load(&now.begun) == seen) sleep_while(&now.begun, seen);
                atomic_fetch_sub(&now.sleeping, 1);
            }
            continue;
        }
        seen = number;
        for (int part, parts; (part = claim(number, &parts)) >= 0;) {
            run_part(part, parts);
            done_with_part();
        }
    }
    return NULL;
}

/* A child of fork has none of the threads. */
static void forget_all(void) {
    workers = 0;
    atomic_store(&now.sleeping, 0);
    atomic_store(&now.ticket, 0);
    pthread_mutex_init(&one_region, NULL);
}

/* So many workers, or as many as can be had. */
static void start_workers(int wanted) {
    if (workers >= wanted) return;
    static bool registered;
    if (!registered) registered = !pthread_atfork(NULL, NULL, forget_all);
    sigset_t all, before; /* signals are for the program's own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    for (pthread_t thread; workers < wanted; workers++)
        if (pthread_create(&thread, &attributes, work, NULL)) break;
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

HIDDEN void GOMP_parallel(void (*run)(void *), void *data, unsigned wanted, unsigned flags) {
    (void)flags;
    int parts = wanted < 1 ? 1 : wanted > MOST ? MOST : (int)wanted;
    if (parts == 1 || mine.parts > 1) { /* of one, or within another */
        const int part = mine.part, of = mine.parts;
        const long loops = mine.loops;
        mine.part = 0, mine.parts = 1, mine.loops = 0;
        run(data);
        mine.part = part, mine.parts = of, mine.loops = loops;
        return;
    }
    pthread_mutex_lock(&one_region);
    if (spin < 0) spin = spin_of_user();
    start_workers(parts - 1);
    if (parts > workers + 1) parts = workers + 1;
    const uint32_t number = atomic_load(&now.begun) + 1;
    now.run = run, now.data = data;
    atomic_store(&now.waits, 0);
    atomic_store(&now.left, (uint32_t)parts);
    atomic_store(&now.arrived, 0);
    for (int i = 0; i < LOOPS; i++) atomic_store(&now.loops[i].number, 0);
    atomic_store(&now.ticket, (uint64_t)number << 32 | (uint64_t)parts << 16 | 1);
    atomic_store(&now.begun, number);
    if (atomic_load(&now.sleeping)) wake(&now.begun, parts - 1);
    for (int part = 0; part >= 0; part = claim(number, &parts)) {
        run_part(part, parts);
        atomic_fetch_sub(&now.left, 1);
    }
    for (uint32_t left; (left = atomic_load(&now.left));) {
        if (came(&now.left, left)) continue;
        atomic_store(&now.waits, 1);
        if ((left = atomic_load(&now.left))) sleep_while(&now.left, left);
        atomic_store(&now.waits, 0);
    }
    mine.part = 0, mine.parts = 1, mine.loops = 0;
    pthread_mutex_unlock(&one_region);
}

HIDDEN int omp_get_thread_num(void) { return mine.part; }

HIDDEN int omp_get_num_threads(void) { return mine.parts; }

/* All parts of a region meet here. */
HIDDEN void GOMP_barrier(void) {
    if (mine.parts == 1) return;
    const uint32_t round = atomic_load(&now.round);
    if (atomic_fetch_add(&now.arrived, 1) == (uint32_t)mine.parts - 1) {
        atomic_store(&now.arrived, 0);
        atomic_store(&now.round, round + 1);
        if (atomic_load(&now.resting)) wake(&now.round, INT_MAX);
        return;
    }
    while (!came(&now.round, round)) {
        const long start = nanoseconds();
        atomic_fetch_add(&now.resting, 1);
        sleep_while(&now.round, round);
        atomic_fetch_sub(&now.resting, 1);
        mine.rested += nanoseconds() - start;
    }
}

static void lock(_Atomic int *word) {
    for (int tries = 0; atomic_exchange(word, 1); tries++) {
        if (tries < 100) pause_a_moment();
        else sched_yield();
    }
}

HIDDEN void GOMP_critical_start(void) { lock(&lock_of_all); }

HIDDEN void GOMP_critical_end(void) { atomic_store(&lock_of_all, 0); }

/* *name is 0 at first, and the same for all regions of that name. */
HIDDEN void GOMP_critical_name_start(void **name) { lock((_Atomic int *)name); }

HIDDEN void GOMP_critical_name_end(void **name) { atomic_store((_Atomic int *)name, 0); }

HIDDEN void GOMP_atomic_start(void) { lock(&lock_of_atomics); }

HIDDEN void GOMP_atomic_end(void) { atomic_store(&lock_of_atomics, 0); }

static bool next_piece(shared_loop *loop, long *from, long *to) {
    const long begin = atomic_fetch_add(&loop->next, loop->step);
    if (begin >= loop->end) return false;
    *from = begin, *to = begin + loop->step < loop->end ? begin + loop->step : loop->end;
    return true;
}

/* A loop over i = start, start + step < end, `size` steps in a piece; the first piece. Steps are positive. */
HIDDEN bool GOMP_loop_nonmonotonic_dynamic_start(long start, long end, long step, long size, long *from, long *to) {
    const long number = ++mine.loops;
    if (mine.parts == 1) {
        *from = start, *to = end;
        return start < end;
    }
    shared_loop *loop = &now.loops[number % LOOPS];
    for (long found = atomic_load(&loop->number); found != number; found = atomic_load(&loop->number)) {
        if (found < 0 || !atomic_compare_exchange_strong(&loop->number, &found, -number)) {
            pause_a_moment();
            continue;
        }
        loop->end = end, loop->step = step * size;
        atomic_store(&loop->next, start);
        atomic_store(&loop->number, number);
    }
    return next_piece(loop, from, to);
}

HIDDEN bool GOMP_loop_nonmonotonic_dynamic_next(long *from, long *to) {
    return mine.parts > 1 && next_piece(&now.loops[mine.loops % LOOPS], from, to);
}

HIDDEN bool GOMP_loop_dynamic_start(long start, long end, long step, long size, long *from, long *to) {
    return GOMP_loop_nonmonotonic_dynamic_start(start, end, step, size, from, to);
}

HIDDEN bool GOMP_loop_dynamic_next(long *from, long *to) { return GOMP_loop_nonmonotonic_dynamic_next(from, to); }

HIDDEN void GOMP_loop_end(void) { GOMP_barrier(); }

HIDDEN void GOMP_loop_end_nowait(void) {}

/* Nanoseconds that threads are awake after their work, -1 before there are any; how often cores were found taken. */
int64_t dcdm_team_spin(void) { return spin; }

int64_t dcdm_team_busy(void) { return atomic_load(&times_busy); }

#else

#include <stdint.h>

int64_t dcdm_team_spin(void) { return -1; }

int64_t dcdm_team_busy(void) { return 0; }

#endif
