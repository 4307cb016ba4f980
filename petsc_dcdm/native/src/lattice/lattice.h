/* The graph of a matrix, and the cells of a lattice that its rows are given; see embed.c. */
#ifndef DCDM_LATTICE_H
#define DCDM_LATTICE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "compiler.h"

enum { SIDES = 6 };

/* A row with the rows it is coupled to, -1 behind the last; half a cache line, for rows in no order are looked up one
 * by one. Mirrored by petsc_dcdm/stencil/lattice/binding.py. */
typedef struct {
    int32_t beside[SIDES];
    int64_t place; /* where it is; before that UNTOUCHED, or touched(place of the first neighbour that was settled) */
} lattice_row;

enum { LATTICE_OK = 0, LATTICE_CROWDED = 1, LATTICE_STUCK = 2, LATTICE_MEMORY = 3, LATTICE_LARGE = 4 };

/* A search, and what it found; mirrored by petsc_dcdm/stencil/lattice/binding.py.
 *
 * Entries are rows, or where there are less of them than rows, strands: the t-th row after the first one, which is
 * in `place`, is coupled to the rows of `beside` plus t, up to the first row of the next strand. */
typedef struct {
    int64_t rows;
    lattice_row *row;   /* [entries], room for as many as there are rows */
    int64_t entries;
    int64_t one_way;    /* some couplings are stored in one of their two rows only */
    int64_t *cell;      /* out [rows]: cell of each row, x fastest */
    int64_t shape[3];   /* out: x, y, z */
    int64_t components, guesses, undone; /* out: parts of more than one row, choices made, placements taken back */
    int64_t code;       /* out: LATTICE_OK, or the rows below stand in the way: */
    int64_t bad[2];     /* one that has more than six neighbours; one that has no cell, and a neighbour of it, or -1 */
} lattice_search;

/* Places are three coordinates of 21 bits in one number, x lowest, so that neighbours differ by one of six numbers. */
enum { BITS = 21 };
static const int64_t STEP[3] = {1, (int64_t)1 << BITS, (int64_t)1 << 2 * BITS};
static const int64_t MIDDLE = ((int64_t)1 << (BITS - 1)) * (1 + ((int64_t)1 << BITS) + ((int64_t)1 << 2 * BITS));
static const int64_t UNTOUCHED = -1, NOWHERE = -1;

INLINE int64_t touched(int64_t place) { return -2 - place; }
INLINE int64_t coordinate(int64_t place, int axis) { return place >> axis * BITS & (((int64_t)1 << BITS) - 1); }
/* Directions: low x, high x, low y, ... */
INLINE int64_t step_along(int direction) { return direction & 1 ? STEP[direction / 2] : -STEP[direction / 2]; }
INLINE int direction_of(int64_t difference) {
    const int64_t length = difference < 0 ? -difference : difference;
    const int axis = length == STEP[0] ? 0 : length == STEP[1] ? 1 : length == STEP[2] ? 2 : 3;
    return axis == 3 ? -1 : 2 * axis + (difference > 0);
}

/* Which row is where: blocks of 4 x 4 x 4 places, found by a hash table. */
enum { EDGE = 4, BLOCK_PLACES = EDGE * EDGE * EDGE, EMPTY = -1 };
typedef int32_t place_block[BLOCK_PLACES];
typedef struct {
    int64_t key;       /* NOWHERE if free */
    int32_t *block;
} place_slot_entry;
typedef struct {
    place_slot_entry *slot;
    int64_t slots;     /* a power of 2 */
    place_block **slab; /* where blocks are, many together; they stay there */
    int64_t blocks;
    int64_t last_key;  /* of the block that was asked for last */
    int32_t *last;
} place_table;

/* A list that grows. */
typedef struct {
    int32_t *row;
    int64_t count, room;
} row_list;

/* Choices by their numbers from 1 on: the latest ones, and whether there may be earlier ones. */
enum { REASONS = 12 };
typedef struct {
    int32_t level[REASONS]; /* descending */
    int count, more;
} reasons;

/* A choice among several places for a row. */
typedef struct {
    int32_t row, from;   /* its neighbour that the sides are those of */
    reasons before;      /* choices before this one that its failures are due to as well */
    int64_t trail;       /* how many rows had a place before */
    uint8_t side[SIDES]; /* best first */
    int tried, count, axes;
} choice;

/* A connected part of the graph: the rows trail[begin .. end) or such lines, their extent, and how its axes become
 * those of the grid. */
typedef struct {
    int64_t begin, end;
    int64_t low[3], extent[3]; /* along the axes of the search */
    int64_t origin[3];         /* in the grid, along its axes */
    int axis[3], flipped[3];   /* of the search that is x, y, z of the grid */
} component;

/* Rows `row` .. row + count - 1 in cells one after the other along x, from `place` in its piece on. */
typedef struct {
    int64_t place;
    int32_t row, count, piece;
    int32_t apart[2]; /* how far before the first row with a low neighbour along y, z that one is; 0: no row has one */
} line;

enum { KINDS = 64 };

typedef struct {
    lattice_search *given;
    lattice_row *row;
    place_table at;
    int32_t *trail;      /* rows in the order they got their places: rows up to `head` have told their neighbours */
    int64_t begin, head, tail; /* begin: of this component */
    int32_t *level;      /* number of the latest choice that the place of a row depends on, 0: none */
    row_list first, open, leaves; /* rows with a neighbour that has a place: to look at; with a choice of places; with
                                     no other neighbour */
    int64_t first_head;
    choice *choices;
    int64_t choice_count, choice_room;
    int axes;            /* how many are in use in this component */
    int may_rise;        /* another may be taken wherever that fits, not only where nothing else does */
    int strict;          /* rows in cells that touch are coupled, as far as has been seen: so they have to be */
    int solid;           /* a row has more neighbours than there are in a plane */
    int32_t clash[2];    /* rows that do not fit, the second may be -1 */
    int any_choice;      /* they may be due to any choice before */
    int64_t low[3], high[3], boxed; /* extent of the component up to this place in the trail */
    int64_t budget;      /* how many placements may still be taken back, or eight times as many looks be taken */
    int32_t seen[SIDES][KINDS]; /* how often rows at such a distance were found in a direction */
    line *lines;         /* instead of the trail where a sweep has found them, component by component */
    int64_t line_count, line_room;
    component *components;
    int64_t component_count, component_room;
    int failed;          /* no memory */
    int threads;
} search;

/* strands.c */
int dcdm_lattice_expand(lattice_search *g, int threads);

/* places.c */
int start_table(place_table *t);
void free_table(place_table *t);
int32_t *place_slot(place_table *t, int64_t place, int make);
int append(row_list *list, int32_t row);

/* embed.c */
int embed_component(search *s, int32_t seed, const int32_t *corner, int corners);

/* choose.c */
int share_another(const search *s, int32_t a, int32_t b, int32_t but);
int strangers(search *s, int32_t u, int64_t place, int *room, int32_t *level);
int possible_sides(search *s, int32_t u, int32_t *from, int32_t *level);
int rank_sides(search *s, int32_t u, int32_t v, int sides, uint8_t *order, int *sure);

/* retreat.c */
void settle(search *s, int32_t u, int64_t place, int32_t level);
void take_back(search *s, int64_t trail);
int retreat(search *s);

/* sweep.c */
int sweep(search *s, int folded);

/* pack.c */
int pack_components(search *s);

/* The first row of an entry, or the end of all. */
INLINE int64_t first_row(const lattice_search *g, int64_t entry) {
    return g->entries == g->rows ? entry : entry == g->entries ? g->rows : g->row[entry].place;
}

INLINE int32_t who(search *s, int64_t place) {
    const int32_t *slot = place_slot(&s->at, place, 0);
    return slot ? *slot : EMPTY;
}

/* How far apart two rows are numbered: the sign, 1 by itself, then two kinds for each power of 2. */
INLINE int kind_of(int64_t from, int64_t to) {
    const int64_t d = to > from ? to - from : from - to;
    int kind = 0;
    if (d > 1) {
        const int power = 63 - __builtin_clzll((unsigned long long)d);
        kind = power < 15 ? 2 * power + (int)(d >> (power - 1) & 1) - 1 : power + 14;
    }
    kind = kind < KINDS / 2 ? kind : KINDS / 2 - 1;
    return to > from ? kind : KINDS / 2 + kind;
}

#endif
