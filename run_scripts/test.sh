#!/usr/bin/env bash
# All checks: ruff, mypy, pytest. Arguments go to pytest:  bash run_scripts/test.sh -k halo -x
# Without arguments two processes share the files of tests, which takes two thirds of the time on two cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash run_scripts/setup.sh

# The tests run many small processes: one thread each, and no search for networks, which takes Open MPI a quarter of a
# second. As root it has to be told that this is meant.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OPENBLAS_NUM_THREADS=1 MPLBACKEND=Agg
export OMPI_MCA_pml=ob1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
[ $# -gt 0 ] || set -- -n 2 --dist loadfile --no-loadscope-reorder
exec .venv/bin/python -m pytest "$@"
