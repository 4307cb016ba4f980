/* Memory that the ranks of a node share: where it is mapped, and its pages. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "shared/node_team.h"

#if defined(__linux__) && !defined(MADV_COLLAPSE)
#define MADV_COLLAPSE 25
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/* Bytes: of a huge page; that are zeroed at once. */
enum { HUGE_PAGE = 1 << 21, CLEARED = 1 << 17 };

/* Maps `bytes` of a file at this address, where nothing is yet; 0, or why not. */
int dcdm_team_map(int file, int64_t bytes, void *address) {
    const int how = MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    void *found = mmap(address, (size_t)bytes, PROT_READ | PROT_WRITE, how, file, 0);
    if (found == MAP_FAILED) return errno;
    if (found != address) { /* a kernel before 4.17 takes the address for a wish */
        munmap(found, (size_t)bytes);
        return EEXIST;
    }
#ifdef MADV_HUGEPAGE
    madvise(address, (size_t)bytes, MADV_HUGEPAGE);
#endif
    return 0;
}

void dcdm_team_unmap(void *address, int64_t bytes) { munmap(address, (size_t)bytes); }

/* One huge page for what is there, unless there is no room for it. Linux wants to see a small one. Returns whether
 * that can be asked for. */
static int make_huge(char *begin) {
#ifdef MADV_COLLAPSE
    atomic_fetch_add((_Atomic char *)begin, 0);
    return !madvise(begin, HUGE_PAGE, MADV_COLLAPSE) || errno != EINVAL;
#else
    (void)begin;
    return 0;
#endif
}

/* Memory that is zeroed, or of which huge pages are made, a piece after the other. */
typedef struct {
    char *begin;
    int64_t bytes, piece, next;
    int huge, failed;
} clearing;

static void clear_part(void *arguments, int part) {
    clearing *c = arguments;
    (void)part;
    for (int64_t at; (at = __atomic_fetch_add(&c->next, c->piece, __ATOMIC_RELAXED)) < c->bytes;) {
        const int64_t n = c->bytes - at < c->piece ? c->bytes - at : c->piece;
        if (!c->huge) memset(c->begin + at, 0, (size_t)n);
        else if (!make_huge(c->begin + at)) __atomic_store_n(&c->failed, 1, __ATOMIC_RELAXED);
    }
}

/* From the one who leads, whether others serve or not. Returns whether all that could be asked for. */
static int in_pieces(struct dcdm_team *t, clearing pieces) {
    if (pieces.bytes < 4 * pieces.piece) clear_part(&pieces, 0);
    else dcdm_team_run(t, clear_part, &pieces, sizeof pieces);
    return !pieces.failed;
}

/* Zeros. */
void dcdm_team_clear(struct dcdm_team *t, void *begin, int64_t bytes) {
    in_pieces(t, (clearing){.begin = begin, .bytes = bytes, .piece = CLEARED});
}

/* Makes huge pages of what is there, `bytes` from the begin of one on; returns whether that can be had. */
int dcdm_team_huge(struct dcdm_team *t, void *begin, int64_t bytes) {
    return in_pieces(t, (clearing){.begin = begin, .bytes = bytes, .piece = HUGE_PAGE, .huge = 1});
}
