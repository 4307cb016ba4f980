/* Rows beside walls, which say what few others said before them: one of each kind is kept, with what was made of it.
 * For packed stencils. Included by csr.c. */
#ifndef DCDM_KNOWN_ROWS_H
#define DCDM_KNOWN_ROWS_H

#include "csr_rows.h"
#include "packed.h"

enum { KINDS = 128, WIDEST = 7 };

typedef struct {
    int64_t width; /* 0: there is none */
    int64_t ghosts; /* entries in the columns of other ranks, which come last */
    int64_t offset[WIDEST]; /* of the columns' cells from that of the row */
    uint64_t bits[WIDEST];  /* of the values */
    int sides;              /* bits of those on which it is coupled */
    double w[3], small_sum; /* the latter as csr_report counts them */
    uint8_t cell, s_index;
} known_row;

/* Of one thread: the row that most others repeat, one of each kind of others, and what was found last before and after
 * common ones: the next grid line mostly begins and ends with the same. */
typedef struct {
    common_row common;
    known_row kinds[KINDS];
    const known_row *last[2];
} seen_rows;

static void forget_rows(seen_rows *seen) {
    seen->common.entry = -1;
    for (int q = 0; q < KINDS; q++) seen->kinds[q].width = 0;
    seen->last[0] = seen->last[1] = seen->kinds;
}

/* Entries of a row that has all neighbours. Such rows mostly come in blocks. */
INLINE int64_t full_width(const csr_matrix *m) { return m->nz > 1 ? 7 : 5; }

/* What a row says, and where a kind like it is kept; -1 for rows that are not: those that couple to Dirichlet rows, or
 * to rows elsewhere which are in no block of their own. */
INLINE int look_at(const csr_matrix *m, int64_t r, int wide, known_row *row) {
    const int64_t e = get_index(m->indptr, r, wide), own = get_index(m->indptr, r + 1, wide) - e;
    const int64_t off = m->off_indptr ? get_index(m->off_indptr, r, wide) : 0;
    const int64_t ghosts = m->off_indptr ? get_index(m->off_indptr, r + 1, wide) - off : 0, width = own + ghosts;
    if (width < 2 || width > full_width(m)) return -1;
    const int64_t cell = cell_of(m, r);
    uint64_t hash = (uint64_t)(width + (ghosts << 3));
    uint8_t lone = 0;
    for (int64_t q = 0; q < own; q++) {
        const int64_t local = get_index(m->indices, e + q, wide) - m->shift;
        if (local < 0 || local >= m->rows) return -1;
        lone |= m->dirichlet[local];
        row->offset[q] = cell_of(m, local) - cell, row->bits[q] = bits_at(m->values, e + q);
        hash += (row->bits[q] ^ (uint64_t)row->offset[q] << 20) * (FACE + 2 * (uint64_t)q);
    }
    for (int64_t q = own; q < width; q++) {
        const int64_t ghost = get_index(m->off_indices, off + q - own, wide);
        lone |= m->ghost_dirichlet[ghost];
        row->offset[q] = m->ghost_cell[ghost] - cell;
        row->bits[q] = bits_at(m->off_values, off + q - own);
        hash += (row->bits[q] ^ (uint64_t)row->offset[q] << 20) * (FACE + 2 * (uint64_t)q);
    }
    row->width = width, row->ghosts = ghosts;
    return lone ? -1 : (int)((hash ^ hash >> 32) * FACE >> 40) % KINDS;
}

/* Bits of the sides on which cell i of a grid line has a neighbour, from those along y and z. */
INLINE int sides_of(const csr_matrix *m, int64_t i, int inside) {
    return inside | (i > 0 ? 1 : 0) | (i + 1 < m->nx ? 2 : 0);
}

/* Whether a row says what is known, and couples to no Dirichlet row. */
INLINE int says(const csr_matrix *m, int64_t r, int wide, const known_row *known) {
    const int64_t e = get_index(m->indptr, r, wide), own = get_index(m->indptr, r + 1, wide) - e;
    const int64_t off = m->off_indptr ? get_index(m->off_indptr, r, wide) : 0;
    const int64_t ghosts = m->off_indptr ? get_index(m->off_indptr, r + 1, wide) - off : 0;
    if (!known->width || ghosts != known->ghosts || own + ghosts != known->width) return 0;
    const int64_t cell = cell_of(m, r);
    uint64_t odd = 0;
    for (int64_t q = 0; q < own; q++) {
        const int64_t local = get_index(m->indices, e + q, wide) - m->shift;
        if (local < 0 || local >= m->rows) return 0;
        odd |= m->dirichlet[local] | (uint64_t)((cell_of(m, local) - cell) ^ known->offset[q]);
        odd |= bits_at(m->values, e + q) ^ known->bits[q];
    }
    for (int64_t q = own; q < own + ghosts; q++) {
        const int64_t ghost = get_index(m->off_indices, off + q - own, wide);
        odd |= m->ghost_dirichlet[ghost] | (uint64_t)((m->ghost_cell[ghost] - cell) ^ known->offset[q]);
        odd |= bits_at(m->off_values, off + q - own) ^ known->bits[q];
    }
    return !odd;
}

/* What row r of cell i of a grid line is like, if such a row is kept that has no neighbours where this one has none;
 * else NULL. `inside`: bits of the sides along y and z where there is a neighbour. */
INLINE const known_row *find_known(const csr_matrix *m, const known_row *kinds, int64_t r, int64_t i, int inside) {
    known_row row;
    const int slot = look_at(m, r, (int)m->wide, &row);
    if (slot < 0 || kinds[slot].sides & ~sides_of(m, i, inside)) return NULL;
    return says(m, r, (int)m->wide, kinds + slot) ? kinds + slot : NULL;
}

/* How many rows from r on, at most n and all on one grid line from cell i on, are of kinds that are kept: they are
 * written to the stencil and counted. Where full ones follow others there may be many: they are left to those who see
 * that sooner, but a few that these did not want. `after`: whether common ones come before. */
static int64_t write_known(const csr_matrix *m, csr_output *out, csr_report *report, seen_rows *seen, int64_t r,
                           int64_t cell, int64_t to, int64_t i, int64_t n, int inside, int after) {
    const int wide = (int)m->wide;
    int64_t t = 0;
    int before = 0;
    for (; t < n && (!m->cell || m->cell[r + t] == cell + t); t++) {
        const int full =
            get_index(m->indptr, r + t + 1, wide) - get_index(m->indptr, r + t, wide) == full_width(m);
        if (full && (seen->common.entry < 0 || t >= SHORTEST || (t && !before))) break;
        before = full;
        const known_row *known = seen->last[after];
        if (!says(m, r + t, wide, known)) known = find_known(m, seen->kinds, r + t, i + t, inside);
        else if (known->sides & ~sides_of(m, i + t, inside)) break;
        if (!known) break;
        seen->last[after] = known;
        out->cells[to + t] = known->cell;
        if (known->cell & HAS_S) out->s_index[to + t] = known->s_index;
        for (int f = 0; f < 3; f++) report->w_sum[f] += known->w[f], report->w_count[f] += known->w[f] > 0;
        report->extra += (known->cell & HAS_S) != 0;
        report->small_sums[known->small_sum > 0] += known->small_sum;
    }
    return t;
}

/* Row r, which was read to place t of the run and packed, is kept if it is coupled and on no ring. */
INLINE void keep_known(const csr_matrix *m, known_row *kinds, const row_place *at, int64_t r, const row_run *run, int t,
                       double small_sum, uint8_t cell, uint8_t s_index) {
    known_row row = {.small_sum = small_sum, .cell = cell, .s_index = s_index};
    const int slot = look_at(m, r, (int)m->wide, &row);
    if (slot < 0) return;
    double total = 0;
    for (int64_t q = 0; q < row.width; q++) {
        const int64_t length = row.offset[q] < 0 ? -row.offset[q] : row.offset[q];
        if (!length || row.bits[q] << 1 == 0) continue; /* a zero of either sign */
        int axis = 0;
        while (axis < 3 && length != at->step[axis]) axis++;
        if (axis == 3 || m->ring[axis]) return;
        row.sides |= 1 << (2 * axis + (row.offset[q] > 0));
    }
    for (int f = 0; f < 6; f++) total += run->v[f][t];
    const double d = run->v[DIAGONAL][t];
    if (!(total > 0) || d - total > PENALTY * total) return; /* those are counted */
    for (int f = 0; f < 3; f++) row.w[f] = run->v[2 * f][t];
    kinds[slot] = row;
}

#endif
