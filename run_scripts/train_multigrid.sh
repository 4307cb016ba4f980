#!/usr/bin/env bash
# Trains the shipped weights of the multigrid network again; options go to `petsc-dcdm train multigrid` (see --help).
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/petsc-dcdm ] || bash run_scripts/setup.sh
exec env OMP_NUM_THREADS=1 .venv/bin/petsc-dcdm train multigrid "$@"
