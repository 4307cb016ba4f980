#!/usr/bin/env bash
# Makes .venv: PETSc, petsc4py, mpi4py and Open MPI from Debian, everything else from pip (torch: the CPU build).
#
#   bash run_scripts/setup.sh                    Debian 12, nothing installed yet
#   bash run_scripts/setup.sh --petsc existing   your own PETSc 3.18 to 3.26: PETSC_DIR (and PETSC_ARCH) set, petsc4py
#                                                and mpi4py importable by python3 (or by the Python named in $PYTHON)
#   bash run_scripts/setup.sh --petsc debian64   as the first, and Debian's PETSc with 64-bit indices, which programs
#                                                and petsc4py take where PETSC_DIR=/usr/lib/petscdir/petsc64-real
#   --cuda     take pip's default torch, which has CUDA on Linux, instead of the CPU build
#   --with-triton   Triton beside the CPU build of torch, a gigabyte: the kernels of GPUs are compiled and, interpreted,
#                   tested without a GPU (torch for CUDA brings its own)
#   --force    run every step again
#   VENV=DIR   another place than .venv
#
# Idempotent: with nothing to do it takes under a second. Without options it keeps to what .venv was made with.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

torch_version=2.13.0
venv=${VENV:-.venv}
stamp=$venv/.petsc_dcdm_setup # "debian|debian64|existing yes|no hash yes|no": what $venv was made with
read -r petsc cuda _ triton 2>/dev/null <"$stamp" || { petsc=debian cuda=no; }
[ "${triton:-}" = yes ] || triton=no
force=no
while [ $# -gt 0 ]; do
    case $1 in
        --petsc) petsc=${2:-}; shift ;;
        --petsc=*) petsc=${1#*=} ;;
        --cuda) cuda=yes ;;
        --with-triton) triton=yes ;;
        --force) force=yes ;;
        -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
        *) echo "setup.sh: unknown option '$1'; it takes --petsc existing|debian64, --cuda, --with-triton, --force" >&2; exit 2 ;;
    esac
    shift
done
case $petsc in debian | debian64 | existing) ;; *) echo "setup.sh: --petsc takes debian, debian64 or existing, not '$petsc'" >&2; exit 2 ;; esac

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }
quiet() { # runs a command; its output is shown only if it fails
    local log; log=$(mktemp)
    if ! "$@" >"$log" 2>&1; then tail -n 30 "$log" >&2; rm -f "$log"; return 1; fi
    rm -f "$log"
}

# ---- what Debian gives --------------------------------------------------------------------------------------------
if [ "$petsc" != existing ]; then
    python=/usr/bin/python3 # a bare python3 may be another Python, which cannot see Debian's petsc4py
    # libpython3-dev: a C program with -python opens libpython3.x.so
    wanted="petsc-dev python3-petsc4py python3-petsc4py-real python3-mpi4py python3-venv libpython3-dev openmpi-bin
            gcc g++ gfortran pkg-config libopenblas0-pthread"
    # These have names and alternatives of their own: the default PETSc stays what it is.
    [ "$petsc" = debian ] || wanted="$wanted libpetsc64-real-dev python3-petsc4py-64-real"
    missing=""
    for package in $wanted; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $package"
    done
    # PETSc's own tutorials, which the tests compile; the package's name holds the version of PETSc
    dpkg-query -W -f '${Status}\n' 'libpetsc*-dev-examples' 2>/dev/null | grep -q '^install ok installed' ||
        missing="$missing libpetsc-examples"
    if [ -n "$missing" ]; then
        command -v apt-get >/dev/null || die "no apt-get here: install PETSc and petsc4py your way, then: bash run_scripts/setup.sh --petsc existing"
        sudo=""
        if [ "$(id -u)" != 0 ]; then
            command -v sudo >/dev/null || die "as root, install these Debian packages:$missing"
            sudo=sudo
        fi
        say "reading the package lists"
        quiet $sudo apt-get update || die "apt-get update failed"
        examples=$(apt-cache pkgnames libpetsc | grep -E '^libpetsc[0-9.]+-dev-examples$' | sort -V | tail -n 1 || true)
        missing=${missing/libpetsc-examples/$examples}
        say "installing$missing"
        # shellcheck disable=SC2086
        quiet $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing ||
            die "apt-get install failed"
    fi
    # A PETSC_DIR of another PETSc would hide Debian's petsc4py (its .pth follows the variable).
    unset PETSC_DIR PETSC_ARCH
    [ "$petsc" = debian ] || export PETSC_DIR=/usr/lib/petscdir/petsc64-real
else
    # a virtual environment made this way already reaches them, whatever python3 is now
    if [ -z "${PYTHON:-}" ] && grep -qs '^existing ' "$stamp"; then PYTHON="$venv/bin/python"; fi
    python=$(command -v "${PYTHON:-python3}") || die "no ${PYTHON:-python3} here: name your Python in PYTHON"
    "$python" - <<'PY' || die "with --petsc existing, petsc4py, mpi4py and numpy must be importable by $python (set PYTHON to the Python that has them, or PYTHONPATH, and PETSC_DIR as for your programs)"
import re, sys
try:
    import mpi4py  # noqa: F401
    import numpy  # noqa: F401
    from petsc4py import PETSc
except Exception as error:
    sys.exit(f"setup: {sys.executable}: {type(error).__name__}: {error}")
version = PETSc.Sys.getVersion()
if not (3, 18) <= version[:2] <= (3, 26):
    sys.exit(f"setup: PETSc is {'.'.join(map(str, version))}; petsc_dcdm is written for 3.18 to 3.26")
PY
    [ -n "${PETSC_DIR:-}" ] || say "PETSC_DIR is not set: fine for Python programs; a C or Fortran program may need it exported"
fi

# ---- is there anything left to do? --------------------------------------------------------------------------------
# with the path: another checkout may have been installed into a $venv that lies elsewhere
state="$petsc $cuda $({ pwd; cat pyproject.toml setup.py run_scripts/setup.sh; } | sha256sum | cut -c1-16) $triton"
importable() { "$venv/bin/python" -c 'import sys, importlib.util as u; sys.exit(not all(u.find_spec(m) for m in sys.argv[1:]))' "$@" 2>/dev/null; }
if [ "$force" = no ] && [ "$(cat "$stamp" 2>/dev/null)" = "$state" ] && [ -x "$venv/bin/petsc-dcdm" ] && importable petsc4py mpi4py torch petsc_dcdm; then
    say "nothing to do"
    exit 0
fi

# ---- the virtual environment --------------------------------------------------------------------------------------
base() { "$1" -c 'import sys; print(sys.base_prefix, sys.version)' 2>/dev/null; }
if [ ! -x "$venv/bin/python" ] || [ "$(base "$venv/bin/python")" != "$(base "$python")" ]; then
    say "making $venv with $python"
    quiet "$python" -m venv --clear --system-site-packages "$venv" || die "could not make $venv"
fi
if ! importable petsc4py mpi4py; then
    # $python is itself in a virtual environment, or reaches petsc4py through PYTHONPATH: remember where
    say "linking petsc4py and mpi4py into $venv"
    "$python" -c 'import os, petsc4py, mpi4py; print(*dict.fromkeys(os.path.dirname(m.__path__[0]) for m in (petsc4py, mpi4py)), sep="\n")' \
        >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/petsc4py_elsewhere.pth"
fi
# The numpy that petsc4py was built with decides: a 1.x build breaks with numpy 2 ("numpy.dtype size changed").
numpy=$("$python" -c 'import numpy; print("numpy<2" if numpy.__version__.startswith("1.") else "numpy>=2")')

pip() { quiet "$venv/bin/python" -m pip --disable-pip-version-check install "$@"; }
if ! importable torch; then
    say "installing torch $torch_version"
    if [ "$cuda" = yes ]; then
        pip "torch==$torch_version" "$numpy" || die "pip could not install torch"
    else
        # Plain pip takes a CUDA build of several GB on Linux. The CPU build is first looked for where pip looks anyway
        # (a company's index, --find-links), then in PyTorch's own index.
        pip "torch==$torch_version+cpu" "$numpy" 2>/dev/null ||
            pip "torch==$torch_version" "$numpy" --index-url https://download.pytorch.org/whl/cpu ||
            die "pip found no CPU build of torch $torch_version (with --cuda it takes the default build)"
    fi
fi
say "installing petsc_dcdm and its tools"
pip "$numpy" -e '.[mesh,plot,dev,docs]' || die "pip could not install petsc_dcdm"
if [ "$triton" = yes ] && ! importable triton; then
    say "installing triton"
    pip "triton>=3.6" || die "pip could not install triton"
fi

"$venv/bin/python" - <<'PY' || die "the new $venv does not work"
import sys
try:
    from petsc4py import PETSc
    import torch  # noqa: F401
except Exception as error:
    sys.exit(f"setup: {type(error).__name__}: {error}")
print("setup: PETSc", ".".join(map(str, PETSc.Sys.getVersion())), "and torch", torch.__version__, "work together")
PY
say "compiling the kernels"
quiet "$venv/bin/petsc-dcdm" warmup || say "kernels not compiled ahead; the first solve will do it"
printf '%s\n' "$state" >"$stamp"
say "done"
