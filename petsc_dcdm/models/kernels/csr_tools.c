/* What else set-up asks of an AIJ matrix, and copies between its rows and the grid. */
#include "csr.h"

/* A row is a Dirichlet row if all its off-diagonal entries are zero. Only rows with fewer than two non-zeros need a look at
 * their columns. Returns the number of such rows. */
INLINE int64_t dirichlet_rows(const csr_matrix *m, uint8_t *flags, int threads, int wide) {
    int64_t count = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : count)
    for (int64_t r = 0; r < m->rows; r++) {
        int64_t begin = get_index(m->indptr, r, wide), end = get_index(m->indptr, r + 1, wide);
        int nonzero = 0;
        int64_t last = 0;
        for (int64_t e = begin; e < end && nonzero < 2; e++)
            if (m->values[e] != 0) nonzero++, last = e;
        int lone = nonzero == 0 || (nonzero == 1 && get_index(m->indices, last, wide) == r + m->shift);
        if (lone && m->off_indptr)
            for (int64_t e = get_index(m->off_indptr, r, wide); e < get_index(m->off_indptr, r + 1, wide); e++)
                if (m->off_values[e] != 0) lone = 0;
        flags[r] = (uint8_t)lone;
        count += lone;
    }
    return count;
}

int64_t dcdm_csr_dirichlet(const csr_matrix *m, uint8_t *flags, int threads) {
    return m->wide ? dirichlet_rows(m, flags, threads, 1) : dirichlet_rows(m, flags, threads, 0);
}

/* Sign of the first non-zero diagonal entry, 0 if there is none. */
double dcdm_csr_sign(const csr_matrix *m) {
    for (int64_t r = 0; r < m->rows; r++)
        for (int64_t e = get_index(m->indptr, r, (int)m->wide); e < get_index(m->indptr, r + 1, (int)m->wide); e++)
            if (get_index(m->indices, e, (int)m->wide) == r + m->shift && m->values[e] != 0)
                return m->values[e] < 0 ? -1.0 : 1.0;
    return 0.0;
}

/* The diagonals of some rows, 0 where there is none. */
void dcdm_csr_diagonals(const csr_matrix *m, const int64_t *rows, int64_t count, double *to, int threads) {
    const int wide = (int)m->wide;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t q = 0; q < count; q++) {
        to[q] = 0;
        for (int64_t e = get_index(m->indptr, rows[q], wide); e < get_index(m->indptr, rows[q] + 1, wide); e++)
            if (get_index(m->indices, e, wide) == rows[q] + m->shift) to[q] += m->values[e];
    }
}

/* Columns other than those of the local rows, in any order and with repetitions, at most `room` of them; returns how many
 * there are. */
int64_t dcdm_csr_outside(const csr_matrix *m, int64_t *columns, int64_t room, int threads) {
    int64_t count = 0;
    const int wide = (int)m->wide;
    const int64_t entries = get_index(m->indptr, m->rows, wide);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t e = get_index(m->indptr, 0, wide); e < entries; e++) {
        const int64_t c = get_index(m->indices, e, wide);
        if (c >= m->first_column && c < m->first_column + m->rows) continue;
        int64_t at;
#pragma omp atomic capture
        at = count++;
        if (at < room) columns[at] = c;
    }
    return count;
}

/* Adds |d| to the `known` distinct ones, of which there may be 16. */
INLINE int64_t add_offset(int64_t *offsets, int64_t known, int64_t d) {
    if (d < 0) d = -d;
    int64_t i = 0;
    while (i < known && offsets[i] != d) i++;
    if (i < known || d == 0 || known == 16) return known;
    offsets[known] = d;
    return known + 1;
}

/* The distinct positive values of |column - row| over the non-zero entries, at most `room` of them, unsorted; returns how
 * many were found, room + 1 if there are more. */
int64_t dcdm_csr_offsets(const csr_matrix *m, int64_t *offsets, int64_t room, int threads) {
    int64_t count = 0;
    const int wide = (int)m->wide;
#pragma omp parallel num_threads(threads)
    {
        int64_t mine[16], known = 0;
#pragma omp for schedule(static)
        for (int64_t r = 0; r < m->rows; r++) {
            for (int64_t e = get_index(m->indptr, r, wide); e < get_index(m->indptr, r + 1, wide); e++)
                if (m->values[e] != 0) known = add_offset(mine, known, get_index(m->indices, e, wide) - m->shift - r);
            if (m->off_indptr)
                for (int64_t e = get_index(m->off_indptr, r, wide); e < get_index(m->off_indptr, r + 1, wide); e++)
                    if (m->off_values[e] != 0)
                        known = add_offset(mine, known, m->ghost_column[get_index(m->off_indices, e, wide)] - m->first_column - r);
        }
#pragma omp critical
        for (int64_t i = 0; i < known; i++) {
            int64_t o = 0;
            while (o < count && o < room && offsets[o] != mine[i]) o++;
            if (o == count && count < room) offsets[count++] = mine[i];
            else if (o == room) count = room + 1;
        }
    }
    return count;
}

/* Runs (from, to, length) of elements of `item` bytes. */
void dcdm_copy_runs(int64_t count, const int64_t (*run)[3], const char *from, char *to, int64_t item, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < count; r++) {
        const int64_t bytes = run[r][2] * item;
        const char *source = from + run[r][0] * item;
        char *target = to + run[r][1] * item;
        if (bytes == 8) memcpy(target, source, 8); /* rows in no order: single doubles */
        else memcpy(target, source, (size_t)bytes);
    }
}
