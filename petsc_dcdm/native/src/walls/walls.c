/* Coarse cells torn by a wall or by a jump, and the faces of the next level; see petsc_dcdm/stencil/walls.py.
 *
 * Faces are float64 arrays with a one-cell halo, x fastest: conductances of the low faces of the cells. A coarse cell
 * is a block of 1 or 2 cells per axis. It is torn when its living cells are not connected within the block and a ring
 * of one cell: a flood over the 4 x 4 x 4 bits of one word. A face connects unless it is weaker than a small part
 * (weak) of the strongest face of one of its two cells. Two parts that are larger than `skinless` cells and connected
 * by faces which are not weak beside the softer of their cells are a body and what is around it: whole. So is a stiff
 * part of most of the cells with soft ones in it.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "packed.h"
#include "shared/node_team.h"
#include "walls.h"

#define SEGMENT 16 /* blocks that are lookups at together */

/* at: padded element of a cell */
static inline double low_face(const walls_grid *g, int axis, int64_t at) {
    if (g->cells) return g->cells[at] >> 2 * axis & 1 ? g->c[axis] : 0.0;
    return g->face[axis][at];
}

static inline double conductance(const walls_grid *g, int axis, int64_t x, int64_t y, int64_t z) {
    /* padded indices; nothing conducts beyond the halo */
    if (x > g->n[0] + 1 || y > g->n[1] + 1 || z > g->n[2] + 1) return 0.0;
    return low_face(g, axis, z * g->pitch_z + y * g->pitch_y + x);
}

static inline double larger(double a, double b) { return a > b ? a : b; }

static uint64_t flood(uint64_t from, const uint64_t open[3]) {
    for (;;) {
        uint64_t to = from;
        to |= (to << 1 & open[0]) | (to & open[0]) >> 1;
        to |= (to << 4 & open[1]) | (to & open[1]) >> 4;
        to |= (to << 16 & open[2]) | (to & open[2]) >> 16;
        if (to == from) return to;
        from = to;
    }
}

/* Padded index of the end of a block that begins at `at`: one at the end of the grid may be cut off, and what lies
 * beyond, along a periodic axis, is the first cell. */
static inline int64_t block_end(const walls_grid *g, int axis, int64_t at) {
    const int64_t end = at + g->block[axis];
    return end < g->n[axis] + 1 ? end : g->n[axis] + 1;
}

/* Whether nothing conducts in a block: at the end of the grid there are many such beyond Dirichlet rows. */
static int dead(const walls_grid *g, int64_t x, int64_t y, int64_t z) {
    for (int64_t k = z; k < block_end(g, 2, z); k++)
        for (int64_t j = y; j < block_end(g, 1, y); j++)
            for (int64_t i = x; i < block_end(g, 0, x); i++)
                for (int axis = 0; axis < 3; axis++)
                    if (conductance(g, axis, i, j, k) > 0.0 ||
                        conductance(g, axis, i + (axis == 0), j + (axis == 1), k + (axis == 2)) > 0.0)
                        return 0;
    return 1;
}

/* Whether one stiff and even part has most of the cells of a patch and all living cells that are not its own are
 * softer by more than `weak` and follow what is beside them (apart: those that do not). */
static int soft_grains(const double strongest[64], uint64_t living, const uint64_t open[3], uint64_t apart,
                       double weak) {
    if (apart) return 0;
    uint64_t cells = 0, stiffest = 0;
    double most = 0.0;
    for (int at = 0; at < 64; at++) {
        if (!(strongest[at] > 0.0)) continue;
        const uint64_t bit = (uint64_t)1 << at;
        cells |= bit;
        if (living & bit && strongest[at] > most) most = strongest[at], stiffest = bit;
    }
    const uint64_t stiff = flood(stiffest, open);
    if (2 * __builtin_popcountll(stiff) <= __builtin_popcountll(cells)) return 0;
    for (int at = 0; at < 64; at++) {
        const uint64_t bit = (uint64_t)1 << at;
        if (stiff & bit && strongest[at] < 0.1 * most) return 0;
        if (living & ~stiff & bit && strongest[at] >= weak * most) return 0;
    }
    return 1;
}

enum { PATCH = 64, BESIDE = 16, LANES = 8 }; /* cells of a patch; how far their neighbours are from them at most */

/* LANES cells of a patch, and a bit for each of those of some comparison. */
typedef double cell_values __attribute__((vector_size(8 * LANES)));
typedef int64_t cell_bits __attribute__((vector_size(8 * LANES)));

static inline cell_values values_at(const double *p) {
    cell_values v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline cell_values chosen(cell_bits mask, cell_values a, cell_values b) {
    return (cell_values)(((cell_bits)a & mask) | ((cell_bits)b & ~mask));
}

static inline cell_values larger_of(cell_values a, cell_values b) { return chosen(a > b, a, b); }

static inline uint64_t any_lane(cell_bits v) {
    return (uint64_t)(((v[0] | v[1]) | (v[2] | v[3])) | ((v[4] | v[5]) | (v[6] | v[7])));
}

/* Low faces of some cells of a row from `cell` on. */
static inline void take_faces(const walls_grid *g, int axis, int64_t cell, int64_t from, int64_t to, double *face) {
    if (!g->cells) {
        const double *const w = g->face[axis] + cell;
        if (!from) face[0] = w[0];
        face[1] = w[1], face[2] = w[2]; /* of a patch there are three cells at least */
        if (to > 3) face[3] = w[3];
        return;
    }
    for (int64_t i = from; i < to; i++) face[i] = low_face(g, axis, cell + i);
}

/* 0: no living cell, 1: whole, 2: torn; (x, y, z) is the first cell of the block, padded. */
static int look(const walls_grid *g, int64_t x, int64_t y, int64_t z) {
    static const int step[3] = {1, 4, 16};
    double face[3][PATCH + BESIDE] = {{0.0}}, room[BESIDE + PATCH] = {0.0}, *const strongest = room + BESIDE;
    const int64_t px = block_end(g, 0, x) - x + 2, py = block_end(g, 1, y) - y + 2, pz = block_end(g, 2, z) - z + 2;
    uint64_t open[3], ajar[3], inner = 0;
    for (int64_t k = 0; k < pz; k++)
        for (int64_t j = 0; j < py; j++) {
            const int64_t at = 16 * k + 4 * j, cell = (z + k - 1) * g->pitch_z + (y + j - 1) * g->pitch_y + x - 1;
            /* the lowest faces lead out of the patch */
            take_faces(g, 0, cell, 1, px, face[0] + at);
            if (j) take_faces(g, 1, cell, 0, px, face[1] + at);
            if (k) take_faces(g, 2, cell, 0, px, face[2] + at);
            if (j && k && j + 1 < py && k + 1 < pz) inner |= (((uint64_t)1 << (px - 2)) - 1) << (at + 1);
        }
    const cell_bits one_each = {1, 2, 4, 8, 16, 32, 64, 128};
    cell_bits some = {0};
    for (int at = 0; at < 16 * pz; at += LANES) {
        cell_values most = {0.0};
        for (int axis = 0; axis < 3; axis++)
            most = larger_of(most, larger_of(values_at(face[axis] + at), values_at(face[axis] + at + step[axis])));
        memcpy(strongest + at, &most, sizeof most);
        some |= (most > 0.0) & (one_each << at);
    }
    const uint64_t living = any_lane(some) & inner;
    if (!living) return 0;
    for (int axis = 0; axis < 3; axis++) {
        cell_bits open_here = {0}, ajar_here = {0};
        for (int at = 0; at < 16 * pz; at += LANES) {
            const cell_values w = values_at(face[axis] + at), a = values_at(strongest + at);
            const cell_values b = values_at(strongest + at - step[axis]);
            const cell_bits less = a < b, there = (w > 0.0) & (one_each << at);
            open_here |= there & (w >= g->weak * chosen(less, b, a));
            ajar_here |= there & (w >= g->weak * chosen(less, a, b));
        }
        open[axis] = any_lane(open_here), ajar[axis] = any_lane(ajar_here);
    }
    const uint64_t one = flood(living & -living, open), rest = living & ~one;
    if (!rest) return 1;
    const uint64_t other = flood(rest & -rest, open);
    const int resolved = __builtin_popcountll(one) > g->skinless && __builtin_popcountll(other) > g->skinless;
    const uint64_t follows = flood(living & -living, ajar);
    const int skin = resolved && !(rest & ~other) && !(rest & ~follows);
    return skin || soft_grains(strongest, living, open, living & ~follows, g->weak) ? 1 : 2;
}

/* Whether the living cells of a block that reaches no further than the halo are connected within it; ``living`` counts
 * the block if it has any. Settles most blocks; a face must hold against the strongest of all faces of the block's
 * cells. */
static int joined(const walls_grid *g, int64_t x, int64_t y, int64_t z, int64_t *living) {
    static const int step[3] = {1, 4, 16};
    const int64_t pitch[3] = {1, g->pitch_y, g->pitch_z};
    double inner[12], strongest = 0.0;
    int where[12], count = 0;
    uint64_t cells = 0, open[3] = {0, 0, 0};
    for (int axis = 0; axis < 3; axis++) {
        const int64_t b = g->block[axis];
        const int64_t nx = axis == 0 ? 1 : g->block[0];
        const int64_t ny = axis == 1 ? 1 : g->block[1], nz = axis == 2 ? 1 : g->block[2];
        for (int64_t k = 0; k < nz; k++)
            for (int64_t j = 0; j < ny; j++)
                for (int64_t i = 0; i < nx; i++) {
                    const int64_t cell = (z + k) * g->pitch_z + (y + j) * g->pitch_y + x + i;
                    const int at = (int)(16 * k + 4 * j + i);
                    const double below = low_face(g, axis, cell), above = low_face(g, axis, cell + b * pitch[axis]);
                    strongest = larger(strongest, larger(below, above));
                    cells |= (uint64_t)(below > 0.0) << at | (uint64_t)(above > 0.0) << (at + (b - 1) * step[axis]);
                    if (b == 1) continue;
                    const double between = low_face(g, axis, cell + pitch[axis]);
                    strongest = larger(strongest, between);
                    cells |= (uint64_t)(between > 0.0) << at | (uint64_t)(between > 0.0) << (at + step[axis]);
                    where[count] = 4 * (at + step[axis]) + axis;
                    inner[count++] = between;
                }
    }
    if (!cells) return 1;
    for (int i = 0; i < count; i++)
        if (inner[i] > 0.0 && inner[i] >= g->weak * strongest) open[where[i] % 4] |= (uint64_t)1 << where[i] / 4;
    if (cells & ~flood(cells & -cells, open)) return 0;
    ++*living;
    return 1;
}

/* Whether packed faces along x and inside of blocks are never weak beside others. */
static int comparable(const walls_grid *g) {
    double least = INFINITY, most = 0.0;
    for (int axis = 0; axis < 3; axis++) {
        if (axis == 0 || g->block[axis] > 1) least = g->c[axis] < least ? g->c[axis] : least;
        most = larger(most, g->c[axis]);
    }
    return least > 0.0 && least >= g->weak * most;
}

/* The same as joined for packed faces of which none is weak, from the block's own cells: a block at the end of the
 * grid may be cut off. */
static int settled(const walls_grid *g, int64_t x, int64_t y, int64_t z, int64_t *living) {
    const uint8_t *p = g->cells + z * g->pitch_z + y * g->pitch_y + x;
    const int64_t bx = block_end(g, 0, x) - x, by = block_end(g, 1, y) - y, bz = block_end(g, 2, z) - z;
    uint32_t cells = 0, open[3] = {0, 0, 0}; /* bit i + 2 j + 4 k */
    for (int64_t k = 0; k < bz; k++)
        for (int64_t j = 0; j < by; j++)
            for (int64_t i = 0; i < bx; i++) {
                const uint32_t faces = p[k * g->pitch_z + j * g->pitch_y + i], at = (uint32_t)(i + 2 * j + 4 * k);
                cells |= (uint32_t)((faces & 63) != 0) << at;
                open[0] |= (faces & (i > 0)) << at;
                open[1] |= (faces >> 2 & (j > 0)) << at;
                open[2] |= (faces >> 4 & (k > 0)) << at;
            }
    if (!cells) return 1;
    for (uint32_t from = cells & -cells, to = 0;; from = to) {
        to = from | (from << 1 & open[0]) | (from & open[0]) >> 1;
        to |= (to << 2 & open[1]) | (to & open[1]) >> 2;
        to |= (to << 4 & open[2]) | (to & open[2]) >> 4;
        if (!(cells & ~to)) break;
        if (to == from) return 0;
    }
    ++*living;
    return 1;
}

/* Whether `cells` cells from x on, in all lines of a block, have no packed faces: nothing lives there. */
static int vacant(const walls_grid *g, int64_t x, int64_t y, int64_t z, int64_t cells) {
    uint8_t any = 0;
    for (int64_t k = 0; k < g->block[2]; k++)
        for (int64_t j = 0; j < g->block[1]; j++) {
            const uint8_t *p = g->cells + (z + k) * g->pitch_z + (y + j) * g->pitch_y + x;
            for (int64_t i = 0; i < cells; i++) any |= p[i];
        }
    return !(any & 63);
}

/* The same as even, for packed faces of which none is weak: whether the cells have all faces that they need. */
static int even_packed(const walls_grid *g, int64_t x, int64_t y, int64_t z, int64_t cells) {
    uint8_t all = 0xFF;
    for (int64_t k = 0; k < g->block[2]; k++)
        for (int64_t j = 0; j < g->block[1]; j++) {
            const uint8_t *p = g->cells + (z + k) * g->pitch_z + (y + j) * g->pitch_y + x;
            /* all have a low x face but the first, and the low faces that lie between the cells of a block */
            const uint8_t needed = (uint8_t)(1 | (j ? 4 : 0) | (k ? 16 : 0)), rest = (uint8_t)~needed;
            uint8_t have = (uint8_t)(p[0] | 1 | rest);
            for (int64_t i = 1; i < cells; i++) have &= (uint8_t)(p[i] | rest);
            all &= have;
        }
    return all == 0xFF;
}

/* Whether the blocks from x on, ``cells`` cells in all, have no weak face inside or between them: a few streams. */
static int even(const walls_grid *g, int64_t x, int64_t y, int64_t z, int64_t cells) {
    double weakest = INFINITY, strongest = 0.0;
    for (int axis = 0; axis < 3; axis++) {
        const int64_t ny = g->block[1] + (axis == 1), nz = g->block[2] + (axis == 2);
        for (int64_t k = 0; k < nz; k++)
            for (int64_t j = 0; j < ny; j++) {
                const double *w = g->face[axis] + (z + k) * g->pitch_z + (y + j) * g->pitch_y + x;
                const int64_t at = axis == 1 ? j : k, last = axis == 1 ? ny - 1 : nz - 1;
                const int inside = axis == 0 || (at > 0 && at < last);
                double low = INFINITY, high = 0.0;
#pragma omp simd reduction(min : low) reduction(max : high)
                for (int64_t i = axis == 0; i < cells; i++) {
                    low = w[i] < low ? w[i] : low;
                    high = w[i] > high ? w[i] : high;
                }
                if (axis == 0) high = larger(high, larger(w[0], w[cells]));
                strongest = larger(strongest, high);
                if (inside && low < weakest) weakest = low;
            }
    }
    return weakest > 0.0 && weakest < INFINITY && weakest >= g->weak * strongest;
}

typedef struct {
    walls_grid g;
    int64_t living, torn, pieces, next; /* of the lines of blocks; the next one to work on */
} tearing;

/* Pieces for each thread: a surface takes many times what all else does, and may be in few of them. */
enum { PIECES = 8 };

/* Adds the living and the torn coarse cells of one line of blocks. */
static void look_along(const walls_grid *g, int64_t line, int64_t *living, int64_t *torn) {
    const int64_t bx = g->block[0], by = g->block[1], bz = g->block[2];
    const int64_t mx = (g->n[0] + bx - 1) / bx, my = (g->n[1] + by - 1) / by;
    const int alike = g->cells && comparable(g);
    const int64_t z = 1 + bz * (line / my), y = 1 + by * (line % my);
    /* a last block that is cut off reaches beyond the halo */
    const int cut = y + by > g->n[1] + 1 || z + bz > g->n[2] + 1;
    int (*const test)(const walls_grid *, int64_t, int64_t, int64_t, int64_t) = g->cells ? even_packed : even;
    for (int64_t first = 0; first < mx; first += SEGMENT) {
        const int64_t last = first + SEGMENT < mx ? first + SEGMENT : mx;
        const int64_t whole = g->n[0] / bx, uncut = cut ? first : last < whole ? last : whole;
        if (uncut == last && (alike || !g->cells) && test(g, 1 + bx * first, y, z, bx * (last - first))) {
            *living += last - first;
            continue;
        }
        if (g->cells && vacant(g, 1 + bx * first, y, z, bx * (last - first))) continue;
        for (int64_t i = first; i < last; i++) {
            if (alike && settled(g, 1 + bx * i, y, z, living)) continue;
            if (i < uncut && joined(g, 1 + bx * i, y, z, living)) continue;
            if (i >= uncut && dead(g, 1 + bx * i, y, z)) continue;
            const int state = look(g, 1 + bx * i, y, z);
            *living += state > 0;
            *torn += state == 2;
        }
    }
}

/* Pieces of the lines as long as there are any. */
static void torn_part(void *arguments, int part) {
    tearing *all = arguments;
    const walls_grid *g = &all->g;
    const int64_t lines = (g->n[1] + g->block[1] - 1) / g->block[1] * ((g->n[2] + g->block[2] - 1) / g->block[2]);
    (void)part;
    for (int64_t q; (q = __atomic_fetch_add(&all->next, 1, __ATOMIC_RELAXED)) < all->pieces;) {
        int64_t living = 0, torn = 0;
        for (int64_t line = lines * q / all->pieces; line < lines * (q + 1) / all->pieces; line++) {
            look_along(g, line, &living, &torn);
            if (torn) __atomic_fetch_add(&all->torn, torn, __ATOMIC_RELAXED), torn = 0;
            if (__atomic_load_n(&all->torn, __ATOMIC_RELAXED) > g->enough) return;
        }
        __atomic_fetch_add(&all->living, living, __ATOMIC_RELAXED);
    }
}

/* Counts of living and of torn coarse cells, neither of them all if more than enough are torn. */
void dcdm_walls_torn(const walls_grid *g, int threads, int64_t counts[2]) {
    tearing all = {.g = *g, .pieces = threads > 1 ? PIECES * threads : 1};
    dcdm_run(torn_part, &all, sizeof all, threads);
    counts[0] = all.living, counts[1] = all.torn;
}
