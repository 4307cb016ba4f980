/* A step of the deep conjugate direction method in one call, on a grid that one rank has, or those of a team: what is
 * small there is over sooner than an interpreter has called its parts. Where ranks add up their sums in between it is
 * taken in the same parts. */
#include <math.h>

#include "advance.h"

/* total[c] = the sum of part[q][c] over the parts, in their order; 0 on a rank that has none. */
void dcdm_total(const double *part, int64_t parts, int count, double *total) {
    for (int c = 0; c < count; c++) total[c] = parts > 0 ? part[c] : 0;
    for (int64_t q = 1; q < parts; q++)
        for (int c = 0; c < count; c++) total[c] += part[q * count + c];
}

/* From the sums of dcdm_dots, `before` directions before this one: beta for each of them, which makes this one
 * A-orthogonal to it, and found[0 .. 2] = d' . A d', r . d' and the mean of d'. `known`: energy and mean of each; means
 * are 0 unless constants on `closed` cells are a null space, whose part of r does not count. Returns 0 where there is
 * no step along d'. */
int dcdm_conjugate(const double *sums, const double *known, int before, int64_t closed, double *beta, double *found) {
    const double of_r = sums[3];
    double energy = sums[0], slope = sums[1], mean = closed ? sums[2] / (double)closed : 0;
    slope -= mean * of_r;
    for (int h = 0; h < before; h++) {
        beta[h] = sums[4 + 2 * h] / known[2 * h];
        energy -= beta[h] * sums[4 + 2 * h];
        slope -= beta[h] * (sums[5 + 2 * h] - known[2 * h + 1] * of_r);
        mean -= beta[h] * known[2 * h + 1];
    }
    found[0] = energy, found[1] = slope, found[2] = mean;
    return isfinite(energy) && isfinite(slope) && energy != 0 && slope != 0;
}

/* Direction, orthogonalisation and line search from the residual `now`; arguments as those of the three kernels, found
 * as above, then r . r and d' . A d' after the step, and 1; 0 in place of that where there is none, and x and r are as
 * they were. */
void dcdm_advance(const dcdm_loop *s, double scale, const double *const *p, const double *known, int before,
                 double *next, int from_zero, double *x, const double *now, double *r, double *found) {
    double sums[4 + 2 * MAX_HISTORY], beta[MAX_HISTORY];
    dcdm_cycle(s->levels, s->parents, s->work, (int)s->count, (int)s->visits, s->coarse, now, scale, NULL, 1.0,
               s->direction);
    dcdm_dots(s->finest, s->a, s->direction, p, before, now, s->sums);
    dcdm_total(s->sums, s->finest->parts, 4 + 2 * before, sums);
    const int moves = dcdm_conjugate(sums, known, before, s->closed, beta, found);
    found[5] = moves;
    if (!moves) return;
    dcdm_step(s->finest, s->a, next, s->direction, p, beta, before, found[1] / found[0], from_zero, x, now, r,
              s->planes, s->sums);
    dcdm_total(s->sums, s->finest->parts, 2, found + 3);
}
