/* Shared by the kernels of the cycle: vectors, coefficient formats, and the level they all work on.
 *
 * Axes by role: the kernels sweep along w (planes), within a plane along r (rows), and vectorise along x. In 3D w is z
 * and r is y; on a grid one cell thick in z, w is y and there is no r. Every array of a level has the same layout: a
 * halo of one cell, rows at a pitch that is a multiple of the vector length, the first cell of each row aligned. The
 * left halo cell of a row is the last element of the row before. Along x the kernels work in whole vectors: what they
 * write beyond the end of a row falls into its padding.
 */
#ifndef DCDM_COMMON_H
#define DCDM_COMMON_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "compiler.h"

/* Coefficients are bfloat16, or in a library that is compiled with HALF = 0 float. One of them only: a cold start
 * waits for the compiler. */
#ifndef HALF
#define HALF 1
#endif

/* Rows are padded to multiples of this; any vector length below divides it. Known to petsc_dcdm/native/binding.py. */
enum { ALIGN = 16, MAX_STEPS = 8 };

#if defined(__AVX512F__)
enum { VL = 16 };
#elif defined(__AVX__)
enum { VL = 8 };
#else
enum { VL = 4 };
#endif

typedef float vf __attribute__((vector_size(4 * VL)));
typedef int32_t vi __attribute__((vector_size(4 * VL)));
typedef uint32_t vu __attribute__((vector_size(4 * VL)));
typedef uint16_t vh __attribute__((vector_size(2 * VL)));

INLINE vf load(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void store(float *p, vf v) { memcpy(p, &v, sizeof v); }

INLINE vf splat(float a) { return a - (vf){0}; }

/* sum + a b, in one instruction where there is one: compilers find it only with more optimisation than we wait for. */
INLINE vf add_product(vf sum, vf a, vf b) {
#if defined(__FMA__)
    __asm__("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
#elif defined(__aarch64__)
    __asm__("fmla %0.4s, %1.4s, %2.4s" : "+w"(sum) : "w"(a), "w"(b));
#else
    sum += a * b;
#endif
    return sum;
}

/* v where mask, 0 elsewhere */
INLINE vf masked(vf v, vi mask) { return (vf)((vi)v & mask); }

/* bfloat16 has the range of float and a relative precision of 2^-9: enough for numbers that only precondition. */
INLINE vf load_half(const uint16_t *p) {
    vu u;
#if defined(__AVX2__)
    /* compilers make five instructions of this one */
    typedef uint16_t unaligned __attribute__((vector_size(2 * VL), aligned(2), may_alias));
    __asm__("vpmovzxwd %1, %0" : "=v"(u) : "m"(*(const unaligned *)p));
#else
    vh h;
    memcpy(&h, p, sizeof h);
    u = __builtin_convertvector(h, vu);
#endif
    return (vf)(u << 16);
}

INLINE void store_half(uint16_t *p, vf v) {
    vu u = (vu)v;
    u = (u + 0x7FFF + ((u >> 16) & 1)) >> 16; /* to nearest even */
    vh h = __builtin_convertvector(u, vh);
    memcpy(p, &h, sizeof h);
}

#if HALF
typedef uint16_t coef;
INLINE vf load_coef(const coef *p) { return load_half(p); }
INLINE void store_coef(coef *p, vf v) { store_half(p, v); }
#else
typedef float coef;
INLINE vf load_coef(const coef *p) { return load(p); }
INLINE void store_coef(coef *p, vf v) { store(p, v); }
#endif

/* Coefficients belong to blocks of ALIGN cells of a row. Blocks whose cells are alike in all of them name a class, 1
 * to 255, which holds each once. The others (class 0) are stored one behind the other, ALIGN numbers for each of the
 * fields below, high faces included: a pass reads them as a stream, and interior blocks cost it nothing. The omegas
 * have streams of their own. */
enum { X_LOW, X_HIGH, R_LOW, R_HIGH, W_LOW, W_HIGH, EXTRA, OMEGA, FIELDS = OMEGA + MAX_STEPS };

/* One level on this rank; mirrored by petsc_dcdm/native/binding.py. */
typedef struct {
    int64_t n_w, n_r, n_x;     /* cells: of this rank's box, and where other boxes adjoin some around it */
    int64_t pitch_w, pitch_r;  /* elements from plane to plane and row to row */
    int64_t origin;            /* element of cell (0, 0, 0) */
    int64_t full_w, full_r;    /* the same pitches of the unpadded double arrays the finest level works with */
    int64_t has_r;             /* the grid has an r axis */
    int64_t wrap_w, wrap_r, wrap_x; /* the first and the last cell, two or more here, are neighbours */
    int64_t half_w, half_r, half_x; /* coarsened on the way to the next level */
    const int32_t *place_w, *place_r, *place_x; /* of planes, rows, cells, see place_of; NULL where it is the number */
    int64_t stop_r, stop_x;    /* end of this rank's box */
    int64_t halo;              /* 1: cells of other ranks may adjoin, so that what lies one cell outside counts */
    int64_t steps;
    uint8_t *block_class;      /* [n_w][n_r][ceil(n_x / ALIGN)] */
    float *class_value;        /* [256][FIELDS], rounded as those in blocks are */
    int64_t *block_start;      /* [n_w][n_r]: which block is the first of the row that has no class */
    int64_t block_count;       /* blocks that fit into each of the streams: */
    void *blocks;              /* of coef, OMEGA fields of ALIGN numbers for each block */
    void *omegas;              /* of coef, [steps] streams of ALIGN numbers: over the diagonal, 0 at inactive cells */
    float *x, *y, *r;          /* iterate, result, right-hand side (of the finest level only if it has a halo) */
    const int32_t *range;      /* [n_w][n_r][2]: begin and end of the part with active cells, multiples of ALIGN */
    int64_t w_begin, w_end;    /* planes with active cells, even where w is coarsened */
    int64_t parts;             /* the planes of this rank's box are worked on in this many parts, one per thread */
    const int64_t *part;       /* [parts + 1] first planes; multiples of 2 where w is coarsened */
    int64_t strip;             /* rows that a leg works on at a time, a multiple of 2 unless it is all; 0: all */
} dcdm_level;

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* The plane that k is: itself, or where planes are a ring the one after as many rounds. */
INLINE int64_t plane_of(const dcdm_level *l, int64_t k) {
    if (!l->wrap_w) return k;
    while (k < 0) k += l->n_w;
    while (k >= l->n_w) k -= l->n_w;
    return k;
}

/* Plane, row or cell i is child number place & 1 of the coarse one place / 2, where the next level is coarser. Other
 * places than i have cells that came round a ring from other ranks if the last cell of the ring has no sibling: beyond
 * such a cell the next place is left out. */
INLINE int64_t place_of(const int32_t *places, int64_t i) { return places ? places[i] : i; }

/* From row j to the rows beside it. */
INLINE int64_t row_below(const dcdm_level *l, int64_t j) {
    return l->wrap_r && j == 0 ? (l->n_r - 1) * l->pitch_r : -l->pitch_r;
}

INLINE int64_t row_above(const dcdm_level *l, int64_t j) {
    return l->wrap_r && j == l->n_r - 1 ? (1 - l->n_r) * l->pitch_r : l->pitch_r;
}

/* What a row holds before its first and after its last cell, where they are neighbours. The whole blocks that the row
 * before was written in do not reach there: such rows lie further apart. */
#define WRAP_ROW(l, row)                                                         \
    do {                                                                         \
        if ((l)->wrap_x) (row)[-1] = (row)[(l)->n_x - 1], (row)[(l)->n_x] = (row)[0]; \
    } while (0)

/* Classes of the blocks of a row. */
INLINE uint8_t *classes_at(const dcdm_level *l, int64_t k, int64_t j) {
    return l->block_class + (k * l->n_r + j) * ((l->n_x + ALIGN - 1) / ALIGN);
}

#endif
