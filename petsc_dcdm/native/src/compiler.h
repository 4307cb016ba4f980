/* What the kernels ask of the compiler; without OpenMP there is one thread. */
#ifndef DCDM_COMPILER_H
#define DCDM_COMPILER_H

#ifdef _OPENMP
#include <omp.h>
#else
static inline int omp_get_thread_num(void) { return 0; }
static inline int omp_get_num_threads(void) { return 1; }
#endif

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))

#endif
