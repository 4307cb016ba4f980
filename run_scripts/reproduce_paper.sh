#!/usr/bin/env bash
# The comparison of the DCDM paper: DCDM with the published network and with `multigrid` against CG, deflated PCG and
# incomplete-Cholesky PCG, on the training operator and on unseen ones; then what history, normalisation and data are
# worth.
#
#   bash run_scripts/reproduce_paper.sh              32^3, 64^3 and 128^3, an hour on 2 cores (128^3 is most of it)
#   bash run_scripts/reproduce_paper.sh --quick      32^3 and 64^3, and no trainings: 13 minutes
#   bash run_scripts/reproduce_paper.sh --train      first trains the networks, as the shipped ones were (15 minutes)
#   --mesh FILE    obstacle; default: the Stanford bunny in ../shared/meshes if it is there, else meshes/fox.obj
#
# Tables and plots go to out/reproduction/; docs/measurements/reproduction/ has those of one machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash run_scripts/setup.sh

mesh=../shared/meshes/stanford-bunny.obj
[ -f "$mesh" ] || mesh=meshes/fox.obj
sizes="32 64 128" steps=400 train=no
while [ $# -gt 0 ]; do
    case $1 in
        --quick) sizes="32 64" steps=0 ;;
        --train) train=yes ;;
        --mesh) mesh=${2:?--mesh needs a file}; shift ;;
        -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
        *) echo "reproduce_paper.sh: unknown option '$1'; it takes --quick, --train, --mesh FILE" >&2; exit 2 ;;
    esac
    shift
done

python=.venv/bin/python out=out/reproduction model=cnn fine=cnn-64
if [ $train = yes ]; then
    .venv/bin/petsc-dcdm train cnn --resolution 32
    .venv/bin/petsc-dcdm train cnn --resolution 64
    model=out/train-cnn-32/cnn.safetensors fine=out/train-cnn-64/cnn.safetensors
fi

files=()
for size in $sizes; do
    repeats=3
    [ "$size" = 32 ] || repeats=1
    $python -m petsc_dcdm.studies.paper.comparison --size "$size" --mesh "$mesh" --repeats $repeats \
        --model "cnn=$model" --model "cnn-64=$fine" --model multigrid=multigrid --json "$out/size-$size.json"
    files+=("$out/size-$size.json")
done
$python -m petsc_dcdm.studies.paper.ablation --model "$model" --size 32 --steps $steps --json "$out/ablation.json"
$python -m petsc_dcdm.studies.paper.report "${files[@]}" --ablation "$out/ablation.json" --output "$out"
