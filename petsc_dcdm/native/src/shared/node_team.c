/* The ranks of a node as one team. They have mapped the same memory at the same address. One of them leads: it calls
 * kernels as a process of many threads would, while the others wait in dcdm_team_serve for parts to work on. What
 * passes between them is in one block of that memory.
 *
 * Waiting ranks spin for a moment. Then they go on as long as nobody else wants their core, up to a millisecond, for to
 * be waken takes longer than most of what they wait for, and in the end they sleep. Where others want the cores they
 * sleep at once: who sleeps soon gets a core where a rank that gives way would come last. A rank that has ended, by a
 * signal say, ends those that wait for it.
 */
#define _GNU_SOURCE
#include "shared/node_team.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#endif
#include <time.h>
#include <unistd.h>

#include "compiler.h"

/* A spin is some 30 nanoseconds; all other times are in nanoseconds. A sleep of a fifth of a second is followed by a
 * look at whether the others live. */
enum { SPINS = 1000, BETWEEN = 50, PATIENCE = 1000000, TAKEN = 400000, SLEEP = 200000000 };
enum { CLEARED = 1 << 17, LINE = 64, MAX_RANKS = 1024, MAX_VALUES = 64, FEWEST = 8, MOST = 512 };

/* What is waited for. */
typedef _Atomic uint32_t counter;

typedef struct {
    _Alignas(LINE) int64_t first, threads, process; /* its parts, and which process it is */
    uint32_t seen, turn; /* number of the last command that it has taken; of values it has told or asked for */
} team_rank;

typedef struct dcdm_team {
    _Alignas(LINE) counter number; /* of commands so far */
    int64_t function;              /* bytes from `here` to the part function; 0: nothing more to serve */
    int64_t parts, meets;          /* whether the parts meet */
    _Alignas(LINE) counter done;    /* ranks that have finished the last command */
    _Alignas(LINE) counter arrived; /* ranks, at a barrier */
    _Alignas(LINE) counter barriers;
    _Alignas(LINE) counter met; /* parts, at a meeting */
    _Alignas(LINE) counter meetings;
    _Alignas(LINE) counter asleep; /* ranks that sleep, for whatever */
    _Alignas(LINE) int64_t ranks, threads;
    int64_t shared[2]; /* of this turn and the last one: who is ahead of others is so by less than a barrier */
    team_rank rank[MAX_RANKS];
    double values[2][MAX_RANKS][MAX_VALUES];
    _Alignas(LINE) char arguments[TEAM_ARGUMENTS];
} dcdm_team;

/* The team that this thread leads at the moment. */
static _Thread_local dcdm_team *current;

/* Somewhere in this library: functions are as far from it in every process. */
static void here(void) {}

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

/* So many of the next waits do without patience: another program had our core when it was offered. And how many it will
 * be where that happens again: often means often. */
static _Thread_local int crowded, more = FEWEST;

/* Waits until *what is `value`, or if `other` until it is not. */
static void wait_for(dcdm_team *t, counter *what, uint32_t value, int other) {
    int64_t end = 0, at = 0;
    for (int n = 0;; n++) {
        const uint32_t found = atomic_load_explicit(what, memory_order_acquire);
        if ((found == value) != other) {
            if (at < end) more -= (more - FEWEST) / 8; /* nobody wanted the core */
            return;
        }
        if (n < SPINS || (at < end && n % BETWEEN)) pause_briefly();
        else if (!end) {
            at = now();
            end = crowded ? at : at + PATIENCE;
            if (crowded) crowded--;
        } else if (at < end) {
            const int64_t before = now();
            sched_yield();
            at = now();
            if (at - before > TAKEN) end = at, crowded = more, more = more < MOST ? 2 * more : MOST;
        } else sleep_on(t, what, found);
    }
}

/* Adds one, for all who wait. */
static uint32_t count(dcdm_team *t, counter *what) {
    const uint32_t before = atomic_fetch_add(what, 1);
#ifdef __linux__
    if (atomic_load(&t->asleep)) syscall(SYS_futex, what, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
#else
    (void)t;
#endif
    return before;
}

/* The parts of one rank: every threads-th from its first ones on. */
static void work(dcdm_team *t, int rank, part_function *function) {
    const int first = (int)t->rank[rank].first, threads = (int)t->rank[rank].threads;
    const int parts = (int)t->parts, all = (int)t->threads;
    if (first >= parts) return;
    if (threads == 1) {
        for (int part = first; part < parts; part += all) function(t->arguments, part);
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        const int here = omp_get_num_threads();
        if (here < threads && t->meets) {
            fprintf(stderr, "petsc_dcdm: a rank has %d threads where it was to have %d: set OMP_NUM_THREADS to less\n",
                    here, threads);
            fflush(stderr);
            _exit(1); /* the others would wait for what they do not come to */
        }
        for (int q = omp_get_thread_num(); q < threads; q += here)
            for (int part = first + q; part < parts; part += all) function(t->arguments, part);
    }
}

/* The next command; the arguments may be written to only where all have done the one before. */
static void post(dcdm_team *t, int64_t function, int parts) {
    t->function = function, t->parts = parts;
    atomic_store_explicit(&t->done, 0, memory_order_relaxed);
    count(t, &t->number);
}

void dcdm_run(part_function *function, void *arguments, size_t size, int parts) {
    dcdm_team *t = current;
    if (!t || parts == 1) {
#pragma omp parallel for num_threads(parts) schedule(static, 1) if (parts > 1)
        for (int part = 0; part < parts; part++) function(arguments, part);
        return;
    }
    wait_for(t, &t->done, (uint32_t)t->ranks - 1, 0);
    memcpy(t->arguments, arguments, size);
    post(t, (char *)function - (char *)here, parts);
    work(t, 0, function);
    wait_for(t, &t->done, (uint32_t)t->ranks - 1, 0);
    memcpy(arguments, t->arguments, size);
}

/* The calling thread leads `team` until dcdm_team_release. */
void dcdm_team_lead(dcdm_team *team) { current = team; }

/* Nothing more for the others to do in the section they serve in. */
void dcdm_team_release(dcdm_team *t) {
    current = NULL;
    wait_for(t, &t->done, (uint32_t)t->ranks - 1, 0);
    post(t, 0, 0);
}

/* Works on parts for the one who leads until that is said. */
void dcdm_team_serve(dcdm_team *t, int rank) {
    uint32_t *seen = &t->rank[rank].seen;
    int64_t function;
    do {
        wait_for(t, &t->number, *seen, 1);
        ++*seen;
        function = t->function;
        if (function) work(t, rank, (part_function *)((char *)here + function));
        count(t, &t->done);
    } while (function);
}

/* Returns when `all` have come here; `rounds` counts how often that was. */
static void gather(dcdm_team *t, counter *arrived, counter *rounds, uint32_t all) {
    const uint32_t before = atomic_load_explicit(rounds, memory_order_acquire);
    if (atomic_fetch_add(arrived, 1) + 1 == all) {
        atomic_store_explicit(arrived, 0, memory_order_relaxed);
        count(t, rounds);
    } else wait_for(t, rounds, before, 1);
}

/* Returns when all ranks have come here. */
void dcdm_team_barrier(dcdm_team *t) { gather(t, &t->arrived, &t->barriers, (uint32_t)t->ranks); }

void dcdm_meet(const dcdm_meeting *m) {
    if (m->count == 1) return;
    if (m->node) gather(m->node, &m->node->met, &m->node->meetings, (uint32_t)m->count);
    else {
#pragma omp barrier
    }
}

void dcdm_run_together(part_function *function, void *arguments, size_t size, int parts) {
    dcdm_meeting *m = arguments;
    if (current && parts > 1) {
        *m = (dcdm_meeting){current, parts < current->threads ? parts : (int)current->threads};
        current->meets = 1;
        dcdm_run(function, arguments, size, m->count);
        current->meets = 0;
        return;
    }
    m->node = NULL;
#pragma omp parallel num_threads(parts) if (parts > 1)
    {
        if (omp_get_thread_num() == 0) m->count = omp_get_num_threads();
#pragma omp barrier
        function(arguments, omp_get_thread_num());
    }
}

/* What the leader has of `value`, on all ranks. */
int64_t dcdm_team_share(dcdm_team *t, int rank, int64_t value) {
    const uint32_t turn = t->rank[rank].turn++ & 1;
    if (rank == 0) t->shared[turn] = value;
    dcdm_team_barrier(t);
    return t->shared[turn];
}

static double larger(double a, double b) { return b > a || b != b ? b : a; }

/* n values (at most MAX_VALUES), summed over the ranks in their order, or the largest. */
void dcdm_team_reduce(dcdm_team *t, int rank, double *values, int64_t n, int largest) {
    double(*all)[MAX_VALUES] = t->values[t->rank[rank].turn++ & 1];
    memcpy(all[rank], values, (size_t)n * sizeof *values);
    dcdm_team_barrier(t);
    for (int64_t i = 0; i < n; i++) {
        double found = all[0][i];
        for (int64_t k = 1; k < t->ranks; k++) found = !largest ? found + all[k][i] : larger(found, all[k][i]);
        values[i] = found;
    }
}

/* Bytes of the block of a team. */
int64_t dcdm_team_bytes(void) { return sizeof(dcdm_team); }

int64_t dcdm_team_most_values(void) { return MAX_VALUES; }

int64_t dcdm_team_most_ranks(void) { return MAX_RANKS; }

/* One rank enters itself into a block of zeros; the leader is rank 0. */
void dcdm_team_enter(dcdm_team *t, int rank, int64_t ranks, int64_t first, int64_t threads, int64_t all) {
    t->rank[rank].first = first, t->rank[rank].threads = threads, t->rank[rank].process = getpid();
    if (rank) return;
    t->ranks = ranks, t->threads = all;
    atomic_store(&t->done, (uint32_t)ranks - 1);
}

/* Memory that is zeroed, or of which huge pages are made, a piece after the other. */
typedef struct {
    char *begin;
    int64_t bytes, piece, next, over;
    int huge, failed;
} clearing;

static void clear_part(void *arguments, int part) {
    clearing *c = arguments;
    (void)part;
    for (int64_t at; (at = __atomic_fetch_add(&c->next, c->piece, __ATOMIC_RELAXED)) < c->bytes;) {
        const int64_t n = c->bytes - at < c->piece ? c->bytes - at : c->piece;
        if (!c->huge) memset(c->begin + at, 0, (size_t)n);
        else if (!dcdm_make_huge(c->begin + at)) __atomic_store_n(&c->failed, 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&c->over, n, __ATOMIC_RELEASE);
    }
}

/* From the one who leads, whether others serve or not: those that do help, and those that come when all is done find
 * nothing to do. Returns whether all that could be asked for. */
static int in_pieces(dcdm_team *t, clearing pieces) {
    const int idle = atomic_load_explicit(&t->done, memory_order_acquire) == (uint32_t)t->ranks - 1;
    if (!idle || pieces.bytes < 4 * pieces.piece) {
        clear_part(&pieces, 0);
        return !pieces.failed;
    }
    clearing *c = (clearing *)t->arguments;
    *c = pieces;
    post(t, (char *)clear_part - (char *)here, (int)t->threads);
    work(t, 0, clear_part);
    for (int n = 0; __atomic_load_n(&c->over, __ATOMIC_ACQUIRE) < c->bytes; n++) {
        if (n < SPINS) pause_briefly();
        else nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
        if (n > SPINS && n % 4096 == 0) require_all(t);
    }
    return !c->failed;
}

/* Zeros. */
void dcdm_team_clear(dcdm_team *t, void *begin, int64_t bytes) {
    in_pieces(t, (clearing){.begin = begin, .bytes = bytes, .piece = CLEARED});
}

/* Makes huge pages of what is there, `bytes` from the begin of one on; returns whether that can be had. */
int dcdm_team_huge(dcdm_team *t, void *begin, int64_t bytes) {
    return in_pieces(t, (clearing){.begin = begin, .bytes = bytes, .piece = HUGE_PAGE, .huge = 1});
}
