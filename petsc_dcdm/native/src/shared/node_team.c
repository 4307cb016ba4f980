/* The ranks of a node as one team. They have mapped the same memory at the same address. One of them leads: it calls
 * kernels as a process of many threads would, while the others wait in dcdm_team_serve for parts to work on. What
 * passes between them is in one block of that memory.
 *
 * Each rank begins with its own parts, the same ones each time, and then takes what nobody has begun: one whose core
 * another program has need not come, unless the parts wait for each other. It finds out later what it has missed, by
 * AHEAD sections at most.
 */
#define _GNU_SOURCE
#include "shared/node_team.h"

#include <string.h>

#include "compiler.h"
#include "shared/node_wait.h"

/* The team that this thread leads at the moment. */
static _Thread_local dcdm_team *current;

/* Somewhere in this library: functions are as far from it in every process. */
static void here(void) {}

/* Whether a part of this command, which has it, is the caller's to do: nobody has begun it. */
static int claim(dcdm_team *t, uint32_t number, int part) {
    uint32_t before = atomic_load_explicit(&t->begun[part], memory_order_relaxed);
    while ((int32_t)(number - before) > 0) /* of a command that is over, or of a later one, all are begun */
        if (atomic_compare_exchange_weak(&t->begun[part], &before, number)) return 1;
    return 0;
}

static void do_part(dcdm_team *t, uint32_t number, int part) {
    if (!claim(t, number, part)) return;
    ((part_function *)((char *)here + t->function))(t->arguments, part);
    count(t, &t->left, UINT32_MAX);
}

/* Parts of the last command: every threads-th from thread q of this rank on, then those that nobody has begun. */
static void do_parts(dcdm_team *t, int q, uint64_t command) {
    const uint32_t number = (uint32_t)(command >> 32);
    const int parts = (int)(command & (MEETS - 1)), all = (int)t->threads;
    for (int part = q; part < parts; part += all) do_part(t, number, part);
    for (int part = 0; part < parts && !(command & MEETS); part++) do_part(t, number, part);
}

static void work(dcdm_team *t, int rank) {
    const int first = (int)t->rank[rank].first, threads = (int)t->rank[rank].threads;
    const uint64_t command = atomic_load(&t->command);
    if (first >= (int)(command & (MEETS - 1))) return;
    if (threads == 1) {
        do_parts(t, first, command);
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        const int found = omp_get_num_threads();
        if (found < threads && command & MEETS) {
            fprintf(stderr, "petsc_dcdm: a rank has %d threads where it was to have %d: set OMP_NUM_THREADS to less\n",
                    found, threads);
            fflush(stderr);
            _exit(1); /* the others would wait for what they do not come to */
        }
        for (int q = omp_get_thread_num(); q < threads; q += found) do_parts(t, first + q, command);
    }
}

/* The next command, where the one before is done. */
static void post(dcdm_team *t, int64_t function, int parts, int meets) {
    const uint32_t number = atomic_load_explicit(&t->number, memory_order_relaxed) + 1;
    for (int part = 0; number % FORGET == 0 && part < MOST_PARTS; part++) /* lest it seems to come after what follows */
        atomic_store_explicit(&t->begun[part], number - 1, memory_order_relaxed);
    t->function = function;
    atomic_store_explicit(&t->left, (uint32_t)parts, memory_order_relaxed);
    atomic_store(&t->command, (uint64_t)number << 32 | (uint64_t)(meets ? MEETS : 0) | (uint64_t)parts);
    count(t, &t->number, 1);
}

/* All parts of a piece of work, from the one who leads. */
static void run(dcdm_team *t, part_function *function, void *arguments, size_t size, int parts, int meets) {
    memcpy(t->arguments, arguments, size);
    post(t, (char *)function - (char *)here, parts, meets);
    work(t, 0);
    wait_for(t, &t->left, 0, 0);
    memcpy(arguments, t->arguments, size);
}

void dcdm_run(part_function *function, void *arguments, size_t size, int parts) {
    if (current && parts > 1 && parts <= MOST_PARTS) {
        run(current, function, arguments, size, parts, 0);
        return;
    }
#pragma omp parallel for num_threads(parts) schedule(static, 1) if (parts > 1)
    for (int part = 0; part < parts; part++) function(arguments, part);
}

/* Sections that the leader is ahead of any other rank, at most. What one of them has left for the others to read has to
 * be there for as long. */
int64_t dcdm_team_ahead(void) { return AHEAD; }

/* The calling thread leads `team` until dcdm_team_release. */
void dcdm_team_lead(dcdm_team *t) {
    const uint32_t least = atomic_load(&t->sections) + 2 - AHEAD;
    for (int64_t k = 1; k < t->ranks; k++)
        for (uint32_t there; (int32_t)((there = atomic_load(&t->rank[k].section)) - least) < 0;)
            wait_for(t, &t->rank[k].section, there, 1);
    current = t;
}

/* Nothing more for the others to do in the section they serve in. */
void dcdm_team_release(dcdm_team *t) {
    current = NULL;
    atomic_fetch_add(&t->sections, 1);
    post(t, 0, 0, 0);
}

/* Works on parts for the one who leads until that is said. */
void dcdm_team_serve(dcdm_team *t, int rank) {
    team_rank *self = &t->rank[rank];
    const uint32_t section = count(t, &self->section, 1) + 1;
    while ((int32_t)(atomic_load(&t->sections) - section) < 0) {
        const uint32_t number = atomic_load(&t->number);
        if (number == self->seen) {
            wait_for(t, &t->number, number, 1);
            continue;
        }
        self->seen = number;
        work(t, rank);
    }
}

/* Returns when `all` have come here; `rounds` counts how often that was. */
static void gather(dcdm_team *t, counter *arrived, counter *rounds, uint32_t all) {
    const uint32_t before = atomic_load_explicit(rounds, memory_order_acquire);
    if (atomic_fetch_add(arrived, 1) + 1 == all) {
        atomic_store_explicit(arrived, 0, memory_order_relaxed);
        count(t, rounds, 1);
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
        run(current, function, arguments, size, m->count, 1);
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

/* A value, summed over the ranks in their order, or the largest. */
double dcdm_team_reduce(dcdm_team *t, int rank, double value, int largest) {
    double(*all)[MAX_VALUES] = t->values[t->rank[rank].turn++ & 1];
    all[rank][0] = value;
    dcdm_team_barrier(t);
    double found = all[0][0];
    for (int64_t k = 1; k < t->ranks; k++) found = !largest ? found + all[k][0] : larger(found, all[k][0]);
    return found;
}

/* to[k][0..n) = the n values (at most MAX_VALUES) of rank k. */
void dcdm_team_gather(dcdm_team *t, int rank, const double *values, int64_t n, double *to) {
    double(*all)[MAX_VALUES] = t->values[t->rank[rank].turn++ & 1];
    memcpy(all[rank], values, (size_t)n * sizeof *values);
    dcdm_team_barrier(t);
    for (int64_t k = 0; k < t->ranks; k++) memcpy(to + k * n, all[k], (size_t)n * sizeof *to);
}

/* Bytes of the block of a team. */
int64_t dcdm_team_bytes(void) { return sizeof(dcdm_team); }

int64_t dcdm_team_most_values(void) { return MAX_VALUES; }

int64_t dcdm_team_most_ranks(void) { return MAX_RANKS; }

/* One rank enters itself into a block of zeros; the leader is rank 0. */
void dcdm_team_enter(dcdm_team *t, int rank, int64_t ranks, int64_t first, int64_t threads, int64_t all) {
    t->rank[rank].first = first, t->rank[rank].threads = threads, t->rank[rank].process = getpid();
    note_cores(t);
    if (rank) return;
    t->ranks = ranks, t->threads = all;
}

void dcdm_team_run(dcdm_team *t, part_function *function, void *arguments, size_t size) {
    if (t->threads > 1) run(t, function, arguments, size, (int)t->threads, 0);
    else function(arguments, 0);
}
