/* Where the fields are of the structures that Python fills in or reads: compared with its own when the library is
 * loaded (petsc_dcdm/native/structures.py). */
#include "common.h"
#include "entries/csr.h"
#include "cycle/advance.h"
#include "cycle/operator.h"
#include "lattice/lattice.h"
#include "setup/levels.h"
#include "setup/setup.h"
#include "coarse/band.h"
#include "parts/part_cycle.h"
#include "parts/part_grid.h"
#include "walls/walls.h"

/* One field, or with an empty name the whole structure. */
typedef struct {
    const char *structure, *field;
    int64_t offset, size;
} field_layout;

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define WHOLE {TEXT(OF), "", 0, sizeof(OF)}
#define FIELD(name) {TEXT(OF), #name, offsetof(OF, name), sizeof(((OF *)0)->name)}

static const field_layout layouts[] = {
#define OF dcdm_level
    WHOLE, FIELD(n_w), FIELD(n_r), FIELD(n_x), FIELD(pitch_w), FIELD(pitch_r), FIELD(origin), FIELD(full_w),
    FIELD(full_r), FIELD(has_r), FIELD(wrap_w), FIELD(wrap_r), FIELD(wrap_x), FIELD(half_w), FIELD(half_r),
    FIELD(half_x), FIELD(place_w), FIELD(place_r), FIELD(place_x), FIELD(stop_r), FIELD(stop_x), FIELD(halo),
    FIELD(steps),
    FIELD(block_class), FIELD(class_value), FIELD(block_start), FIELD(block_count), FIELD(blocks),
    FIELD(omegas), FIELD(x), FIELD(y), FIELD(r), FIELD(range), FIELD(w_begin), FIELD(w_end), FIELD(parts), FIELD(part),
    FIELD(strip),
#undef OF
#define OF dcdm_network
    WHOLE, FIELD(conv), FIELD(conv_bias), FIELD(hidden), FIELD(hidden_bias), FIELD(out), FIELD(out_bias), FIELD(base),
#undef OF
#define OF dcdm_setup
    WHOLE, FIELD(prepared), FIELD(format), FIELD(w_x), FIELD(w_r), FIELD(w_w), FIELD(s), FIELD(high_x),
    FIELD(high_r), FIELD(high_w), FIELD(cells), FIELD(s_index), FIELD(s_value), FIELD(c), FIELD(face),
    FIELD(pitch_w), FIELD(pitch_r), FIELD(origin), FIELD(c_x), FIELD(c_r), FIELD(c_w), FIELD(c_s), FIELD(share_x),
    FIELD(share_r), FIELD(share_w), FIELD(c_pitch_w), FIELD(c_pitch_r), FIELD(c_origin), FIELD(range), FIELD(own),
    FIELD(active), FIELD(taken), FIELD(lock), FIELD(classes), FIELD(class_source),
#undef OF
#define OF dcdm_levels
    WHOLE, FIELD(level), FIELD(count), FIELD(threads), FIELD(bytes), FIELD(memory), FIELD(work), FIELD(network),
    FIELD(prepared), FIELD(setup), FIELD(coarse), FIELD(coarse_pitch_z), FIELD(coarse_pitch_y), FIELD(coarse_threads),
    FIELD(active),
#undef OF
#define OF dcdm_operator
    WHOLE, FIELD(packed), FIELD(words), FIELD(s_index), FIELD(s_pitch_w), FIELD(s_pitch_r), FIELD(s_origin),
    FIELD(s_value), FIELD(c), FIELD(w_x), FIELD(w_r), FIELD(w_w), FIELD(s), FIELD(pitch_w), FIELD(pitch_r),
    FIELD(origin), FIELD(codes), FIELD(few), FIELD(factor),
#undef OF
#define OF dcdm_loop
    WHOLE, FIELD(levels), FIELD(parents), FIELD(work), FIELD(count), FIELD(visits), FIELD(coarse), FIELD(finest),
    FIELD(a), FIELD(direction), FIELD(planes), FIELD(sums), FIELD(closed),
#undef OF
#define OF csr_matrix
    WHOLE, FIELD(rows), FIELD(indptr), FIELD(indices), FIELD(values), FIELD(wide), FIELD(first_column), FIELD(shift),
    FIELD(off_indptr), FIELD(off_indices), FIELD(off_values), FIELD(cell), FIELD(ascending), FIELD(line),
    FIELD(first_cell), FIELD(ghosts), FIELD(ghost_column), FIELD(ghost_cell), FIELD(ghost_dirichlet),
    FIELD(dirichlet), FIELD(nx), FIELD(ny), FIELD(nz), FIELD(ring), FIELD(sign), FIELD(scale), FIELD(rounding),
    FIELD(sum_rounding),
#undef OF
#define OF csr_output
    WHOLE, FIELD(w_low), FIELD(w_high), FIELD(s), FIELD(diagonal), FIELD(single), FIELD(pitch_y), FIELD(pitch_z),
    FIELD(origin), FIELD(box), FIELD(offset), FIELD(cells), FIELD(s_index), FIELD(c), FIELD(s_value), FIELD(s_count),
    FIELD(misfits), FIELD(hidden),
#undef OF
#define OF csr_report
    WHOLE, FIELD(code), FIELD(row), FIELD(column), FIELD(value), FIELD(max_diagonal), FIELD(w_min), FIELD(w_max),
    FIELD(w_sum), FIELD(w_count), FIELD(extra), FIELD(stiff), FIELD(least_sum), FIELD(most_sum),
    FIELD(least_diagonal), FIELD(small_sums), FIELD(inexact), FIELD(wrapped), FIELD(symmetry),
#undef OF
#define OF lattice_row
    WHOLE, FIELD(beside), FIELD(place),
#undef OF
#define OF lattice_search
    WHOLE, FIELD(rows), FIELD(row), FIELD(entries), FIELD(one_way), FIELD(cell), FIELD(shape), FIELD(components),
    FIELD(guesses), FIELD(undone), FIELD(code), FIELD(bad),
#undef OF
#define OF dcdm_band
    WHOLE, FIELD(unknowns), FIELD(width), FIELD(back), FIELD(threads), FIELD(lower), FIELD(inverse), FIELD(vector),
    FIELD(place),
#undef OF
#define OF dcdm_band_grid
    WHOLE, FIELD(n), FIELD(stride), FIELD(w), FIELD(s),
#undef OF
#define OF walls_grid
    WHOLE, FIELD(face), FIELD(pitch_y), FIELD(pitch_z), FIELD(n), FIELD(block), FIELD(weak), FIELD(skinless),
    FIELD(enough), FIELD(cells), FIELD(c),
#undef OF
#define OF parts_grid
    WHOLE, FIELD(n), FIELD(flat), FIELD(pitch), FIELD(xy), FIELD(zs), FIELD(inverse), FIELD(part), FIELD(x),
    FIELD(rings),
#undef OF
#define OF parts_box
    WHOLE, FIELD(at), FIELD(pitch), FIELD(plane),
#undef OF
#define OF parts_level
    WHOLE, FIELD(n), FIELD(blocks), FIELD(first), FIELD(block), FIELD(row), FIELD(column), FIELD(value), FIELD(s),
    FIELD(halved), FIELD(shift), FIELD(part),
#undef OF
#define OF parts_stage
    WHOLE, FIELD(n), FIELD(slice), FIELD(word), FIELD(base), FIELD(rest), FIELD(rest_column), FIELD(rest_value),
    FIELD(rest_lane), FIELD(s), FIELD(inverse), FIELD(child_first), FIELD(child), FIELD(part), FIELD(twice),
    FIELD(x), FIELD(y), FIELD(r), FIELD(kept), FIELD(image),
#undef OF
    {0},
};

/* All of them; the last one has no structure. */
const field_layout *dcdm_layouts(void) { return layouts; }
