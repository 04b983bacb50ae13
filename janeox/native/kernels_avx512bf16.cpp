// x86 with AVX-512 and its products of bfloat16 pairs, twice as many a second as those of floats (Intel since Cooper Lake,
// AMD since Zen 4). All else is as without.
#include "engine.h"
#ifdef JANEOX_AVX512_BF16
#define BFLOAT16_PRODUCTS
#include "kernels_avx512.cpp"
#endif
