#!/usr/bin/env bash
# The C kernels, checked: compiled with all warnings as errors by gcc and, where it is there, clang; then their tests under
# AddressSanitizer and UndefinedBehaviorSanitizer, with every array in memory of exactly its size.
#
#   bash run_scripts/check_native.sh           everything, some minutes
#   bash run_scripts/check_native.sh --quick   half a minute; a part of the tests
#
# CC=... names the compiler whose sanitizers are used, gcc or a clang; nothing goes to the user's cache of kernels.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
quick=no
case "${1:-}" in
    "") ;;
    --quick) quick=yes ;;
    *) echo "check_native.sh: unknown option '$1'; it takes --quick" >&2; exit 2 ;;
esac
compiler=${CC:-gcc}
command -v "$compiler" >/dev/null || { echo "check_native.sh: there is no compiler '$compiler' here" >&2; exit 1; }
[ $quick = yes ] || bash run_scripts/setup.sh

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# psabi: no vector is passed to another library; pass-failed: clang leaves some loops alone that gcc vectorises
warnings="-Wall -Wextra -Wvla -Wshadow -Werror -Wno-psabi -Wno-pass-failed"
variants=("-march=native -DHALF=1" "-march=native -DHALF=0" "-DHALF=1")
[ $quick = no ] || variants=("-march=native -DHALF=1")
for each in $(command -v gcc clang "$compiler" | sort -u); do
    openmp=-fopenmp
    echo 'int main(void) { return 0; }' >"$scratch/main.c"
    "$each" -fopenmp "$scratch/main.c" -o "$scratch/main" 2>/dev/null || openmp=-Wno-unknown-pragmas
    for variant in "${variants[@]}"; do
        for source in petsc_dcdm/native/src/*.c; do
            # shellcheck disable=SC2086
            "$each" -std=gnu11 -fPIC -O1 -ftree-vectorize $openmp $variant $warnings -c "$source" -o "$scratch/object.o"
        done
    done
    echo "check_native.sh: no warnings from $each"
done

# The runtime has to be the first library of the process, which Python is not linked with.
shared=
case $("$compiler" --version | head -n 1) in
    *clang*) shared=-shared-libasan runtime=$("$compiler" -print-file-name="libclang_rt.asan-$(uname -m).so") ;;
    *) runtime=$("$compiler" -print-file-name=libasan.so) ;;
esac
[ -e "$runtime" ] || { echo "check_native.sh: $compiler has no AddressSanitizer ($runtime)" >&2; exit 1; }

tests=(tests/stencil/test_{entries,vec_map,walls,extract}.py tests/backends/test_{loop,cpu_hierarchy}.py)
[ $quick = no ] || tests=(tests/stencil/test_{entries,vec_map,walls}.py tests/backends/test_loop.py -k
    "a_matrix or packed_extraction or named or copied or numpy_agree or packed_faces or same_matrix")
export CC="$compiler -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1 $shared"
export XDG_CACHE_HOME=$scratch PYTHONPATH=$PWD/tests${PYTHONPATH:+:$PYTHONPATH}
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive OPENBLAS_NUM_THREADS=1 MPLBACKEND=Agg
# Leaks are Python's. -s: what a sanitizer prints before it ends the process is not to end in pytest's files.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
LD_PRELOAD=$runtime .venv/bin/python -m pytest -q -s -x -p no:cacheprovider -p exact_memory "${tests[@]}"
