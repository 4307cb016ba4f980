/* The matrix times what lies around VD cells, in double. */
#ifndef DCDM_APPLY_H
#define DCDM_APPLY_H

#include "common.h"
#include "operator.h"
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

enum { VD = VL / 2 };
typedef double vd __attribute__((vector_size(8 * VD)));
typedef int64_t vl __attribute__((vector_size(8 * VD)));
typedef float vs __attribute__((vector_size(4 * VD)));

static const uint64_t INNER = 0x0000FFFFFFFFFFFF; /* all faces of all 8 cells, no s */

/* Row j of a plane, the rows beside it and those of the planes below and above. */
typedef struct {
    const float *c, *r0, *r1, *w0, *w1;
} rows;
typedef struct {
    const double *c, *r0, *r1, *w0, *w1;
} double_rows;

INLINE vd widen(const float *p) {
#if defined(__AVX512F__)
    return (vd)_mm512_cvtps_pd(_mm256_loadu_ps(p)); /* compilers make two conversions of halves of it */
#else
    vs v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, vd);
#endif
}

INLINE vd load_double(const double *p) {
    vd v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* The first n of VD; n is VD but at the end of a row. */
INLINE vd load_some(const double *p, int64_t n) {
    if (n == VD) return load_double(p);
    vd v = {0};
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
}

INLINE void store_some(double *p, vd v, int64_t n) {
    if (n == VD) memcpy(p, &v, sizeof v);
    else memcpy(p, &v, (size_t)n * sizeof *p);
}

/* Lanes of the VD cells from cell `shift` of a word that have face f. */
INLINE vl face_mask(uint64_t word, int f, int shift) {
    static const int64_t lane[BLOCK] = {1, 2, 4, 8, 16, 32, 64, 128};
    vl lanes;
    memcpy(&lanes, lane, sizeof lanes);
    return (((int64_t)(word >> (8 * f + shift)) - (vl){0}) & lanes) != 0;
}

INLINE vd only(vd v, vl mask) { return (vd)((vl)v & mask); }

/* The codes of n cells, 0 in the lanes after them. */
INLINE vl load_codes(const uint16_t *p, int64_t n) {
    typedef uint16_t codes __attribute__((vector_size(2 * VD)));
    codes c = {0};
    if (n == VD) memcpy(&c, p, sizeof c);
    else memcpy(&c, p, (size_t)n * sizeof *p);
#if defined(__AVX512F__)
    return (vl)_mm512_cvtepu16_epi64((__m128i)c); /* compilers take one lane after the other */
#else
    return __builtin_convertvector(c, vl);
#endif
}

/* Whether any of n cells has an s. */
INLINE int any_extra(const uint16_t *p, int64_t n) {
    uint64_t words[2] = {0, 0};
    memcpy(words, p, (size_t)n * sizeof *p);
    const uint64_t bits = ((uint64_t)UINT16_MAX << 3 * CODE_BITS & UINT16_MAX) * 0x0001000100010001;
    return ((words[0] | words[1]) & bits) != 0;
}

static NOINLINE vd extra_of(const dcdm_operator *a, vl code) {
    double s[VD];
    for (int t = 0; t < VD; t++) s[t] = a->s_value[code[t] >> 3 * CODE_BITS];
    return load_double(s);
}

/* Those of FEW values that the lowest bits tell. */
INLINE vd one_of(const double *few, vl code) {
#if defined(__AVX512F__)
    return (vd)_mm512_permutexvar_pd((__m512i)code, _mm512_loadu_pd(few));
#else
    double v[VD];
    for (int t = 0; t < VD; t++) v[t] = few[code[t] & (FEW - 1)];
    return load_double(v);
#endif
}

/* A d at n cells from cell i of row (k, j), 0 in the lanes after them: d there, and the
 * differences to its neighbours. `coded`: whether there are codes, a constant. */
INLINE vd apply_to(const dcdm_operator *a, int coded, const dcdm_level *l, int64_t k, int64_t j, int64_t i, int64_t n,
                   vd x, vd x0, vd x1, vd r0, vd r1, vd w0, vd w1) {
    const int64_t o = a->origin + k * a->pitch_w + j * a->pitch_r + i;
    if (coded) {
        const uint16_t *here = a->codes + o;
        const vl code = load_codes(here, n);
        vd y = {0};
        if (any_extra(here, n)) y = extra_of(a, code) * x;
        y += one_of(a->few[0], code) * x0 + one_of(a->few[0], load_codes(here + 1, n)) * x1;
        if (l->has_r) {
            const vl next = load_codes(here + a->pitch_r, n) >> CODE_BITS;
            y += one_of(a->few[1], code >> CODE_BITS) * r0 + one_of(a->few[1], next) * r1;
        }
        const vl next = load_codes(here + a->pitch_w, n) >> 2 * CODE_BITS;
        y += one_of(a->few[2], code >> 2 * CODE_BITS) * w0 + one_of(a->few[2], next) * w1;
        return y * a->factor;
    }
    if (!a->packed) {
        vd y = load_some(a->s + o, n) * x;
        y += load_some(a->w_x + o, n) * x0 + load_some(a->w_x + o + 1, n) * x1;
        if (l->has_r) y += load_some(a->w_r + o, n) * r0 + load_some(a->w_r + o + a->pitch_r, n) * r1;
        y += load_some(a->w_w + o, n) * w0 + load_some(a->w_w + o + a->pitch_w, n) * w1;
        return y * a->factor;
    }
    const int64_t blocks = (l->n_x + BLOCK - 1) / BLOCK, row = k * l->n_r + j;
    const uint64_t word = a->words[row * blocks + i / BLOCK];
    if (word == INNER) return (a->c[0] * (x0 + x1) + a->c[1] * (r0 + r1) + a->c[2] * (w0 + w1)) * a->factor;
    const int shift = (int)(i % BLOCK);
    vd y = a->c[0] * (only(x0, face_mask(word, 0, shift)) + only(x1, face_mask(word, 1, shift)));
    y += a->c[1] * (only(r0, face_mask(word, 2, shift)) + only(r1, face_mask(word, 3, shift)));
    y += a->c[2] * (only(w0, face_mask(word, 4, shift)) + only(w1, face_mask(word, 5, shift)));
    if (word >> 48) {
        const uint8_t *index = a->s_index + a->s_origin + k * a->s_pitch_w + j * a->s_pitch_r + i;
        double s[VD];
        for (int t = 0; t < VD; t++) s[t] = t < n ? a->s_value[index[t]] : 0;
        y += load_double(s) * x;
    }
    return y * a->factor;
}

#define APPLY(name, rows, value)                                                                                     \
    INLINE vd name(const dcdm_operator *a, int coded, const dcdm_level *l, const rows *d, int64_t k, int64_t j,      \
                   int64_t i, int64_t n) {                                                                           \
        const vd x = value(d->c + i);                                                                                \
        return apply_to(a, coded, l, k, j, i, n, x, x - value(d->c + i - 1), x - value(d->c + i + 1),                \
                        x - value(d->r0 + i), x - value(d->r1 + i), x - value(d->w0 + i), x - value(d->w1 + i));     \
    }
APPLY(apply_float, rows, widen)
APPLY(apply_double, double_rows, load_double)

/* Row j of three planes. Where there is no r axis its differences are zero. */
#define ROWS_AT(name, rows, type)                                                                                     \
    INLINE rows name(const dcdm_level *l, const type *c, const type *w0, const type *w1, int64_t j) {                 \
        const int64_t o = j * l->pitch_r;                                                                             \
        if (!l->has_r) return (rows){c + o, c + o, c + o, w0 + o, w1 + o};                                            \
        return (rows){c + o, c + o + row_below(l, j), c + o + row_above(l, j), w0 + o, w1 + o};                       \
    }
ROWS_AT(rows_at, rows, float)
ROWS_AT(double_rows_at, double_rows, double)

#endif
