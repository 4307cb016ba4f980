#!/usr/bin/env bash
# The tests against Debian's PETSc with 64-bit indices, in a virtual environment of its own, .venv-64; the default PETSc
# and .venv stay as they are. Arguments go to pytest:  bash run_scripts/test_64bit.sh -k files -x
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=.venv-64 bash run_scripts/setup.sh --petsc debian64

export PETSC_DIR=/usr/lib/petscdir/petsc64-real
unset PETSC_ARCH
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OPENBLAS_NUM_THREADS=1 MPLBACKEND=Agg
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
bits=$(.venv-64/bin/python -c 'from petsc4py import PETSc; print(8 * PETSc.IntType().itemsize)')
[ "$bits" = 64 ] || { echo "test_64bit.sh: $PETSC_DIR has $bits-bit indices, not 64" >&2; exit 1; }
exec .venv-64/bin/python -m pytest "$@"
