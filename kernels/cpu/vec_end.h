// Ends what vec.h began.
#if defined(LEVEL_AVX512) || defined(LEVEL_AVX2)
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
