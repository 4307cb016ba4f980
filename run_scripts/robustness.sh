#!/usr/bin/env bash
# Iterations of the plugin on every system it promises to be good at, as Markdown tables (docs/measurements/network.md).
#
#   bash run_scripts/robustness.sh              64^3, 128^3 and 256^2 cells, three seeds, a few minutes
#   bash run_scripts/robustness.sh --large      2048^2 and, of ordinary systems, 256^3 too, one seed; 12 GB of memory
#   bash run_scripts/robustness.sh --ablation   other weights in the same cycle instead: trains them first, half an hour
#
# Other options: .venv/bin/python -m petsc_dcdm.studies.robustness --help, and ablation in place of robustness
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
large=no
case "${1:-}" in
    "") ;;
    --large) large=yes ;;
    --ablation)
        bash run_scripts/setup.sh
        .venv/bin/python -m petsc_dcdm.studies.ablation --size 64 128
        exec .venv/bin/python -m petsc_dcdm.studies.ablation --split 48 ;;
    *) echo "robustness.sh: unknown option '$1'; it takes --large or --ablation" >&2; exit 2 ;;
esac
bash run_scripts/setup.sh

missed=0
count() { .venv/bin/python -m petsc_dcdm.studies.robustness "$@" || missed=1; }
count --size 64
count --size 256,256
count --size 128
if [ $large = yes ]; then
    count --size 2048,2048 --seed 11
    count --size 256 --seed 11 --system box open_wall mixed tank dam_break porous smooth channel
fi
exit $missed
