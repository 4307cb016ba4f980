/* What this library was compiled for, for views. */
#include "common.h"

#define TEXT(x) #x
#define NUMBER(x) TEXT(x)

const char *dcdm_about(void) {
    return
#if defined(__clang__)
        "clang " NUMBER(__clang_major__)
#elif defined(__GNUC__)
        "gcc " NUMBER(__GNUC__)
#else
        "C"
#endif
#if defined(__AVX512BF16__)
        ", AVX-512 with bf16"
#elif defined(__AVX512F__)
        ", AVX-512"
#elif defined(__AVX2__)
        ", AVX2"
#elif defined(__AVX__)
        ", AVX"
#elif defined(__ARM_NEON)
        ", NEON"
#else
        ", 128-bit vectors"
#endif
#if !defined(_OPENMP)
        ", without OpenMP: one thread whatever is asked for"
#endif
        ;
}
