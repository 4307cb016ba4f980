#!/usr/bin/env bash
# DCDM and the tuned AMG solvers on the same systems: tables here, JSON and plots in out/compare/, and in
# out/compare/tables.md what docs/measurements/performance.md shows.
#
#   bash run_scripts/compare_amg.sh                  32^3 to 192^3 and 2D, about half an hour on two cores
#   bash run_scripts/compare_amg.sh --quick          32^3 to 64^3, a few minutes
#   bash run_scripts/compare_amg.sh --mesh FILE      that mesh as the obstacle
#
# Times mean something only if nothing else runs on the machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash run_scripts/setup.sh

sizes="32 64 96 128 192" flat="256,256 512,512 1024,1024 2048,2048" large=128 middle=96 solves=10
mesh=meshes/fox.obj
while [ $# -gt 0 ]; do
    case $1 in
        --quick) sizes="32 48 64" flat="128,128 256,256" large=64 middle=48 solves=5 ;;
        --mesh) mesh=$2; shift ;;
        *) echo "compare_amg.sh: unknown option '$1'; it takes --quick and --mesh FILE" >&2; exit 2 ;;
    esac
    shift
done
out=out/compare
mkdir -p $out
rm -f $out/*.json

# One rank with all threads and two ranks; PETSc's solvers have no threads: two ranks, as measured the faster.
ours="--solver dcdm@1 --solver dcdm@2"
amg="--solver ml@2 --solver boomeramg-tuned@2"

compare() { # name, arguments
    local name=$1; shift
    printf '\n== %s\n' "$name"
    # a solver that does not converge is in the table; it must not end the comparison
    .venv/bin/petsc-dcdm compare "$@" --json $out/$name.json --plot $out/$name.png || [ $? -eq 1 ]
}

# shellcheck disable=SC2086
{
    compare mixed --family mixed --size $sizes $ours $amg --solver gamg@2
    compare mesh --mesh "$mesh" --size $sizes --solver dcdm@1 $amg
    compare dam_break --family dam_break --size $large --fluid-only $ours $amg
    compare variable --family smooth --size $large $ours $amg
    compare drops --family drops --size $large --solver dcdm@1 $amg
    compare box --family box --size $large $ours --solver pfmg@2 --solver pfmg-tuned@2 --solver mg@2
    compare ex45 --vertex --size $((large + 1)) $ours --solver pfmg@2 --solver mg@2
    compare flat --family mixed --size $flat $ours $amg
    compare cold --family mixed --size $middle $large $ours --solver gamg@2 --cold
    compare same_matrix --family mixed --size $middle --solves $solves --solver dcdm@1 $amg
    compare moving --family dam_break --size $middle --fluid-only --solves $solves --moving --solver dcdm@1 $amg
}
{
    .venv/bin/python -m petsc_dcdm.compare.tables $out
    printf '### Profile\n\n'
    .venv/bin/python -m petsc_dcdm.studies.profile mixed $large
} > $out/tables.md
echo "wrote $out/tables.md"
