#!/usr/bin/env bash
# Plants faults in copies of the tree, one at a time, and sees whether the tests notice: some six minutes.
# bash run_scripts/mutations.sh [NUMBER ...]      numbers of tests/mutations.py's list; all without any
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash run_scripts/setup.sh
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OPENBLAS_NUM_THREADS=1 MPLBACKEND=Agg
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
exec .venv/bin/python tests/mutations.py "$@"
