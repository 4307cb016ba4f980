#!/usr/bin/env bash
# The comparison of the DCDM paper: DCDM with the published network and with `multigrid` against CG, deflated PCG and
# incomplete-Cholesky PCG, on the training operator and on unseen ones; then what history, normalisation and data are worth.
#
#   bash run_scripts/reproduce_paper.sh              32^3, 64^3 and 128^3, two hours on 2 cores (128^3 is most of it)
#   bash run_scripts/reproduce_paper.sh --quick      32^3 and 64^3 only
#   bash run_scripts/reproduce_paper.sh --train      first trains the 32^3 and the 64^3 network anew (hours)
#   --mesh FILE    obstacle; default: the Stanford bunny in ../shared/meshes if it is there, else meshes/fox.obj
#
# Tables and plots go to out/reproduction/; docs/reproduction.md shows those of one machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash run_scripts/setup.sh

mesh=../shared/meshes/stanford-bunny.obj
[ -f "$mesh" ] || mesh=meshes/fox.obj
sizes="32 64 128" train=no
while [ $# -gt 0 ]; do
    case $1 in
        --quick) sizes="32 64" ;;
        --train) train=yes ;;
        --mesh) mesh=${2:?--mesh needs a file}; shift ;;
        -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
        *) echo "reproduce_paper.sh: unknown option '$1'; it takes --quick, --train, --mesh FILE" >&2; exit 2 ;;
    esac
    shift
done

python=.venv/bin/python out=out/reproduction
cnn32=cnn-32 cnn64=cnn
if [ $train = yes ]; then
    .venv/bin/petsc-dcdm train cnn --resolution 32 --ritz 2000 --minutes 40 --bfloat16-until 0.7
    cnn32=out/train-cnn-32/cnn.safetensors
    .venv/bin/petsc-dcdm train cnn --resolution 64 --minutes 60 --bfloat16-until 0.7 --rate 5e-4 --init "$cnn32"
    cnn64=out/train-cnn-64/cnn.safetensors
fi

files=()
for size in $sizes; do
    models=(--model "multigrid=multigrid")
    [ "$size" = 128 ] || models=(--model "cnn of 32^3=$cnn32" "${models[@]}")
    [ "$size" = 32 ] || models=(--model "cnn of 64^3=$cnn64" "${models[@]}")
    repeats=3
    [ "$size" = 128 ] && repeats=1
    $python -m petsc_dcdm.compare.paper --size "$size" --mesh "$mesh" --repeats $repeats \
        "${models[@]}" --json "$out/size-$size.json"
    files+=("$out/size-$size.json")
done
$python -m petsc_dcdm.compare.paper_ablation --model "$cnn32" --size 32 --json "$out/ablation.json"
$python -m petsc_dcdm.compare.paper_report "${files[@]}" --ablation "$out/ablation.json" --output "$out"
