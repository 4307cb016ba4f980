/* Rows that were scaled one by one: A = D S, D diagonal and positive, S symmetric. D from the entries.
 *
 * d_j / d_i = a_ji / a_ij for coupled rows i and j. Rows are taken in order; one that is coupled to an earlier row gets
 * its factor from that, one that is not begins a fragment, and fragments that a row joins become one (union-find with
 * ratios). So every row is reached along some tree of couplings in one pass, whatever the order of rows; whether the
 * other couplings agree is seen when S is read. Couplings one way (to Dirichlet rows) and of two signs tell nothing.
 */
#include <math.h>
#include <stddef.h>

#include "entries/csr.h"

/* Compressed rows as in csr_matrix; index - shift is the local row of a column, that of another rank if it is not in
 * [0, rows). */
typedef struct {
    int64_t rows, shift;
    const void *indptr, *indices;
    const double *values;
    int wide;
} own_rows;

/* a_ji of a coupling a_ij, 0 if there is none. */
INLINE double back(const own_rows *m, int64_t i, int64_t j, int wide) {
    const int64_t end = get_index(m->indptr, j + 1, wide);
    for (int64_t e = get_index(m->indptr, j, wide); e < end; e++)
        if (get_index(m->indices, e, wide) == i + m->shift) return m->values[e];
    return 0;
}

/* The root of a fragment; `*ratio` is multiplied by what the factors of its rows are to be multiplied by. */
INLINE int64_t root_of(int64_t *parent, double *to_parent, int64_t f, double *ratio) {
    while (parent[f] != f) {
        const int64_t above = parent[f];
        if (parent[above] != above) { /* half the path */
            to_parent[f] *= to_parent[above];
            parent[f] = parent[above];
        }
        *ratio *= to_parent[f];
        f = parent[f];
    }
    return f;
}

INLINE int64_t connect(const own_rows *m, double *d, int64_t *label, int64_t *parent, double *to_parent, int wide) {
    int64_t fragments = 0;
    for (int64_t r = 0; r < m->rows; r++) {
        int64_t mine = -1;
        for (int64_t e = get_index(m->indptr, r, wide); e < get_index(m->indptr, r + 1, wide); e++) {
            const int64_t j = get_index(m->indices, e, wide) - m->shift;
            const double here = m->values[e];
            if (j < 0 || j >= r || here == 0 || label[j] == mine) continue;
            double scale = 1, own_scale = 1;
            const int64_t theirs = root_of(parent, to_parent, label[j], &scale);
            const int64_t own = mine < 0 ? -1 : root_of(parent, to_parent, mine, &own_scale);
            if (own == theirs) continue;
            const double ratio = here / back(m, r, j, wide);
            if (!(ratio > 0 && ratio < HUGE_VAL)) continue;
            if (mine < 0) {
                mine = label[r] = theirs;
                d[r] = d[j] * scale * ratio;
            } else { /* two roots: the later goes under the earlier */
                const double factor = d[r] * own_scale / (d[j] * scale * ratio);
                if (own < theirs) parent[theirs] = own, to_parent[theirs] = factor;
                else parent[own] = theirs, to_parent[own] = 1 / factor;
            }
        }
        if (mine >= 0) continue;
        label[r] = parent[fragments] = fragments;
        d[r] = to_parent[fragments++] = 1;
    }
    return fragments;
}

/* d and label (the component, from 0 on) of every row; returns how many components there are. Of component c, count[c]
 * is the number of its rows and exponents[c] the sum of the binary exponents of their d, rounded down. All have `rows`
 * elements, whatever is in them. */
int64_t dcdm_row_factors(int64_t rows, int64_t shift, const void *indptr, const void *indices, const double *values,
                         int wide, double *d, int64_t *label, int64_t *count, double *exponents) {
    const own_rows m = {rows, shift, indptr, indices, values, wide};
    int64_t *parent = count;
    double *to_parent = exponents;
    const int64_t fragments = wide ? connect(&m, d, label, parent, to_parent, 1)
                                   : connect(&m, d, label, parent, to_parent, 0);
    /* Roots come before those that hang on them: every fragment hangs on its root after this. */
    for (int64_t f = 0; f < fragments; f++) {
        const int64_t above = parent[f];
        if (above == f) continue;
        to_parent[f] *= parent[above] == above ? 1 : to_parent[above];
        parent[f] = parent[above];
    }
    for (int64_t r = 0; r < rows; r++) {
        const int64_t f = label[r];
        if (parent[f] != f) d[r] *= to_parent[f], label[r] = parent[f];
    }
    int64_t components = 0;
    for (int64_t f = 0; f < fragments; f++) /* the number of a root among the roots goes where its ratio was */
        if (parent[f] == f) to_parent[f] = (double)components++;
    for (int64_t r = 0; r < rows; r++) label[r] = (int64_t)to_parent[label[r]];
    for (int64_t c = 0; c < components; c++) count[c] = 0, exponents[c] = 0;
    for (int64_t r = 0; r < rows; r++) {
        uint64_t bits;
        memcpy(&bits, d + r, sizeof bits);
        count[label[r]]++, exponents[label[r]] += (double)((int64_t)(bits >> 52) - 1023);
    }
    return components;
}

/* Whether any of some rows, `samples` of them, has a coupling that is not the same from both sides, relative to the
 * larger; couplings one way do not count. */
int dcdm_rows_differ(int64_t rows, int64_t shift, const void *indptr, const void *indices, const double *values,
                     int wide, int64_t samples, double tolerance) {
    const own_rows m = {rows, shift, indptr, indices, values, wide};
    for (int64_t q = 0; q < samples && q < rows; q++) {
        const int64_t r = rows <= samples ? q : (int64_t)((double)rows / (double)samples * (double)q);
        for (int64_t e = get_index(indptr, r, wide); e < get_index(indptr, r + 1, wide); e++) {
            const int64_t j = get_index(indices, e, wide) - shift;
            if (j < 0 || j >= rows || j == r || values[e] == 0) continue;
            const double here = values[e], there = back(&m, r, j, wide);
            if (here * there > 0 && fabs(here - there) > tolerance * fmax(fabs(here), fabs(there))) return 1;
        }
    }
    return 0;
}

/* The entries of every row divided by its d. */
void dcdm_divide_rows(int64_t rows, const void *indptr, const double *values, int wide, const double *d, double *to,
                      int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t e = get_index(indptr, r, wide); e < get_index(indptr, r + 1, wide); e++) to[e] = values[e] / d[r];
}

/* out[part] = the sum of (weight v)^2 over its part of n numbers, where weight is not 0. */
void dcdm_weighted_squares(int64_t n, const double *weight, const double *v, double *out, int parts) {
#pragma omp parallel for num_threads(parts) schedule(static, 1)
    for (int part = 0; part < parts; part++) {
        double sum[8] = {0};
        const int64_t begin = n * part / parts, end = n * (part + 1) / parts;
        int64_t i = begin;
        for (; i + 8 <= end; i += 8)
            for (int t = 0; t < 8; t++) {
                const double product = weight[i + t] * v[i + t];
                sum[t] += weight[i + t] != 0 ? product * product : 0;
            }
        for (; i < end; i++)
            if (weight[i] != 0) sum[0] += weight[i] * v[i] * (weight[i] * v[i]);
        out[part] = 0;
        for (int t = 0; t < 8; t++) out[part] += sum[t];
    }
}
