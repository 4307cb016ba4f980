/* Memory that the ranks of a node share: where it is mapped, and its pages. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "shared/node_team.h"

#if defined(__linux__) && !defined(MADV_COLLAPSE)
#define MADV_COLLAPSE 25
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

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
int dcdm_make_huge(char *begin) {
#ifdef MADV_COLLAPSE
    atomic_fetch_add((_Atomic char *)begin, 0);
    return !madvise(begin, HUGE_PAGE, MADV_COLLAPSE) || errno != EINVAL;
#else
    (void)begin;
    return 0;
#endif
}
