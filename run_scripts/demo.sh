#!/usr/bin/env bash
# Flow past a mesh at 96^3: assembles the pressure system, solves it with DCDM and with tuned BoomerAMG on the same
# matrix, prints a table and leaves out/demo.png. Under two minutes; the first call makes .venv (another two).
#
#   bash run_scripts/demo.sh [--mesh FILE] [--size 96] [--out out/demo.png]
#
#   RANKS=n   MPI ranks for both solvers (default: the cores, at most 4)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case ${1:-} in -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
[ -x .venv/bin/python ] || bash run_scripts/setup.sh

cores=$(nproc)
ranks=${RANKS:-$((cores < 4 ? cores : 4))}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OPENBLAS_NUM_THREADS=1
# One rank needs no launcher, and with PETSc of your own there may be none of its name.
launch=(mpirun -n "$ranks")
[ "$ranks" -gt 1 ] || launch=()
# mpi4py ends all ranks when one of them fails.
exec ${launch[@]+"${launch[@]}"} .venv/bin/python -m mpi4py -m petsc_dcdm.studies.demo "$@"
