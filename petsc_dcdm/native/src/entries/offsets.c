/* The distances column - row of a matrix, which show the grid of one whose rows are in lexicographic order.
 *
 * Few of its rows have one that no row before them has: rows are asked whether they are like the one before, many at a
 * time, and else whether they have but what is known.
 */
#include "csr.h"

enum { MOST_OFFSETS = 64 };

/* Adds |d| to the `known` distinct ones, of which there may be so many. */
INLINE int64_t add_offset(int64_t *offsets, int64_t known, int64_t d) {
    if (d < 0) d = -d;
    int64_t i = 0;
    while (i < known && offsets[i] != d) i++;
    if (i < known || d == 0 || known == MOST_OFFSETS) return known;
    offsets[known] = d;
    return known + 1;
}

/* Whether `rows` rows from r on have no distance but those of the row before each, as the inner rows of a grid line. */
INLINE int follow(const csr_matrix *m, int64_t r, int64_t rows, int wide) {
    const int64_t e = get_index(m->indptr, r, wide), width = get_index(m->indptr, r + 1, wide) - e;
    if (r == 0) return 0;
    int64_t odd = 0;
    for (int64_t t = r; t < r + rows; t++) {
        odd |= get_index(m->indptr, t, wide) - get_index(m->indptr, t - 1, wide) - width;
        if (m->off_indptr) odd |= get_index(m->off_indptr, t + 1, wide) - get_index(m->off_indptr, t, wide);
    }
    if (odd || get_index(m->indptr, r + rows, wide) != e + rows * width) return 0;
    const int32_t *column = (const int32_t *)m->indices;
    int32_t other = 0;
#pragma omp simd reduction(| : other)
    for (int64_t q = e; q < e + rows * width; q++)
        other |= wide ? get_index(m->indices, q, 1) - get_index(m->indices, q - width, 1) != 1
                      : (column[q] - column[q - width]) ^ 1;
    if (other) return 0;
#pragma omp simd reduction(| : odd)
    for (int64_t q = e; q < e + rows * width; q++) odd |= (m->values[q] != 0) & (m->values[q - width] == 0);
    return !odd;
}

/* Whether row r has no distance but the first three of `offsets`, which are -1 until they are known. Without a branch
 * for each entry, as most rows beside Dirichlet rows are so, no two alike. */
INLINE int has_known(const csr_matrix *m, int64_t r, const int64_t *offsets, int wide) {
    enum { LONGEST = 8 };
    const int64_t e = get_index(m->indptr, r, wide), width = get_index(m->indptr, r + 1, wide) - e;
    if (width > LONGEST || e + LONGEST > get_index(m->indptr, m->rows, wide)) return 0;
    if (m->off_indptr && get_index(m->off_indptr, r + 1, wide) != get_index(m->off_indptr, r, wide)) return 0;
    const int64_t first = offsets[0], second = offsets[1], third = offsets[2], row = r + m->shift;
    int64_t other = 0;
    for (int q = 0; q < LONGEST; q++) {
        int64_t d = get_index(m->indices, e + q, wide) - row;
        d = d < 0 ? -d : d;
        other |= (q < width) & (m->values[e + q] != 0) & (d != 0) & (d != first) & (d != second) & (d != third);
    }
    return !other;
}

/* Adds the distances of rows [r, end) to the `known` distinct ones, until there are more than `capacity`. */
INLINE int64_t offsets_of(const csr_matrix *m, int64_t r, int64_t end, int64_t *offsets, int64_t known,
                          int64_t capacity, int wide) {
    enum { TOGETHER = 8 };
    for (int64_t next = r; r < end && known <= capacity; r++) {
        /* perhaps they follow another thread's row, which finds their distances */
        while (r >= next && r + TOGETHER <= end && follow(m, r, TOGETHER, wide)) r += TOGETHER, next = r;
        if (r == end) break;
        if (r >= next) next = r + TOGETHER / 2;
        if (has_known(m, r, offsets, wide)) continue;
        for (int64_t e = get_index(m->indptr, r, wide); e < get_index(m->indptr, r + 1, wide); e++)
            if (m->values[e] != 0) known = add_offset(offsets, known, get_index(m->indices, e, wide) - m->shift - r);
        if (m->off_indptr)
            for (int64_t e = get_index(m->off_indptr, r, wide); e < get_index(m->off_indptr, r + 1, wide); e++)
                if (m->off_values[e] != 0)
                    known = add_offset(offsets, known,
                                       m->ghost_column[get_index(m->off_indices, e, wide)] - m->first_column - r);
    }
    return known;
}

/* The distinct positive values of |column - row| over the non-zero entries, at most `capacity`, unsorted; returns
 * how many were found, capacity + 1 if there are more. */
int64_t dcdm_csr_offsets(const csr_matrix *m, int64_t *offsets, int64_t capacity, int threads) {
    enum { AT_ONCE = 512 };
    int64_t count = 0;
#pragma omp parallel num_threads(threads)
    {
        int64_t mine[MOST_OFFSETS] = {-1, -1, -1}, known = 0;
#pragma omp for schedule(static)
        for (int64_t block = 0; block < m->rows; block += AT_ONCE) {
            const int64_t end = block + AT_ONCE < m->rows ? block + AT_ONCE : m->rows;
            known = m->wide ? offsets_of(m, block, end, mine, known, capacity, 1)
                            : offsets_of(m, block, end, mine, known, capacity, 0);
        }
#pragma omp critical
        for (int64_t i = 0; i < known; i++) {
            int64_t o = 0;
            while (o < count && o < capacity && offsets[o] != mine[i]) o++;
            if (o == count && count < capacity) offsets[count++] = mine[i];
            else if (o == capacity) count = capacity + 1;
        }
    }
    return count;
}
