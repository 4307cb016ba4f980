/* Which row is where on the lattice, in memory that grows with what is taken of it. */
#include "lattice/lattice.h"

int append(row_list *list, int32_t row) {
    if (list->count == list->room) {
        const int64_t room = list->room ? 2 * list->room : 1024;
        int32_t *more = realloc(list->row, (size_t)room * sizeof *more);
        if (!more) return 0;
        list->row = more, list->room = room;
    }
    list->row[list->count++] = row;
    return 1;
}

static int new_slots(place_table *t, int64_t slots) {
    t->key = malloc((size_t)slots * sizeof *t->key);
    t->number = malloc((size_t)slots * sizeof *t->number);
    t->slots = slots;
    if (!t->key || !t->number) return 0;
    for (int64_t i = 0; i < slots; i++) t->key[i] = NOWHERE;
    return 1;
}

int start_table(place_table *t) {
    memset(t, 0, sizeof *t);
    t->last_key = NOWHERE;
    return new_slots(t, 64);
}

void free_table(place_table *t) {
    free(t->key), free(t->number), free(t->block);
}

INLINE int64_t slot_of(const place_table *t, int64_t key) {
    uint64_t h = (uint64_t)key * 0x9E3779B97F4A7C15u;
    int64_t i = (int64_t)(h >> 20) & (t->slots - 1);
    while (t->key[i] != NOWHERE && t->key[i] != key) i = (i + 1) & (t->slots - 1);
    return i;
}

static int grow(place_table *t) {
    int64_t *key = t->key;
    int32_t *number = t->number;
    const int64_t slots = t->slots;
    const int made = new_slots(t, 4 * slots);
    for (int64_t i = 0; made && i < slots; i++)
        if (key[i] != NOWHERE) {
            const int64_t to = slot_of(t, key[i]);
            t->key[to] = key[i], t->number[to] = number[i];
        }
    free(key), free(number);
    return made;
}

static NOINLINE int32_t *new_block(place_table *t, int64_t key) {
    if (2 * (t->blocks + 1) > t->slots && !grow(t)) return NULL;
    if (t->blocks == t->room) {
        const int64_t room = t->room ? 2 * t->room : 64;
        place_block *more = realloc(t->block, (size_t)room * sizeof *more);
        if (!more) return NULL;
        t->block = more, t->room = room;
    }
    const int64_t i = slot_of(t, key);
    t->key[i] = key, t->number[i] = (int32_t)t->blocks;
    for (int q = 0; q < BLOCK_PLACES; q++) t->block[t->blocks][q] = EMPTY;
    return t->block[t->blocks++];
}

/* Where the row at a place is kept; NULL if there is none near it, and with `make` if there is no memory. */
int32_t *place_slot(place_table *t, int64_t place, int make) {
    const int64_t low = (EDGE - 1) * (STEP[0] + STEP[1] + STEP[2]), key = place & ~low;
    if (key != t->last_key) {
        const int64_t i = slot_of(t, key);
        int32_t *block = t->key[i] == key ? t->block[t->number[i]] : make ? new_block(t, key) : NULL;
        if (!block) return NULL;
        t->last_key = key, t->last = block;
    }
    const int64_t in = place & low;
    return t->last + ((in & 3) | (in >> (BITS - 2) & 12) | (in >> (2 * BITS - 4) & 48));
}
