/* What else set-up asks of an AIJ matrix, and copies between its rows and the grid. */
#include <math.h>

#include "csr.h"

/* Flags of the Dirichlet rows among those from `first` to `last`. Rows of more than `longest` entries are not looked
 * at: they are taken for coupled. */
INLINE void dirichlet_rows(const csr_matrix *m, uint8_t *flags, int64_t first, int64_t last, int64_t longest,
                           int threads, int wide) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = first; r < last; r++) {
        int64_t begin = get_index(m->indptr, r, wide), end = get_index(m->indptr, r + 1, wide);
        if (end - begin > longest) {
            flags[r] = 0;
            continue;
        }
        const int lone = !m->off_indptr || get_index(m->off_indptr, r, wide) == get_index(m->off_indptr, r + 1, wide);
        if (end == begin + 1 && lone && get_index(m->indices, begin, wide) == r + m->shift) {
            flags[r] = 1; /* whatever its value, which need not be fetched */
            continue;
        }
        flags[r] = (uint8_t)is_uncoupled(m, r, wide);
    }
}

void dcdm_csr_dirichlet(const csr_matrix *m, uint8_t *flags, int64_t first, int64_t last, int64_t longest,
                        int threads) {
    if (m->wide) dirichlet_rows(m, flags, first, last, longest, threads, 1);
    else dirichlet_rows(m, flags, first, last, longest, threads, 0);
}

/* Sign of the first non-zero diagonal entry of a coupled row, 0 if there is none. */
double dcdm_csr_sign(const csr_matrix *m) {
    for (int64_t r = 0; r < m->rows; r++) {
        if (is_uncoupled(m, r, (int)m->wide)) continue;
        for (int64_t e = get_index(m->indptr, r, (int)m->wide); e < get_index(m->indptr, r + 1, (int)m->wide); e++)
            if (get_index(m->indices, e, (int)m->wide) == r + m->shift && m->values[e] != 0)
                return m->values[e] < 0 ? -1.0 : 1.0;
    }
    return 0.0;
}

/* Flags the rows whose values a penalty fixes, of which `report` has counted some: s beyond PENALTY times the
 * couplings, and a diagonal beyond PENALTY times `least`. Returns how many there are. */
int64_t dcdm_csr_penalties(const csr_matrix *m, uint8_t *flags, double least, int threads) {
    const int wide = (int)m->wide;
    int64_t count = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : count)
    for (int64_t r = 0; r < m->rows; r++) {
        double diagonal = 0, couplings = 0;
        for (int64_t e = get_index(m->indptr, r, wide); e < get_index(m->indptr, r + 1, wide); e++) {
            if (get_index(m->indices, e, wide) == r + m->shift) diagonal = fabs(m->values[e]);
            else couplings += fabs(m->values[e]);
        }
        if (m->off_indptr)
            for (int64_t e = get_index(m->off_indptr, r, wide); e < get_index(m->off_indptr, r + 1, wide); e++)
                couplings += fabs(m->off_values[e]);
        if (flags[r] || !(diagonal > PENALTY * couplings) || !(diagonal > PENALTY * least)) continue;
        flags[r] = 1;
        count++;
    }
    return count;
}

enum { FEW = 1 << 12 }; /* rows that are read sooner than another thread has come */

INLINE double diagonal_of(const csr_matrix *m, int64_t r, int wide) {
    const int64_t begin = get_index(m->indptr, r, wide), end = get_index(m->indptr, r + 1, wide);
    if (end == begin + 1) return get_index(m->indices, begin, wide) == r + m->shift ? m->values[begin] : 0;
    double found = 0;
    for (int64_t e = begin; e < end; e++)
        if (get_index(m->indices, e, wide) == r + m->shift) found += m->values[e];
    return found;
}

/* The diagonals of some rows, 0 where there is none. */
void dcdm_csr_diagonals(const csr_matrix *m, const int64_t *rows, int64_t count, double *to, int threads) {
    enum { AHEAD = 16 };
    const int wide = (int)m->wide, size = wide ? 8 : 4;
#pragma omp parallel for num_threads(count < FEW ? 1 : threads) schedule(static)
    for (int64_t q = 0; q < count; q++) {
        if (q + 2 * AHEAD < count) {
            __builtin_prefetch((const char *)m->indptr + rows[q + 2 * AHEAD] * size);
            const int64_t e = get_index(m->indptr, rows[q + AHEAD], wide);
            __builtin_prefetch((const char *)m->indices + e * size);
            __builtin_prefetch(m->values + e);
        }
        to[q] = diagonal_of(m, rows[q], wide);
    }
}

/* The next flagged row from r on, or `last`. */
INLINE int64_t next_flagged(const uint8_t *flags, int64_t r, int64_t last) {
    for (uint64_t eight; r + (int64_t)sizeof eight <= last; r += (int64_t)sizeof eight) {
        memcpy(&eight, flags + r, sizeof eight);
        if (eight) break;
    }
    while (r < last && !flags[r]) r++;
    return r;
}

/* The flagged rows in order, which the caller has counted, and their diagonals; returns how many of these are 0. */
int64_t dcdm_csr_fixed(const csr_matrix *m, int64_t *rows, double *diagonals, int threads) {
    enum { MOST = 64 };
    const int parts = m->rows < FEW ? 1 : threads < MOST ? threads : MOST, wide = (int)m->wide;
    int64_t first[MOST + 1] = {0}, empty = 0;
#pragma omp parallel for num_threads(parts) schedule(static, 1)
    for (int part = 0; part < parts; part++) {
        int64_t count = 0;
        for (int64_t r = m->rows * part / parts; r < m->rows * (part + 1) / parts; r++) count += m->dirichlet[r] != 0;
        first[part + 1] = count;
    }
    for (int part = 0; part < parts; part++) first[part + 1] += first[part];
#pragma omp parallel for num_threads(parts) schedule(static, 1) reduction(+ : empty)
    for (int part = 0; part < parts; part++) {
        const int64_t last = m->rows * (part + 1) / parts;
        int64_t q = first[part];
        for (int64_t r = next_flagged(m->dirichlet, m->rows * part / parts, last); r < last; q++) {
            rows[q] = r, diagonals[q] = diagonal_of(m, r, wide);
            empty += diagonals[q] == 0;
            r = r + 1 < last && m->dirichlet[r + 1] ? r + 1 : next_flagged(m->dirichlet, r + 1, last);
        }
    }
    return empty;
}

/* Whether a value in some rows is not 0. */
int dcdm_some_at(const double *values, const int64_t *rows, int64_t count) {
    for (int64_t q = 0; q < count; q++)
        if (values[rows[q]] != 0) return 1;
    return 0;
}

/* The size of the largest of the diagonals of one in `step` rows; NaN does not count. */
double dcdm_csr_some_diagonal(const csr_matrix *m, int64_t step) {
    double largest = 0;
    for (int64_t r = 0; r < m->rows; r += step) {
        const double size = fabs(diagonal_of(m, r, (int)m->wide));
        largest = size > largest ? size : largest;
    }
    return largest;
}

/* Columns other than those of the local rows, in any order and with repetitions, at most `capacity`; returns how
 * many there are. */
int64_t dcdm_csr_outside(const csr_matrix *m, int64_t *columns, int64_t capacity, int threads) {
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
        if (at < capacity) columns[at] = c;
    }
    return count;
}

/* The runs (row, cell, length) that rows are on grid lines of nx cells, to `lines`; to `joined` the same, those that go
 * on from line to line as one, but only with lines that begin in the same `piece` rows. Returns how many lines there
 * are, and how many are left in `joins`; -1 where there are more than `capacity`. */
int64_t dcdm_lines_of_cells(int64_t rows, const int64_t *cell, int64_t nx, int64_t piece, int64_t capacity,
                            int64_t (*lines)[3], int64_t (*joined)[3], int64_t *joins) {
    int64_t count = 0, last = -1, before = 0;
    for (int64_t r = 0, next; r < rows; r = next) {
        const int64_t end = nx - cell[r] % nx < rows - r ? r + nx - cell[r] % nx : rows;
        for (next = r + 1; next < end && cell[next] == cell[next - 1] + 1;) next++;
        if (count == capacity) return -1;
        const int64_t line[3] = {r, cell[r], next - r};
        memcpy(lines[count++], line, sizeof line);
        if (last >= 0 && joined[last][1] + joined[last][2] == cell[r] && r / piece == before / piece)
            joined[last][2] += next - r;
        else memcpy(joined[++last], line, sizeof line);
        before = r;
    }
    *joins = last + 1;
    return count;
}

/* Runs (from, to, length) of elements of `item` bytes; (to, from, length) if `back`. */
void dcdm_copy_runs(int64_t count, const int64_t (*run)[3], const char *from, char *to, int64_t item, int back,
                    int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < count; r++) {
        const int64_t bytes = run[r][2] * item;
        const char *source = from + run[r][!!back] * item;
        char *target = to + run[r][!back] * item;
        if (bytes == 8) memcpy(target, source, 8); /* rows in no order: single doubles */
        else memcpy(target, source, (size_t)bytes);
    }
}

/* to[place[r]] = from[r], or to[r] = from[place[r]] if `back`; elements of `item` bytes. */
void dcdm_copy_rows(int64_t count, const int64_t *place, const char *from, char *to, int64_t item, int back,
                    int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < count; r++) {
        const int64_t source = back ? place[r] : r, target = back ? r : place[r];
        if (item == 8) memcpy(to + 8 * target, from + 8 * source, 8);
        else memcpy(to + item * target, from + item * source, (size_t)item);
    }
}

/* Columns of Dirichlet rows to look up in the rows beside them: many at a time, for each is far from the others in
 * memory. */
enum { PENDING = 64 };
typedef struct {
    int64_t row[PENDING], other[PENDING], there[PENDING];
    int count;
} lookups;

/* What the values of x in these columns add to the rows beside them is taken off `to`. */
INLINE void subtract_columns(const csr_matrix *m, lookups *p, const double *x, double *to) {
    const int wide = (int)m->wide;
    for (int q = 0; q < p->count; q++) {
        const int64_t e = get_index(m->indptr, p->other[q], wide);
        __builtin_prefetch((const char *)m->indices + e * (wide ? 8 : 4));
        __builtin_prefetch(m->values + e);
    }
    for (int q = 0; q < p->count; q++) /* a row on another grid line does not couple to this one */
        for (int64_t e = get_index(m->indptr, p->other[q], wide); e < get_index(m->indptr, p->other[q] + 1, wide); e++)
            if (get_index(m->indices, e, wide) - m->shift == p->row[q])
                to[p->there[q]] -= m->values[e] * x[p->row[q]];
    p->count = 0;
}

/* The rows [begin, end), or those of these cells, beside a Dirichlet row join those to look at. */
INLINE void look_around(const csr_matrix *m, int64_t row, const int64_t *row_of, int by_rows, int64_t begin,
                        int64_t end, lookups *p) {
    const int64_t n[3] = {m->nx, m->ny, m->nz}, step[3] = {1, m->nx, m->nx * m->ny},
                  cell = m->cell ? m->cell[row] : row;
    for (int side = 0; side < 6; side++) {
        const int axis = side / 2, high = side & 1;
        int64_t there = high ? cell + step[axis] : cell - step[axis];
        if (m->ring[axis] && cell / step[axis] % n[axis] == (high ? n[axis] - 1 : 0))
            there += high ? -n[axis] * step[axis] : n[axis] * step[axis];
        if (n[axis] <= (m->ring[axis] ? 1 + high : 1) || there < 0 || there >= n[2] * step[2]) continue;
        if (!by_rows && (there < begin || there >= end)) continue;
        const int64_t other = row_of ? row_of[there] : there, target = by_rows ? other : there;
        if (other < 0 || m->dirichlet[other] || target < begin || target >= end) continue;
        p->row[p->count] = row, p->other[p->count] = other, p->there[p->count++] = target;
    }
}

/* Whether a row, of rows that are the cells, lies among Dirichlet rows only, as most of a solid's do. */
INLINE int is_amid(const csr_matrix *m, int64_t row, int64_t cells) {
    const uint8_t *d = m->dirichlet + row;
    const int64_t plane = m->nz > 1 ? m->nx * m->ny : m->nx;
    return row >= plane && row + plane < cells && d[-1] & d[1] & d[-m->nx] & d[m->nx] & d[-plane] & d[plane];
}

/* to = b without what the values of x in Dirichlet rows, `count` of them in ascending order, add to other rows, and 0
 * in these rows: of the rows of this rank, and those alone. `b` and `to` are in the order of the cells, or if `by_rows`
 * in that of the rows, as x is, and may be the same; row_of: the row of each cell, -1 where there is none, or NULL
 * where they are the cells. Returns whether all those values of x are finite. */
int dcdm_csr_without_dirichlet(const csr_matrix *m, const int64_t *rows, int64_t count, const int64_t *row_of,
                               int by_rows, const double *x, const double *b, double *to, int threads) {
    const int64_t plane = m->nx * m->ny, cells = plane * m->nz, places = by_rows ? m->rows : cells;
    const int plain = !row_of && !m->cell && !m->ring[0] && !m->ring[1] && !m->ring[2];
    double nothing = 0;
#pragma omp parallel num_threads(threads) reduction(+ : nothing)
    {
        /* each thread has places of its own, and looks at the rows in the same order however many there are */
        const int64_t part = omp_get_thread_num(), parts = omp_get_num_threads();
        const int64_t begin = places * part / parts, end = places * (part + 1) / parts;
        lookups pending = {.count = 0};
        for (int64_t c = begin; c < end && to != b; c++) to[c] = b[c];
        for (int64_t q = 0; q < count; q++) {
            const int64_t row = rows[q], cell = m->cell ? m->cell[row] : row;
            const int near = (by_rows && row_of) || (cell >= begin - plane && cell < end + plane);
            if (!near && !(m->ring[2] && (cell < plane || cell >= cells - plane))) continue;
            nothing += 0 * x[row]; /* NaN where it is not finite */
            const int64_t place = by_rows ? row : cell;
            if (place >= begin && place < end) to[place] = 0;
            if (x[row] != 0 && !(plain && is_amid(m, row, cells)))
                look_around(m, row, row_of, by_rows, begin, end, &pending);
            if (pending.count > PENDING - 6) subtract_columns(m, &pending, x, to);
        }
        subtract_columns(m, &pending, x, to);
    }
    return nothing == 0;
}

/* A coupling of a row to a Dirichlet row. */
typedef struct {
    int64_t cell;
    double coupling, x;
} beside;

/* One more of them, in the order of their cells. */
INLINE void add_beside(beside *known, int *count, int64_t cell, double coupling, double x) {
    if (x == 0 || coupling == 0 || *count == 6) return;
    int at = (*count)++;
    for (; at && known[at - 1].cell > cell; at--) known[at] = known[at - 1];
    known[at] = (beside){cell, coupling, x};
}

/* The same in row r, if it couples to Dirichlet rows of other ranks; see below. */
INLINE void without_ghosts(const csr_matrix *m, int64_t r, const int64_t *cell, int64_t first, const double *ghost_x,
                           const double *x, const double *b, double *to, int wide) {
    beside known[6];
    int count = 0, foreign = 0;
    for (int64_t e = get_index(m->indptr, r, wide); e < get_index(m->indptr, r + 1, wide); e++) {
        const int64_t other = get_index(m->indices, e, wide) - m->shift, here = other >= 0 && other < m->rows;
        if (here && m->dirichlet[other])
            add_beside(known, &count, cell ? cell[other] : first + other, m->values[e], x[other]);
        const int64_t ghost = here ? -1 : find_ghost(m, other + m->first_column);
        if (ghost < 0 || !m->ghost_dirichlet[ghost]) continue;
        foreign = 1;
        add_beside(known, &count, m->ghost_cell[ghost], m->values[e], ghost_x[ghost]);
    }
    const int64_t end = m->off_indptr ? get_index(m->off_indptr, r + 1, wide) : 0;
    for (int64_t e = end ? get_index(m->off_indptr, r, wide) : 0; e < end; e++) {
        const int64_t ghost = get_index(m->off_indices, e, wide);
        if (!m->ghost_dirichlet[ghost]) continue;
        foreign = 1;
        add_beside(known, &count, m->ghost_cell[ghost], m->off_values[e], ghost_x[ghost]);
    }
    double left = b[r];
    for (int q = 0; q < count; q++) left -= known[q].coupling * known[q].x;
    if (foreign) to[r] = left;
}

/* In the rows that couple to Dirichlet rows of other ranks, from b on: all that Dirichlet rows add to them, in the
 * order of the cells, as one rank takes it off. Everything is in the order of the rows; `cell`: of each in the whole
 * grid, NULL where they follow each other from `first` on; ghost_x: x in the ghost columns. */
void dcdm_csr_without_ghosts(const csr_matrix *m, const int64_t *cell, int64_t first, const double *ghost_x,
                             const double *x, const double *b, double *to, int threads) {
    enum { AT_ONCE = 64 }; /* rows, most of which have no ghosts */
    const int wide = (int)m->wide;
    const void *off = m->off_indptr;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t a = 0; a < m->rows; a += AT_ONCE) {
        const int64_t z = a + AT_ONCE < m->rows ? a + AT_ONCE : m->rows;
        if (off && get_index(off, a, wide) == get_index(off, z, wide)) continue;
        for (int64_t r = a; r < z; r++)
            if (!m->dirichlet[r]) without_ghosts(m, r, cell, first, ghost_x, x, b, to, wide);
    }
}
