/* The part of a grid outside of which there is nothing. */
#include <stdint.h>
#include <string.h>

#include "common.h"
#include "shared/node_team.h"

/* Whether any of the n numbers from element o on is not zero; NaN counts. */
INLINE int any(const void *p, int64_t o, int64_t n, int is_double) {
    const int64_t words = is_double ? 2 : 1;
    const uint32_t *from = (const uint32_t *)p + words * o;
    uint32_t bits = 0;
    for (int64_t i = 0; i < words * n; i++) {
        uint32_t b;
        memcpy(&b, from + i, sizeof b);
        bits |= b;
    }
    return bits != 0;
}

typedef struct {
    const void *array[4];
    int is_double, parts;
    int64_t n_z, n_y, n_x, pitch_z, pitch_y, *found;
} search;

static void bounds_part(void *arguments, int part) {
    const search *s = arguments;
    const int is_double = s->is_double;
    const int64_t n_x = s->n_x;
    /* written to memory once: it is near the other threads' */
    int64_t box[6] = {INT64_MAX, INT64_MAX, INT64_MAX, 0, 0, 0};
    for (int64_t k = first_of(s->n_z, part, s->parts); k < first_of(s->n_z, part + 1, s->parts); k++)
        for (int64_t j = 0; j < s->n_y; j++) {
            const int64_t o = k * s->pitch_z + j * s->pitch_y;
            int some = 0;
            for (int a = 0; a < 4; a++) some |= any(s->array[a], o, n_x, is_double);
            if (!some) continue;
            box[0] = k < box[0] ? k : box[0], box[3] = k + 1;
            box[1] = j < box[1] ? j : box[1], box[4] = j + 1 > box[4] ? j + 1 : box[4];
            for (int a = 0; a < 4; a++) {
                while (any(s->array[a], o, box[2] < n_x ? box[2] : n_x, is_double))
                    for (int64_t i = 0; i < n_x && i < box[2]; i++)
                        if (any(s->array[a], o + i, 1, is_double)) box[2] = i;
                while (box[5] < n_x && any(s->array[a], o + box[5], n_x - box[5], is_double)) box[5]++;
            }
        }
    memcpy(s->found + 6 * part, box, sizeof box);
}

/* Where the arrays w_x, w_y, w_z, s are not zero: found[thread] = first z, y, x, then one past the last. */
void dcdm_bounds(const void *w_x, const void *w_y, const void *w_z, const void *s, int is_double, int64_t n_z,
                 int64_t n_y, int64_t n_x, int64_t pitch_z, int64_t pitch_y, int64_t *found, int threads) {
    search all = {{w_x, w_y, w_z, s}, is_double, threads, n_z, n_y, n_x, pitch_z, pitch_y, found};
    dcdm_run(bounds_part, &all, sizeof all, threads);
}
