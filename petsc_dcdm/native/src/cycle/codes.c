/* Stencils of few values as the outer loop reads them: two bytes a cell in place of 32 (operator.h). */
#include "apply.h"
#include "shared/node_team.h"

static const uint64_t NONE = UINT64_MAX; /* of a place that has no value yet: a NaN */

typedef struct {
    dcdm_level l;
    dcdm_operator a;
    uint16_t *codes;
    uint64_t value[3][FEW], extra[FEW_EXTRA]; /* bits of doubles, 0 first */
    int many, parts;
} coding;

/* The place of a value among `size`, where it may have been put just now; -1 where all of them are others. Parts put
 * values side by side: what a place has once it keeps. */
static NOINLINE int64_t place_of_value(uint64_t *values, int64_t size, double value) {
    uint64_t bits;
    value += 0.0; /* not -0 */
    memcpy(&bits, &value, sizeof bits);
    if (bits == NONE) return -1;
    for (int64_t place = 0; place < size; place++) {
        uint64_t there = __atomic_load_n(values + place, __ATOMIC_RELAXED);
        if (there == NONE &&
            __atomic_compare_exchange_n(values + place, &there, bits, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return place;
        if (there == bits) return place;
    }
    return -1;
}

/* Codes of VD numbers, of which the lanes of *missing are among no values yet. */
INLINE vl codes_of(const double *values, const double *w, vl *missing) {
    const vd here = load_double(w);
    vl code = {0}, known = here == 0.0;
    for (int64_t place = 1; place < FEW; place++) {
        const vl same = here == values[place];
        known |= same;
        code |= same & place;
    }
    *missing |= ~known;
    return code;
}

/* As they are now; none is of the numbers that a place without one has. */
INLINE void known_values(uint64_t values[FEW], double known[FEW]) {
    for (int64_t place = 0; place < FEW; place++) {
        const uint64_t bits = __atomic_load_n(values + place, __ATOMIC_RELAXED);
        memcpy(known + place, &bits, sizeof bits);
    }
}

INLINE int any(vl v) {
    int64_t all = 0;
    for (int t = 0; t < VD; t++) all |= v[t];
    return all != 0;
}

/* A row of n low faces along an axis, added to codes; 0 where they have too many values. */
static int code_faces(uint64_t values[FEW], const double *w, int64_t n, int shift, uint16_t *codes) {
    typedef uint16_t short_codes __attribute__((vector_size(2 * VD)));
    double known[FEW];
    int64_t i = 0;
    vl missing = {0};
    known_values(values, known);
    for (; i + VD <= n; i += VD) {
        const vl code = codes_of(known, w + i, &missing) << shift;
        short_codes some;
        memcpy(&some, codes + i, sizeof some);
        some |= __builtin_convertvector(code, short_codes);
        memcpy(codes + i, &some, sizeof some);
    }
    if (any(missing)) {
        const uint16_t mask = (uint16_t)~((FEW - 1) << shift);
        for (int64_t e = 0; e < i; e++) codes[e] &= mask;
        i = 0;
    }
    for (; i < n; i++) {
        const int64_t place = place_of_value(values, FEW, w[i]);
        if (place < 0) return 0;
        codes[i] |= (uint16_t)(place << shift);
    }
    return 1;
}

/* A row of n cells with their s, to codes. */
static int code_extra(uint64_t *values, const double *s, int64_t n, uint16_t *codes) {
    for (int64_t i = 0; i < n; i++) {
        const int64_t place = s[i] == 0.0 ? 0 : place_of_value(values, FEW_EXTRA, s[i]);
        if (place < 0) return 0;
        codes[i] = (uint16_t)(place << 3 * CODE_BITS);
    }
    return 1;
}

/* One cell more than the box has along each axis: its low face is the high one of the last cell. */
static void codes_part(void *arguments, int part) {
    coding *c = arguments;
    const dcdm_operator *a = &c->a;
    const int64_t n_r = c->l.n_r + c->l.has_r, n_x = c->l.n_x;
    FOR_PART(row, (c->l.n_w + 1) * n_r, part, c->parts) {
        if (__atomic_load_n(&c->many, __ATOMIC_RELAXED)) return;
        const int64_t k = row / n_r, j = row % n_r, o = a->origin + k * a->pitch_w + j * a->pitch_r;
        uint16_t *const codes = c->codes + o;
        int few = 1;
        codes[n_x] = 0;
        if (k < c->l.n_w && j < c->l.n_r) {
            few = code_extra(c->extra, a->s + o, n_x, codes);
            few = few && code_faces(c->value[0], a->w_x + o, n_x + 1, 0, codes);
        } else memset(codes, 0, (size_t)n_x * sizeof *codes);
        if (c->l.has_r && k < c->l.n_w) few = few && code_faces(c->value[1], a->w_r + o, n_x, CODE_BITS, codes);
        if (j < c->l.n_r) few = few && code_faces(c->value[2], a->w_w + o, n_x, 2 * CODE_BITS, codes);
        if (!few) __atomic_store_n(&c->many, 1, __ATOMIC_RELAXED);
    }
}

INLINE void values_of(const uint64_t *bits, int64_t n, double *values) {
    for (int64_t i = 0; i < n; i++) {
        memcpy(values + i, bits + i, sizeof *values);
        if (bits[i] == NONE) values[i] = 0.0;
    }
}

/* Codes of the cells of an operator of arrays, which lie as those, and their values: a->few and s_value[FEW_EXTRA].
 * Returns whether there are few enough. Not where coding is no faster than what it saves of memory: that takes
 * instructions that find numbers in a register. */
int dcdm_codes(const dcdm_level *l, dcdm_operator *a, uint16_t *codes, double *s_value, int threads) {
#if !defined(__AVX512F__)
    return 0;
#endif
    coding c = {.l = *l, .a = *a, .codes = codes, .parts = threads};
    memset(c.value, 0xFF, sizeof c.value);
    memset(c.extra, 0xFF, sizeof c.extra);
    for (int axis = 0; axis < 3; axis++) c.value[axis][0] = 0;
    c.extra[0] = 0;
    dcdm_run(codes_part, &c, sizeof c, threads);
    if (c.many) return 0;
    for (int axis = 0; axis < 3; axis++) values_of(c.value[axis], FEW, a->few[axis]);
    values_of(c.extra, FEW_EXTRA, s_value);
    a->codes = codes, a->s_value = s_value;
    return 1;
}
