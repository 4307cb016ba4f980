#!/usr/bin/env bash
# Random systems, each held to what the package promises: a claimed residual is true, a refusal is a sentence, ...
#
#   bash run_scripts/fuzz_truth.sh [CASES [SEED]]         2000 cases from seed 0 on 1, 2 and 3 ranks, ten minutes
#   bash run_scripts/fuzz_truth.sh --wide [CASES [SEED]]  wide ones, on 1 to 4 ranks: 1 to 40 cells along 1 to 3 axes,
#                                                         periodic sides, matrices of sizes from 1e-30 to 1e30
#
# Progress goes to the terminal every 50 cases; the last line says how many were right, refused, stopped with a true
# reason, not converged where they should have, and failed. Exit status 1 when a promise is broken or too few of those
# that must converge do; each one with the command that repeats its case alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
wide=()
[ "${1:-}" != --wide ] || { wide=(--wide); shift; }
case "${1:-0}${2:-0}" in
    *[!0-9]*) echo "fuzz_truth.sh: '$*'; it takes the number of cases and the first seed" >&2; exit 2 ;;
esac
bash run_scripts/setup.sh
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec .venv/bin/python tests/truth_fuzz.py "${wide[@]}" "$@"
