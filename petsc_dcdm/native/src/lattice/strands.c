/* The graph of a matrix: rows that repeat the couplings of the one before them, one number on, are told once. */
#include "entries/csr.h"
#include "lattice/lattice.h"

enum { LOOK = 16 };

/* A face by its lower row and how far on the other one is: what it adds for a strand is the difference of two. */
INLINE uint64_t face_sum(int64_t low, int64_t on) {
    uint64_t h = (uint64_t)low * 0x9E3779B97F4A7C15u + (uint64_t)on * 0xC2B2AE3D27D4EB4Fu;
    h = (h ^ h >> 29) * 0xBF58476D1CE4E5B9u;
    return h ^ h >> 32;
}

/* What the couplings of so many rows, those of a strand, add to the checksum. */
INLINE uint64_t checksum(const int32_t *beside, int64_t row, int64_t rows) {
    uint64_t sum = 0;
    for (int q = 0; q < SIDES && beside[q] >= 0; q++) {
        const int64_t low = beside[q] < row ? beside[q] : row, on = beside[q] < row ? row - low : beside[q] - low;
        const uint64_t h = face_sum(low + rows, on) - face_sum(low, on);
        sum += beside[q] < row ? h : -h;
    }
    return sum;
}

/* The couplings of a local row, -1 behind them. Returns how many, more than SIDES if that is too many; whole: there is
 * no other entry but the diagonal, all in columns of local rows. */
INLINE int read_beside(const csr_matrix *m, int64_t r, int32_t *beside, int *whole, int wide) {
    const int64_t row = r + m->first_column;
    int count = 0;
    *whole = 1;
    for (int block = 0; block < (m->off_indptr ? 2 : 1); block++) {
        const void *indptr = block ? m->off_indptr : m->indptr;
        const double *values = block ? m->off_values : m->values;
        for (int64_t e = get_index(indptr, r, wide); e < get_index(indptr, r + 1, wide); e++) {
            const int64_t index = get_index(block ? m->off_indices : m->indices, e, wide);
            const int64_t column = block ? m->ghost_column[index] : index - m->shift + m->first_column;
            if (values[e] == 0 || block) *whole = 0;
            if (column == row || values[e] == 0) continue;
            if (count == SIDES) return SIDES + 1;
            beside[count++] = (int32_t)column;
        }
    }
    for (int q = count; q < SIDES; q++) beside[q] = -1;
    return count;
}

/* Whether n local rows from r on have as many entries as the one before them, none of which is zero, in columns that
 * are one further on from row to row. */
INLINE int all_follow(const csr_matrix *m, int64_t r, int64_t n, int64_t width, int wide) {
    const int64_t e = get_index(m->indptr, r, wide), all = width * n;
    uint64_t odd = 0, zero = 0;
    for (int64_t t = 0; t < n; t++) odd |= (uint64_t)((get_index(m->indptr, r + t + 1, wide) - e) ^ (width * (t + 1)));
    if (m->off_indptr) odd |= (uint64_t)(get_index(m->off_indptr, r + n, wide) - get_index(m->off_indptr, r, wide));
    if (odd) return 0;
    const double *value = m->values + e;
    for (int64_t q = 0; q < all; q++) zero |= value[q] == 0 ? 1u : 0u;
    if (wide) {
        const int64_t *index = (const int64_t *)m->indices + e;
        for (int64_t q = 0; q < all; q++) odd |= (uint64_t)((index[q] - index[q - width]) ^ 1);
    } else {
        const int32_t *index = (const int32_t *)m->indices + e;
        int32_t other = 0;
        for (int64_t q = 0; q < all; q++) other |= (index[q] - index[q - width]) ^ 1;
        odd |= (uint64_t)other;
    }
    return !(odd | zero);
}

/* How many local rows from r on repeat the one before r, all of whose entries are like that. */
INLINE int64_t count_following(const csr_matrix *m, int64_t r, int64_t end, int wide) {
    const int64_t begin = r, width = get_index(m->indptr, r, wide) - get_index(m->indptr, r - 1, wide);
    while (r + LOOK <= end && all_follow(m, r, LOOK, width, wide)) r += LOOK;
    while (r < end && all_follow(m, r, 1, width, wide)) r++;
    return r - begin;
}

/* The strands of the local rows begin .. end - 1, or each row by itself if `plain`; returns how many there are. */
INLINE int64_t read_rows(const csr_matrix *m, int64_t begin, int64_t end, lattice_row *to, int plain,
                         int64_t *crowded, uint64_t *sum, int wide) {
    int64_t strands = 0, first = begin; /* of the latest strand */
    for (int64_t r = begin; r < end; r++) {
        lattice_row next = {.place = plain ? UNTOUCHED : r + m->first_column};
        int whole;
        if (read_beside(m, r, next.beside, &whole, wide) > SIDES) {
            if (r < *crowded) *crowded = r;
            whole = 0;
        }
        int repeats = strands > 0 && !plain;
        for (int q = 0; q < SIDES && repeats; q++) {
            const int32_t before = to[strands - 1].beside[q];
            repeats = next.beside[q] == (before < 0 ? -1 : before + (int32_t)(r - first));
        }
        if (!repeats) {
            if (strands) *sum += checksum(to[strands - 1].beside, first + m->first_column, r - first);
            to[strands++] = next, first = r;
        }
        if (whole && !plain) r += count_following(m, r + 1, end, wide);
    }
    if (strands) *sum += checksum(to[strands - 1].beside, first + m->first_column, end - first);
    return strands;
}

/* Whether most rows, by a sample, begin a strand: then it is not worth it. */
static int mostly_single(const csr_matrix *m) {
    enum { SAMPLE = 1000 };
    int64_t looked = 0, alone = 0;
    for (int64_t r = 1; r < m->rows; r += 1 + m->rows / SAMPLE, looked++) {
        int32_t before[SIDES], beside[SIDES];
        int whole, follows = 1;
        if (read_beside(m, r - 1, before, &whole, (int)m->wide) > SIDES) return 0;
        if (read_beside(m, r, beside, &whole, (int)m->wide) > SIDES) return 0;
        for (int q = 0; q < SIDES; q++) follows &= beside[q] == (before[q] < 0 ? -1 : before[q] + 1);
        alone += !follows;
    }
    return 2 * alone > looked;
}

/* The couplings of the local rows, by global numbers: `entries` strands, or as many as there are rows, each by itself.
 * `one_way` has 0 added, over all ranks, if each is stored in both of its rows. Returns the first local row that has
 * more than six, or -1. */
int64_t dcdm_lattice_rows(const csr_matrix *m, lattice_row *to, int64_t *entries, uint64_t *one_way, int threads) {
    const int plain = mostly_single(m);
    int64_t crowded = m->rows, total = 0;
    uint64_t sum = 0;
#pragma omp parallel num_threads(threads) reduction(min : crowded) reduction(+ : sum)
    {
        const int64_t part = omp_get_thread_num(), parts = omp_get_num_threads();
        const int64_t begin = m->rows * part / parts, end = m->rows * (part + 1) / parts;
        const int64_t count = m->wide ? read_rows(m, begin, end, to + begin, plain, &crowded, &sum, 1)
                                      : read_rows(m, begin, end, to + begin, plain, &crowded, &sum, 0);
#pragma omp barrier
        for (int64_t turn = 0; turn < parts; turn++) { /* close up */
            if (turn == part) {
                if (total < begin) memmove(to + total, to + begin, (size_t)count * sizeof *to);
                total += count;
            }
#pragma omp barrier
        }
    }
    *entries = total;
    *one_way += sum;
    return crowded < m->rows ? crowded : -1;
}

/* Strands into rows, one by one, the first of which is that of the first strand; 0 if there is no memory. */
int dcdm_lattice_expand(lattice_search *g, int threads) {
    const int64_t entries = g->entries, from = g->entries ? first_row(g, 0) : 0;
    if (entries == g->rows) { /* as they are, but for what they have in the place of a place */
        for (int64_t r = 0; r < entries && g->row[r].place != UNTOUCHED; r++) g->row[r].place = UNTOUCHED;
        return 1;
    }
    lattice_row *strand = malloc((size_t)entries * sizeof *strand);
    if (!strand) return 0;
    memcpy(strand, g->row, (size_t)entries * sizeof *strand);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t k = 0; k < entries; k++) {
        const int64_t first = strand[k].place - from, end = k + 1 < entries ? strand[k + 1].place - from : g->rows;
        for (int64_t r = first; r < end; r++) {
            for (int q = 0; q < SIDES; q++) {
                const int32_t beside = strand[k].beside[q];
                g->row[r].beside[q] = beside < 0 ? -1 : beside + (int32_t)(r - first);
            }
            g->row[r].place = UNTOUCHED;
        }
    }
    free(strand);
    g->entries = g->rows;
    return 1;
}
