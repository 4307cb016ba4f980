/* Both sides of the faces of a packed stencil, compared, and its numbers of values, changed; see packed.h. */
#include <string.h>

#include "packed.h"
#include "shared/node_team.h"

typedef struct {
    const uint8_t *cells;
    int64_t n_x, n_y, n_z, found;
    int parts;
} comparison;

static void compare_part(void *arguments, int part) {
    comparison *all = arguments;
    const uint8_t *cells = all->cells;
    const int64_t n_x = all->n_x, n_y = all->n_y, lines = n_y * all->n_z;
    const int64_t pitch_y = n_x + 2, pitch_z = pitch_y * (n_y + 2);
    int64_t found = INT64_MAX;
    for (int64_t line = first_of(lines, part, all->parts); line < first_of(lines, part + 1, all->parts); line++) {
        const int64_t o = (1 + line / n_y) * pitch_z + (1 + line % n_y) * pitch_y + 1;
        const uint8_t *restrict c = cells + o, *restrict y = c + pitch_y, *restrict z = c + pitch_z;
        uint8_t odd = 0;
        for (int64_t i = 0; i < n_x; i++)
            odd |= (uint8_t)(((c[i] >> 1 ^ c[i + 1]) & 1) | ((c[i] >> 1 ^ y[i]) & 4) | ((c[i] >> 1 ^ z[i]) & 16));
        for (int64_t i = 0; i < n_x && odd && found == INT64_MAX; i++)
            if (((c[i] >> 1 ^ c[i + 1]) & 1) | ((c[i] >> 1 ^ y[i]) & 4) | ((c[i] >> 1 ^ z[i]) & 16)) found = o + i;
    }
    int64_t least = __atomic_load_n(&all->found, __ATOMIC_RELAXED);
    while (found < least &&
           !__atomic_compare_exchange_n(&all->found, &least, found, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
}

/* Where (padded element of a cell) a face conducts for the cell below it and not for the one above, or the other way
 * round; -1 if nowhere. cells: padded, halos filled. */
int64_t dcdm_packed_asymmetry(const uint8_t *cells, int64_t n_x, int64_t n_y, int64_t n_z, int threads) {
    const int parts = n_x * n_y * n_z < 1 << 17 ? 1 : threads; /* a few are compared before another thread has come */
    comparison all = {cells, n_x, n_y, n_z, INT64_MAX, parts};
    dcdm_run(compare_part, &all, sizeof all, parts);
    return all.found == INT64_MAX ? -1 : all.found;
}

enum { BLOCK = 32, FEW = 8 };
typedef uint8_t numbers __attribute__((vector_size(BLOCK)));
typedef uint8_t near_numbers __attribute__((vector_size(BLOCK), aligned(1), may_alias));

/* The largest number that the table has another one for. */
static int last_of(const uint8_t *table) {
    int last = 255;
    while (last && !table[last]) last--;
    return last;
}

/* What `table` has for the numbers 0 .. last, 0 for 0, in the place of n bytes; where these are few, for a block at
 * once. */
static void renumber(uint8_t *at, int64_t n, const uint8_t *table, int last) {
    int64_t i = 0;
    for (; last <= FEW && i + BLOCK <= n; i += BLOCK) {
        const numbers old = *(near_numbers *)(at + i);
        numbers found = {0};
        for (int v = 1; v <= last; v++) found |= (numbers)(old == (uint8_t)v) & table[v];
        *(near_numbers *)(at + i) = found;
    }
    for (uint64_t eight; i + (int64_t)sizeof eight <= n; i += sizeof eight) {
        memcpy(&eight, at + i, sizeof eight);
        for (int t = 0; eight && t < (int)sizeof eight; t++) at[i + t] = table[at[i + t]];
    }
    for (; i < n; i++) at[i] = table[at[i]];
}

/* What `table`, which has 0 for 0, has for them in the place of n bytes. */
void dcdm_renumber(uint8_t *at, int64_t n, const uint8_t *table) { renumber(at, n, table, last_of(table)); }

/* The same in n_z planes of n_y lines of n_x bytes, the first of them at `first`. */
void dcdm_renumber_box(uint8_t *first, int64_t n_x, int64_t n_y, int64_t n_z, int64_t pitch_y, int64_t pitch_z,
                       const uint8_t *table) {
    const int last = last_of(table);
    for (int64_t line = 0; line < n_y * n_z; line++)
        renumber(first + line / n_y * pitch_z + line % n_y * pitch_y, n_x, table, last);
}

/* The same at the cells of rows only, in a padded array of n_x n_y ... cells: those of `cell`, or from `first` on. */
void dcdm_renumber_rows(uint8_t *padded, int64_t n_x, int64_t n_y, int64_t rows, const int64_t *cell, int64_t first,
                        const uint8_t *table) {
    const int last = last_of(table);
    for (int64_t r = 0, count; r < rows; r += count) {
        const int64_t c = cell ? cell[r] : first + r, line = c / n_x, x = c % n_x;
        const int64_t most = rows - r < n_x - x ? rows - r : n_x - x;
        for (count = 1; count < most && (!cell || cell[r + count] == c + count); count++) {}
        renumber(padded + ((line / n_y + 1) * (n_y + 2) + line % n_y + 1) * (n_x + 2) + x + 1, count, table, last);
    }
}
