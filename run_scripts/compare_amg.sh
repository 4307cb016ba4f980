#!/usr/bin/env bash
# DCDM and the tuned AMG solvers on the same systems: tables here, JSON and plots in out/compare/.
#
#   bash run_scripts/compare_amg.sh                  32^3 to 128^3 and 2D, about half an hour on two cores
#   bash run_scripts/compare_amg.sh --quick          32^3 to 64^3, a few minutes
#   bash run_scripts/compare_amg.sh --mesh FILE      that mesh as the obstacle
#
# Times mean something only if nothing else runs on the machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash run_scripts/setup.sh

sizes="32 48 64 96 128" flat="256,256 512,512 1024,1024" large=128 solves=20
mesh=meshes/fox.obj
while [ $# -gt 0 ]; do
    case $1 in
        --quick) sizes="32 48 64" flat="128,128 256,256" large=64 solves=5 ;;
        --mesh) mesh=$2; shift ;;
        *) echo "compare_amg.sh: unknown option '$1'; it takes --quick and --mesh FILE" >&2; exit 2 ;;
    esac
    shift
done
ranks="1 2"
out=out/compare
mkdir -p $out

compare() { # name, arguments
    local name=$1; shift
    printf '\n== %s\n' "$name"
    # a solver that does not converge is in the table; it must not end the comparison
    .venv/bin/petsc-dcdm compare "$@" --ranks $ranks --json $out/$name.json --plot $out/$name.png || true
}

# shellcheck disable=SC2086
compare mixed --family mixed --size $sizes
# shellcheck disable=SC2086
compare mesh --mesh "$mesh" --size $sizes
compare dam_break --family dam_break --size $large --fluid-only
compare box --family box --size $large --solver dcdm --solver pfmg --solver pfmg-tuned --solver mg --solver boomeramg-tuned
compare ex45 --vertex --size $((large + 1)) --solver dcdm --solver pfmg --solver mg --solver boomeramg-tuned --solver ml
# shellcheck disable=SC2086
compare flat --family mixed --size $flat
compare same_matrix --family mixed --size $large --solves $solves
compare moving --family dam_break --size $large --fluid-only --solves 10 --moving
