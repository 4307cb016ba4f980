#!/usr/bin/env bash
# Iterations of the plugin on every system it promises to be good at, as Markdown tables (docs/network.md).
#
#   bash run_scripts/robustness.sh            64^3, 128^3 and 256^2 cells, a few minutes
#   bash run_scripts/robustness.sh --large    256^3 and 2048^2 too; 16 GB of memory
#
# Other options: .venv/bin/python -m petsc_dcdm.compare.robustness --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash run_scripts/setup.sh

sizes="64 256,256 128"
case "${1:-}" in
    "") ;;
    --large) sizes="$sizes 2048,2048 256" ;;
    *) echo "robustness.sh: unknown option '$1'; it takes --large" >&2; exit 2 ;;
esac
missed=0
for size in $sizes; do
    .venv/bin/python -m petsc_dcdm.compare.robustness --size "$size" || missed=1
done
exit $missed
