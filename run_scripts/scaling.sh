#!/usr/bin/env bash
# What grows with the number of ranks: messages, bytes and reductions per iteration on 1 to 8 ranks (counts, exact even
# where the ranks share cores), each with a box of its own as on different nodes; then times of 1 rank with 2 threads
# and of 2 ranks with 1 thread, which share a box, and with a box each.
#
#   bash run_scripts/scaling.sh            counts at 64^3, times at 128^3; half a minute on an idle machine
#   bash run_scripts/scaling.sh --counts   counts only
#
# docs/measurements/scaling.md explains the numbers. Times mean something only if nothing else runs on the machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash run_scripts/setup.sh

times=1
case ${1:-} in
    '') ;;
    --counts) times=0 ;;
    *) echo "scaling.sh: unknown option '$1'; it takes --counts" >&2; exit 2 ;;
esac

# MPI refuses to run as root, which is all there is in a container, unless it is told twice.
[ "$(id -u)" -ne 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
launcher="mpirun --oversubscribe --bind-to none"
if ! mpirun --version 2>/dev/null | grep -q 'Open MPI'; then launcher=mpirun; fi

row() { # threads, ranks, arguments
    local threads=$1 ranks=$2; shift 2
    # shellcheck disable=SC2086
    OMP_NUM_THREADS=$threads OPENBLAS_NUM_THREADS=1 $launcher -n "$ranks" .venv/bin/python -m petsc_dcdm.studies.scaling "$@"
}

printf '\nCounts per iteration, 64^3 mixed domain (of the rank that has most)\n\n'
export PETSC_OPTIONS="-pc_dcdm_box rank"
row 1 1 --counts --repeats 0 --head
for ranks in 2 4 8; do row 1 "$ranks" --counts --repeats 0; done
[ $times = 1 ] || exit 0
printf '\nTimes, 128^3 mixed domain, relative residual 1e-6, medians of 7\n\n'
row 2 1 --size 128 --repeats 7 --head
row 1 2 --size 128 --repeats 7
export PETSC_OPTIONS="-pc_dcdm_box node"
row 1 2 --size 128 --repeats 7
