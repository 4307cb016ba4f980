#!/usr/bin/env bash
# The tests against the newest PETSc of PyPI, which pip builds: 20 minutes on two cores the first time, no hypre, no ML.
#
#   bash run_scripts/petsc/test_newest.sh [--build-only] [arguments of pytest]
#
# PETSc goes to .petsc-newest (PETSC_VENV=DIR names another place), the tests run in .venv-newest (VENV=DIR); both are
# kept for the next time. To take a newer PETSc remove .petsc-newest. The default PETSc and .venv stay as they are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
petsc=${PETSC_VENV:-$PWD/.petsc-newest}
only=no
[ "${1:-}" = --build-only ] && { only=yes; shift; }

unset PETSC_DIR PETSC_ARCH PYTHONPATH
if ! "$petsc/bin/python" -c 'from petsc4py import PETSc; import mpi4py.MPI' 2>/dev/null; then
    [ -x "$petsc/bin/python" ] || "${PYTHON:-/usr/bin/python3}" -m venv "$petsc"
    log=$petsc/build.log
    echo "test_newest.sh: building PETSc and petsc4py from PyPI, log in $log"
    # --with-cudac=0: where nvcc is on the PATH and no GPU is there. Names without spaces: the variable is split again.
    export PETSC_CONFIGURE_OPTIONS="--with-debugging=0 --COPTFLAGS=-O2 --CXXOPTFLAGS=-O2 --FOPTFLAGS=-O2 --with-cudac=0 --with-x=0"
    "$petsc/bin/pip" --disable-pip-version-check install numpy mpi4py setuptools wheel cython >"$log" 2>&1 &&
        "$petsc/bin/pip" --disable-pip-version-check -v install petsc >>"$log" 2>&1 &&
        "$petsc/bin/pip" --disable-pip-version-check -v install petsc4py >>"$log" 2>&1 ||
        { tail -n 30 "$log" >&2; echo "test_newest.sh: could not build PETSc" >&2; exit 1; }
fi
# C and Fortran programs want it exported
PETSC_DIR=$("$petsc/bin/python" -c 'import petsc4py; print(petsc4py.get_config()["PETSC_DIR"])')
export PETSC_DIR
if [ ! -d "$PETSC_DIR/src" ]; then # the tutorials, which pip does not install
    sources=$(mktemp -d)
    version=$("$petsc/bin/python" -c 'import petsc4py; print(petsc4py.__version__)')
    "$petsc/bin/pip" --disable-pip-version-check -q download --no-deps --no-binary petsc -d "$sources" "petsc==$version"
    tar -xzf "$sources"/petsc-*.tar.gz -C "$PETSC_DIR" --strip-components=1 --wildcards '*/src/*/tutorials/*'
    rm -r "$sources"
fi
export VENV=${VENV:-$PWD/.venv-newest}
PYTHON=$petsc/bin/python bash run_scripts/setup.sh --petsc existing
[ $only = no ] || exit 0

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OPENBLAS_NUM_THREADS=1 MPLBACKEND=Agg
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
"$VENV/bin/python" -c 'from petsc4py import PETSc; print("PETSc", *PETSc.Sys.getVersion())'
exec "$VENV/bin/python" -m pytest "$@"
