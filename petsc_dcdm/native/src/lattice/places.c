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

enum { SLAB = 256 }; /* blocks that are allocated together */

static int new_slots(place_table *t, int64_t slots) {
    t->slot = malloc((size_t)slots * sizeof *t->slot);
    t->slots = slots;
    if (!t->slot) return 0;
    for (int64_t i = 0; i < slots; i++) t->slot[i].key = NOWHERE;
    return 1;
}

int start_table(place_table *t) {
    memset(t, 0, sizeof *t);
    t->last_key = NOWHERE;
    return new_slots(t, 64);
}

void free_table(place_table *t) {
    for (int64_t i = 0; i * SLAB < t->blocks; i++) free(t->slab[i]);
    free(t->slot), free(t->slab);
}

INLINE int64_t slot_of(const place_table *t, int64_t key) {
    uint64_t h = (uint64_t)(key ^ key >> 32) * 0x9E3779B97F4A7C15u; /* all three coordinates in the upper half */
    h = (h ^ h >> 32) * 0xBF58476D1CE4E5B9u;
    int64_t i = (int64_t)(h >> 32) & (t->slots - 1);
    while (t->slot[i].key != NOWHERE && t->slot[i].key != key) i = (i + 1) & (t->slots - 1);
    return i;
}

static int grow(place_table *t) {
    place_slot_entry *old = t->slot;
    const int64_t slots = t->slots;
    const int made = new_slots(t, 4 * slots);
    for (int64_t i = 0; made && i < slots; i++)
        if (old[i].key != NOWHERE) t->slot[slot_of(t, old[i].key)] = old[i];
    free(old);
    return made;
}

static NOINLINE int32_t *new_block(place_table *t, int64_t key) {
    if (2 * (t->blocks + 1) > t->slots && !grow(t)) return NULL;
    const int64_t number = t->blocks / SLAB;
    if (number * SLAB == t->blocks) {
        place_block **more = realloc(t->slab, (size_t)(number + 1) * sizeof *more);
        if (!more) return NULL;
        t->slab = more;
        more[number] = malloc(SLAB * sizeof(place_block));
        if (!more[number]) return NULL;
    }
    int32_t *block = t->slab[number][t->blocks++ % SLAB];
    for (int q = 0; q < BLOCK_PLACES; q++) block[q] = EMPTY;
    t->slot[slot_of(t, key)] = (place_slot_entry){.key = key, .block = block};
    return block;
}

/* Where the row at a place is kept; NULL if there is none near it, and with `make` if there is no memory. */
int32_t *place_slot(place_table *t, int64_t place, int make) {
    const int64_t low = (EDGE - 1) * (STEP[0] + STEP[1] + STEP[2]), key = place & ~low;
    if (key != t->last_key) {
        const place_slot_entry *slot = &t->slot[slot_of(t, key)];
        int32_t *block = slot->key == key ? slot->block : make ? new_block(t, key) : NULL;
        if (!block) return NULL;
        t->last_key = key, t->last = block;
    }
    const int64_t in = place & low;
    return t->last + ((in & 3) | (in >> (BITS - 2) & 12) | (in >> (2 * BITS - 4) & 48));
}
