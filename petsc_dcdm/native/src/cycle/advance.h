/* What a loop of the method works with: mirrored by petsc_dcdm/native/binding.py. */
#ifndef DCDM_ADVANCE_H
#define DCDM_ADVANCE_H

#include "coarse/band.h"
#include "common.h"
#include "operator.h"

enum { MAX_HISTORY = 8 };

typedef struct {
    const dcdm_level *levels, *parents; /* of a cycle, see dcdm_cycle */
    float *const *work;
    int64_t count, visits;
    const dcdm_band *coarse;
    const dcdm_level *finest;
    const dcdm_operator *a;
    float *direction;       /* padded, of the finest level */
    double *planes, *sums;  /* `work` and `out` of dcdm_dots and dcdm_step */
    int64_t closed;         /* cells on which constants are a null space, or 0 */
} dcdm_loop;

void dcdm_cycle(const dcdm_level *levels, const dcdm_level *parents, float *const *work, int count, int visits,
                const dcdm_band *coarse, const double *input, double scale_in, double *output, double scale_out,
                float *direction);
void dcdm_dots(const dcdm_level *l, const dcdm_operator *a, const float *d, const double *const *p, int history,
               const double *r, double *out);
void dcdm_step(const dcdm_level *l, const dcdm_operator *a, double *next, const float *d, const double *const *p,
               const double *beta, int history, double alpha, int from_zero, double *x, const double *r, double *to,
               double *work, double *out);

#endif
