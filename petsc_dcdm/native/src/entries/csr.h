/* An AIJ matrix as PETSc hands it out; mirrored by petsc_dcdm/stencil/entries/binding.py. */
#ifndef DCDM_CSR_H
#define DCDM_CSR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "compiler.h"

/* An s that is so much more than the couplings of its row fixes the value there: of a penalty. */
static const double PENALTY = 1e6;

enum {
    CSR_OK = 0,
    CSR_NOT_FINITE = 1,     /* NaN or infinity */
    CSR_DIAGONAL = 2,       /* a coupled row whose diagonal is zero or of the other sign */
    CSR_SIGN = 3,           /* an off-diagonal entry of the sign of the diagonal */
    CSR_ROW_SUM = 4,        /* not diagonally dominant */
    CSR_NOT_NEIGHBOUR = 5,  /* couples cells that share no face */
    CSR_OUTSIDE = 6         /* a cell number or column outside what was described */
};

/* The matrix as PETSc hands it out; shared with the ctypes Structure in petsc_dcdm/stencil/entries/binding.py. */
typedef struct {
    int64_t rows;
    const void *indptr, *indices; /* int32 or int64, see wide */
    const double *values;
    int64_t wide;            /* 1: indptr and indices are int64 */
    int64_t first_column;    /* columns first_column .. first_column + rows - 1 are the local rows themselves */
    int64_t shift;           /* index - shift is the local row of a column: first_column, or 0 if indices are local */
    const void *off_indptr, *off_indices; /* NULL, or the block of the other columns; its indices count the ghosts */
    const double *off_values;
    const int64_t *cell;     /* global cell number of each local row, or NULL: first_cell + row */
    int64_t ascending;       /* the numbers in `cell` are */
    int64_t line;            /* rows that make a line, where all are the cells of a box of the grid; 0: not known */
    int64_t first_cell;
    int64_t ghosts;          /* the other columns, sorted: global column, cell number, Dirichlet flag */
    const int64_t *ghost_column, *ghost_cell;
    const uint8_t *ghost_dirichlet;
    const uint8_t *dirichlet; /* flag of each local row that is solved alone, whatever its couplings and its sign; that
                                 of a row of several entries may be missing, see hidden below */
    int64_t nx, ny, nz;      /* the global grid */
    int64_t ring[3];         /* axes x, y, z known to be periodic: of two cells, an entry is the sum of two faces */
    double sign;             /* 1 or -1: multiplies the whole matrix */
    double scale;            /* multiplies the outputs only */
    double rounding;         /* relative to the diagonal: smaller wrong signs of entries and sums count as zero */
    double sum_rounding;     /* relative to the diagonal: smaller row sums are taken for zero */
} csr_matrix;

/* Where the stencil goes. Arrays may be NULL. In grid mode (pitch_y > 0) element (i, j, k) of a local box lies at
 * origin + k pitch_z + j pitch_y + i, else element r belongs to local row r. */
typedef struct {
    void *w_low[3], *w_high[3], *s, *diagonal; /* float or double, see single */
    int64_t single;
    int64_t pitch_y, pitch_z, origin;
    int64_t box[3], offset[3]; /* x, y, z; grid mode only */
    /* Instead of all arrays: the stencil packed (packed.h); not scaled. Cells are 0 before; place 0 of s_value is 0
     * and not used. */
    uint8_t *cells, *s_index;
    double c[3], *s_value; /* 256 */
    int32_t s_count, misfits; /* out; misfits: it could not be packed, and what was written is useless */
    int64_t hidden;          /* out: a row that is not flagged is a Dirichlet row, and what was written is useless */
} csr_output;

/* What was found; w_min and w_max are over the positive conductances, unscaled, 0 if there are none. */
typedef struct {
    int64_t code, row, column;
    double value;
    double max_diagonal;     /* over coupled rows */
    double w_min[3], w_max[3], w_sum[3];
    int64_t w_count[3];
    int64_t extra;           /* rows that have an s */
    int64_t stiff;           /* rows whose s is more than PENALTY times their couplings */
    double least_sum, most_sum; /* smallest and largest row sum of a coupled row, relative to its diagonal */
    double least_diagonal;   /* over coupled rows */
    double small_sums[2];    /* sums of the row sums, relative to the diagonal, that are at most `rounding` of it but
                                count: negative ones, positive ones */
    int64_t inexact;         /* whether more was taken for zero than the rounding of a sum of a row's entries */
    int64_t wrapped;         /* bits of the axes along which the two ends of a grid line are coupled; of
                                compact stencils twist_of (forms/compact.h) as well */
    uint64_t symmetry;       /* 0, summed over all ranks, if both sides see the same bits of every coupling; 0 if
                                packed */
} csr_report;

INLINE int64_t get_index(const void *p, int64_t i, int wide) {
    return wide ? ((const int64_t *)p)[i] : (int64_t)((const int32_t *)p)[i];
}

/* Where what is known of the cell (i, j, k) of row r goes: the element of an array that is a box, and no more than
 * `longest` cells from there on are of it; else row r. -1 if the cell lies outside of the box. */
INLINE int64_t output_at(const csr_output *out, int64_t r, int64_t i, int64_t j, int64_t k, int64_t *longest) {
    if (out->pitch_y <= 0) return r;
    const int64_t x = i - out->offset[0], y = j - out->offset[1], z = k - out->offset[2];
    if (x < 0 || x >= out->box[0] || y < 0 || y >= out->box[1] || z < 0 || z >= out->box[2]) return -1;
    if (*longest > out->box[0] - x) *longest = out->box[0] - x;
    return out->origin + z * out->pitch_z + y * out->pitch_y + x;
}

/* Global cell number of a local row. */
static inline int64_t cell_of(const csr_matrix *m, int64_t r) { return m->cell ? m->cell[r] : m->first_cell + r; }

static inline int64_t find_ghost(const csr_matrix *m, int64_t column) {
    int64_t low = 0, high = m->ghosts;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (m->ghost_column[middle] < column) low = middle + 1;
        else high = middle;
    }
    return low < m->ghosts && m->ghost_column[low] == column ? low : -1;
}

/* The first row that is wrong is what is told. */
static NOINLINE __attribute__((cold, unused)) void report_error(csr_report *p, int64_t code, int64_t row,
                                                                int64_t column, double value) {
    if (p->code != CSR_OK && p->row <= row) return;
    p->code = code, p->row = row, p->column = column, p->value = value;
}

static const uint64_t FACE = 0x9E3779B97F4A7C15u;

/* One face, its number times FACE, as one of its cells sees it. A coupling that both rows agree on adds and subtracts
 * the same number; none counts 0. Both factors are mixed: else a difference that is the same on all faces, or in the
 * exponent uncoupled, would add up to 0. */
INLINE uint64_t face_hash(uint64_t face, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits ^= bits >> 32, bits ^= bits >> 13;
    return bits * ((face ^ face >> 29) | 1);
}

/* Whether all off-diagonal entries of a row are zero: it is a Dirichlet row. Only rows with fewer than two non-zeros
 * need a look at their columns. */
INLINE int is_uncoupled(const csr_matrix *m, int64_t r, int wide) {
    const int64_t begin = get_index(m->indptr, r, wide), end = get_index(m->indptr, r + 1, wide);
    int nonzero = 0;
    int64_t last = 0;
    for (int64_t e = begin; e < end && nonzero < 2; e++)
        if (m->values[e] != 0) nonzero++, last = e;
    int lone = nonzero == 0 || (nonzero == 1 && get_index(m->indices, last, wide) == r + m->shift);
    if (lone && m->off_indptr)
        for (int64_t e = get_index(m->off_indptr, r, wide); e < get_index(m->off_indptr, r + 1, wide); e++)
            if (m->off_values[e] != 0) lone = 0;
    return lone;
}

#endif
