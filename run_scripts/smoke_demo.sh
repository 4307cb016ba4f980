#!/usr/bin/env bash
# Smoke rises round a swinging body, 100 steps at 64^3 with a new matrix in every one, with DCDM and with tuned
# BoomerAMG: pictures of every other step, accumulated time, and both side by side at their own speed, in out/race.
# Under two minutes on 2 cores; the first call makes .venv (another two).
#
#   bash run_scripts/smoke_demo.sh [--size 64] [--steps 100] [--mesh FILE] [--out out/race]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case ${1:-} in -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
[ -x .venv/bin/python ] || bash run_scripts/setup.sh

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
exec .venv/bin/python -m petsc_dcdm.studies.race "$@"
