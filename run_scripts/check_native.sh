#!/usr/bin/env bash
# The C kernels, checked, without a warning from gcc or, where it is there, clang:
#
#   - a driver program of their own (tests/native/driver) for each instruction set of this processor, which has to find
#     the same numbers with each; under AddressSanitizer and UndefinedBehaviorSanitizer; with three threads under
#     ThreadSanitizer, where clang's OpenMP tells it what is synchronised (gcc's does not: its reports are false);
#     and for aarch64, emulated by qemu-user;
#   - their tests in Python for each instruction set, and under AddressSanitizer and UndefinedBehaviorSanitizer with
#     every array in memory of exactly its size.
#
#   bash run_scripts/check_native.sh           everything, some minutes
#   bash run_scripts/check_native.sh --quick   less than a minute; gcc, the sanitizers of memory, some of the tests
#
# CC=... names the compiler whose sanitizers are used, gcc or a clang; nothing goes to the user's cache of kernels. What
# cannot be checked here is named.
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
[ -x .venv/bin/python ] || bash run_scripts/setup.sh

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
say() { echo "check_native.sh: $*"; }

clang=$(command -v clang || compgen -c clang- | grep -xE 'clang-[0-9]+' | sort -V | tail -n 1 || true)
# the first is the one whose numbers the others are compared with
[ $quick = no ] || clang=
mapfile -t compilers < <(printf '%s\n' gcc "$clang" "$compiler" | while read -r each; do
    command -v "$each" >/dev/null && echo "$each"; done | awk '!seen[$0]++')

# The instruction sets that this processor has, plain ones first.
targets=()
if [ "$(uname -m)" = x86_64 ]; then
    targets=(-march=x86-64)
    grep -qw avx2 /proc/cpuinfo && targets+=(-march=x86-64-v3)
    grep -qw avx512vl /proc/cpuinfo && targets+=(-march=x86-64-v4)
fi
# the best plain one differs from it by a few instructions: the one before that
[ $quick = no ] || [ ${#targets[@]} -lt 2 ] || targets=("${targets[@]: -2:1}")
targets+=(-march=native)

# psabi: no vector is passed to another library; pass-failed: clang leaves some loops alone that gcc vectorises
warnings="-Wall -Wextra -Wvla -Wshadow -Werror -Wno-psabi -Wno-pass-failed"

openmp_of() {
    echo 'int main(void) { return 0; }' >"$scratch/main.c"
    if "$1" -fopenmp "$scratch/main.c" -o "$scratch/main" 2>/dev/null; then echo -fopenmp; else echo -Wno-unknown-pragmas; fi
}

# build NAME COMPILER FLAGS...: the driver program, $scratch/NAME/driver
build() {
    local name=$1 with=$2
    shift 2
    mkdir "$scratch/$name"
    printf '%s\n' petsc_dcdm/native/src/*.c petsc_dcdm/native/src/*/*.c tests/native/driver/*.c |
        xargs -P "$(nproc)" -I{} sh -c 'source=$1 to=$2; shift 2
            "$@" -c "$source" -o "$to/$(basename "$source" .c).o"' sh {} "$scratch/$name" \
            "$with" -std=gnu11 -O1 -ftree-vectorize -ffp-contract=fast -Ipetsc_dcdm/native/src $warnings "$@"
    "$with" "$@" "$scratch/$name"/*.o -lm -o "$scratch/$name/driver" 2>"$scratch/$name/link.log" ||
        { cat "$scratch/$name/link.log" >&2; return 1; }
}

# compare NAME: the numbers of a driver against those of the first
compare() {
    [ -e "$scratch/expected" ] || cp "$scratch/$1/numbers" "$scratch/expected"
    paste "$scratch/expected" "$scratch/$1/numbers" | awk -v name="$1" '
        function apart(a, b) { return (a - b) * (a - b) > 1e-6 * b * b }
        { half = NF / 2
          for (i = 1; i <= half; i++)
              if (i <= 3 ? $i != $(half + i) : apart($i, $(half + i))) { print name ": " $0; bad = 1 } }
        END { exit bad || !NR }'
}

# Builds for every processor, and what they find with so many threads at most.
number=0 threads=3
[ $quick = no ] || threads=2
for each in "${compilers[@]}"; do
    openmp=$(openmp_of "$each")
    built=
    for target in "${targets[@]}"; do
        for half in 1 0; do
            [ $quick = no ] || [ $half = 1 ] || continue
            name=build$((number += 1))
            build $name "$each" "$target" -DHALF=$half "$openmp"
            OMP_WAIT_POLICY=passive "$scratch/$name/driver" "$threads" >"$scratch/$name/numbers"
            # float coefficients find other numbers than bfloat16
            [ $half = 0 ] || compare $name || { say "other numbers from $each $target than from the first" >&2; exit 1; }
            built+=" ${target#-march=}"
        done
    done
    say "no warnings from $each, the same numbers for$(tr ' ' '\n' <<<"$built" | uniq | paste -sd' ')"
done

if [ $quick = yes ]; then
    say "NOT checked with --quick: clang, races, aarch64"
elif [ -n "$clang" ] && [ "$(openmp_of "$clang")" = -fopenmp ]; then
    build threads "$clang" -march=native -g1 -fopenmp -fsanitize=thread
    # the libraries of OpenMP itself are not made for ThreadSanitizer
    TSAN_OPTIONS="ignore_noninstrumented_modules=1 halt_on_error=1" "$scratch/threads/driver" >/dev/null
    say "nothing for ThreadSanitizer"
else
    say "NOT checked: races, for which there has to be a clang with its OpenMP (Debian: clang libomp-dev)"
fi

if [ $quick = yes ]; then
    :
elif command -v qemu-aarch64 aarch64-linux-gnu-gcc >/dev/null; then
    build aarch64 aarch64-linux-gnu-gcc -static -fopenmp
    OMP_WAIT_POLICY=passive qemu-aarch64 "$scratch/aarch64/driver" 1 >"$scratch/aarch64/numbers"
    compare aarch64 || { say "other numbers on aarch64" >&2; exit 1; }
    say "no warnings for aarch64, the same numbers"
else
    say "NOT checked: aarch64, for which there have to be qemu-user and gcc-aarch64-linux-gnu"
fi

export XDG_CACHE_HOME=$scratch PYTHONPATH=$PWD:$PWD/tests${PYTHONPATH:+:$PYTHONPATH}
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive OPENBLAS_NUM_THREADS=1 MPLBACKEND=Agg
tests=(tests/stencil/test_{entries,vec_map,walls,extract,renumbered}.py tests/backends/test_{loop,cpu_hierarchy,cpu_half,cpu_rings,parts}.py)
if [ $quick = no ]; then
    for target in "${targets[@]}"; do
        [ "$target" != -march=native ] || continue # those of the test suite
        PETSC_DCDM_CFLAGS=$target .venv/bin/python -m pytest -q -p no:cacheprovider "${tests[@]}"
        say "tests passed for ${target#-march=}"
    done
else
    # one library only: to compile it for the sanitizers takes longer than the tests
    tests=(tests/stencil/test_{entries,vec_map,walls}.py -k
        "a_matrix or packed_extraction or named or copied or numpy_agree or packed_faces")
fi

# The runtime has to be the first library of the process, which Python is not linked with.
shared=
case $("$compiler" --version | head -n 1) in
    *clang*) shared=-shared-libasan runtime=$("$compiler" -print-file-name="libclang_rt.asan-$(uname -m).so") ;;
    *) runtime=$("$compiler" -print-file-name=libasan.so) ;;
esac
[ -e "$runtime" ] || { echo "check_native.sh: $compiler has no AddressSanitizer ($runtime)" >&2; exit 1; }
sanitizers="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1 $shared"
export CC="$compiler $sanitizers" XDG_CACHE_HOME=$scratch/sanitized
# Leaks are Python's. -s: what a sanitizer prints before it ends the process is not to end in pytest's files.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
LD_PRELOAD=$runtime .venv/bin/python -m pytest -q -s -x -p no:cacheprovider -p exact_memory "${tests[@]}"

# The driver with the library that those tests have compiled, which takes longer than all else here.
name="from petsc_dcdm.native.build import library; print(library()._name)"
library=$(LD_PRELOAD=$runtime .venv/bin/python -c "$name")
"$compiler" $sanitizers -std=gnu11 -Ipetsc_dcdm/native/src -march=native "$(openmp_of "$compiler")" \
    tests/native/driver/*.c "$library" -Wl,-rpath,"$(dirname "$library")" -lm -o "$scratch/memory"
LD_PRELOAD=$runtime "$scratch/memory" $([ $quick = no ] || echo 1) >/dev/null # one thread
say "nothing for AddressSanitizer and UndefinedBehaviorSanitizer in the driver"
