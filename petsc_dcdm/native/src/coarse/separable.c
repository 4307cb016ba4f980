/* Products of a full array with small matrices along its axes, and factors that are products of one number per axis:
 * what fast diagonalisation is made of (petsc_dcdm/backends/cpu/separable.py). */
#include "common.h"
#include "shared/node_team.h"

/* Vectors and rows that are worked on together, whose sums stay in registers; columns that are copied together, a
 * multiple of those vectors (known to separable.py); rows that share such a copy where they are along the array. */
#if defined(__AVX512F__)
enum { WIDE = 4 };
#else
enum { WIDE = 2 };
#endif
enum { PANEL = 64, ROWS = 4, CHUNK = 64 };

/* With less, gcc copies every sum from register to register. */
#if defined(__GNUC__) && !defined(__clang__)
#define IN_REGISTERS __attribute__((optimize("O2")))
#else
#define IN_REGISTERS
#endif

/* c[i][p] = sum over k of a[i][k] b[k][p] for `rows` rows, at most ROWS, and `columns` columns of a panel. */
IN_REGISTERS static void multiply(const float *a, int64_t pitch_a, int64_t rows, const float *b, int64_t n, float *c,
                     int64_t pitch_c, int64_t columns) {
    const float *row[ROWS];
    float out[ROWS][PANEL];
    for (int64_t i = 0; i < ROWS; i++) row[i] = a + (i < rows ? i : rows - 1) * pitch_a;
    for (int64_t p = 0; p < columns; p += WIDE * VL) {
        vf sum[ROWS][WIDE] = {{{0}}};
        for (int64_t k = 0; k < n; k++) {
            vf v[WIDE];
#pragma GCC unroll 4
            for (int64_t j = 0; j < WIDE; j++) v[j] = load(b + k * PANEL + p + j * VL);
#pragma GCC unroll 4
            for (int64_t i = 0; i < ROWS; i++) {
                const vf factor = splat(row[i][k]);
#pragma GCC unroll 4
                for (int64_t j = 0; j < WIDE; j++) sum[i][j] = add_product(sum[i][j], factor, v[j]);
            }
        }
#pragma GCC unroll 4
        for (int64_t i = 0; i < ROWS; i++)
#pragma GCC unroll 4
            for (int64_t j = 0; j < WIDE; j++) store(out[i] + p + j * VL, sum[i][j]);
    }
    for (int64_t i = 0; i < rows; i++) memcpy(c + i * pitch_c, out[i], (size_t)columns * sizeof *c);
}

/* room[k][0 .. PANEL) from the same columns of from[k], 0 beyond the last. */
static void pack(const float *from, int64_t pitch, int64_t n, int64_t columns, float *room) {
    for (int64_t k = 0; k < n; k++) {
        memcpy(room + k * PANEL, from + k * pitch, (size_t)columns * sizeof *room);
        memset(room + k * PANEL + columns, 0, (size_t)(PANEL - columns) * sizeof *room);
    }
}

typedef struct {
    const float *from, *matrix, *transposed;
    float *to, *room;
    int64_t outer, n, inner, panels, tasks;
    int parts;
} turning;

static void turn_part(void *arguments, int part) {
    const turning *w = arguments;
    const int64_t n = w->n, inner = w->inner;
    const float *const from = w->from;
    float *const to = w->to, *const own = w->room + part * n * PANEL;
    FOR_PART(t, w->tasks, part, w->parts) {
        if (inner > 1) {
            const int64_t p = t % w->panels * PANEL, columns = least(PANEL, inner - p);
            const int64_t at = t / w->panels * n * inner + p;
            pack(from + at, inner, n, columns, own);
            for (int64_t m = 0; m < n; m += ROWS)
                multiply(w->transposed + m * n, n, least(ROWS, n - m), own, n, to + at + m * inner, inner, columns);
            continue;
        }
        const int64_t begin = t * CHUNK, end = least(w->outer, begin + CHUNK);
        for (int64_t p = 0; p < n; p += PANEL) {
            const int64_t columns = least(PANEL, n - p);
            pack(w->matrix + p, n, n, columns, own);
            for (int64_t o = begin; o < end; o += ROWS)
                multiply(from + o * n, n, least(ROWS, end - o), own, n, to + o * n + p, n, columns);
        }
    }
}

/* to[o][m][p] = sum over k of matrix[k][m] from[o][k][p]; arrays are [outer][n][inner], the matrix [n][n] and
 * `transposed` the same with k and m exchanged. room: [threads][n][PANEL]. */
void dcdm_separable_turn(const float *from, float *to, int64_t outer, int64_t n, int64_t inner, const float *matrix,
                         const float *transposed, float *room, int threads) {
    const int64_t panels = ((inner > 1 ? inner : n) + PANEL - 1) / PANEL;
    const int64_t tasks = inner > 1 ? outer * panels : (outer + CHUNK - 1) / CHUNK;
    turning w = {from, matrix, transposed, to, room, outer, n, inner, panels, tasks, threads};
    dcdm_run(turn_part, &w, sizeof w, threads);
}

/* Numbers along each axis, and the array that they are for. */
typedef struct {
    const float *from, *z, *y, *x;
    float *to;
    int64_t n[3];
    int parts;
} by_axis;

static void scale_part(void *arguments, int part) {
    const by_axis *w = arguments;
    const int64_t *const n = w->n;
    FOR_PART(row, n[0] * n[1], part, w->parts) {
        const float factor = w->z[row / n[1]] * w->y[row % n[1]], *restrict r = w->from + row * n[2];
        float *restrict out = w->to + row * n[2];
        for (int64_t i = 0; i < n[2]; i++) out[i] = r[i] * factor * w->x[i];
    }
}

/* to[k][j][i] = from[k][j][i] z[k] y[j] x[i] */
void dcdm_separable_scale(const float *from, float *to, const int64_t *n, const float *z, const float *y,
                          const float *x, int threads) {
    by_axis w = {from, z, y, x, to, {n[0], n[1], n[2]}, threads};
    dcdm_run(scale_part, &w, sizeof w, threads);
}

static void divide_part(void *arguments, int part) {
    const by_axis *w = arguments;
    const int64_t *const n = w->n;
    FOR_PART(row, n[0] * n[1], part, w->parts) {
        const float sum = w->z[row / n[1]] + w->y[row % n[1]];
        float *restrict out = w->to + row * n[2];
        for (int64_t i = 0; i < n[2]; i++) {
            const float by = sum + w->x[i];
            out[i] = by > 0 ? out[i] / by : 0;
        }
    }
}

/* array[k][j][i] /= z[k] + y[j] + x[i]; 0 where that is 0. */
void dcdm_separable_divide(float *array, const int64_t *n, const float *z, const float *y, const float *x,
                           int threads) {
    by_axis w = {array, z, y, x, array, {n[0], n[1], n[2]}, threads};
    dcdm_run(divide_part, &w, sizeof w, threads);
}
