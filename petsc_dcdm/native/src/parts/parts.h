/* Levels whose blocks of cells hold several unknowns each, the parts that hang together; mirrored by
 * petsc_dcdm/backends/parts/levels.py.
 */
#ifndef DCDM_PARTS_H
#define DCDM_PARTS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* A level: (A x)_i = s_i x_i + sum over its row of value (x_i - x_j). Unknowns are numbered block by block; a
 * block of the finest level is a cell. */
typedef struct {
    int64_t n;           /* unknowns */
    int64_t blocks[3];   /* along x, y, z; x fastest */
    const int64_t *first; /* [blocks + 1] the first unknown of each block */
    int32_t *block;      /* [n] where each unknown is */
    int64_t *row;        /* [n + 1] */
    int32_t *column;     /* a row does not hold its own unknown */
    float *value;        /* couplings, positive */
    float *s;            /* [n] extra diagonal */
    int64_t halved[3];   /* on the way to the next level: blocks of 1 or of 2 along x, y, z, and */
    int64_t shift[3];    /* whether the first of them is half outside */
    int32_t *part;       /* [n] the unknown of the next level, -1 for none */
} parts_level;

/* Blocks [from, to) that block b of the next level, which has next[3] of them, is made of. */
static inline void parts_children(const parts_level *l, const int64_t next[3], int64_t b, int64_t from[3],
                                  int64_t to[3]) {
    const int64_t at[3] = {b % next[0], b / next[0] % next[1], b / (next[0] * next[1])};
    for (int a = 0; a < 3; a++) {
        from[a] = l->halved[a] ? 2 * at[a] - l->shift[a] : at[a];
        to[a] = from[a] + 1 + l->halved[a];
        if (from[a] < 0) from[a] = 0;
        if (to[a] > l->blocks[a]) to[a] = l->blocks[a];
    }
}

/* A coupling between two parts in series with half of the ways within them (one over couplings, added up): half of it
 * in a uniform medium, where distances double, all of it where nothing is in the way, as beside a part that does not
 * reach along the axis or between stiff bodies. No less than half: a part is one number. */
static inline float parts_in_series(float coupling, float ways) {
    const float share = 1.0f / (1.0f + 0.5f * coupling * ways);
    return coupling * (share > 0.5f ? share : 0.5f);
}

/* Shares along / most in bins of a quarter of a power of two, the last for none; and the one that a quarter of the
 * unknowns see or a larger one: where the strong axis turns from place to place the median sees one of them only. */
enum { PARTS_BINS = 128 };

static inline void parts_count_share(int64_t *bins, float along, float most) {
    const int bin = along > 0.0f ? (int)(4.0f * log2f(most / along)) : PARTS_BINS - 1;
    bins[bin < PARTS_BINS ? bin : PARTS_BINS - 1]++;
}

static inline double parts_share_seen(const int64_t *bins) {
    int64_t total = 0, below = 0;
    int b = 0;
    for (int i = 0; i < PARTS_BINS; i++) total += bins[i];
    while (b < PARTS_BINS - 1 && 4 * (below + bins[b]) < total) below += bins[b++];
    return total && b < PARTS_BINS - 1 ? exp2(-(b + 0.5) / 4.0) : 0.0;
}

/* Where the parts of a kernel have written the rows of a level: each those of its share of `lines` lines of `blocks`
 * blocks, one behind the other. The first part begins at 0; part t at room[its first unknown], or without room where
 * there is that of its first line. */
typedef struct {
    parts_level l;
    int64_t lines, blocks;
    const int64_t *room, *of_lines;
    int parts;
} written_rows;

/* All rows one behind the other, from how long they are, which is at row[i + 1]. */
void parts_join_rows(const written_rows *written);

/* All unknowns i of those blocks; `in` is the block of i. */
#define PARTS_FOR(l, from, to, i, in) \
    for (int64_t in##_z = from[2]; in##_z < to[2]; in##_z++) \
        for (int64_t in##_y = from[1]; in##_y < to[1]; in##_y++) \
            for (int64_t in = (in##_z * (l)->blocks[1] + in##_y) * (l)->blocks[0] + from[0], \
                         in##_end = in + to[0] - from[0]; \
                 in < in##_end; in++) \
                for (int64_t i = (l)->first[in]; i < (l)->first[in + 1]; i++)

#endif
