//go:build cgo && (amd64 || arm64)

// One way from Go to all levels. Go chooses the level, by what processor and operating system have.
#include "score.h"

void lapwing_score(int level, SCORE_ARGUMENTS)
{
	switch (level) {
#ifdef __x86_64__
	case LEVEL_NUMBER_AVX512:
		lapwing_score_avx512(steps, count, columns, constants, tile, tile_rows, rows, n, width, score, reconstruction, contributions);
		break;
	case LEVEL_NUMBER_AVX2:
		lapwing_score_avx2(steps, count, columns, constants, tile, tile_rows, rows, n, width, score, reconstruction, contributions);
		break;
#else
	case LEVEL_NUMBER_NEON:
		lapwing_score_neon(steps, count, columns, constants, tile, tile_rows, rows, n, width, score, reconstruction, contributions);
		break;
#endif
	}
}

void lapwing_apply(int level, int fn, const float *x, float *y, int64_t n)
{
	switch (level) {
#ifdef __x86_64__
	case LEVEL_NUMBER_AVX512:
		lapwing_apply_avx512(fn, x, y, n);
		break;
	case LEVEL_NUMBER_AVX2:
		lapwing_apply_avx2(fn, x, y, n);
		break;
#else
	case LEVEL_NUMBER_NEON:
		lapwing_apply_neon(fn, x, y, n);
		break;
#endif
	}
}

double lapwing_peak(int level, int64_t n, float *sink)
{
	switch (level) {
#ifdef __x86_64__
	case LEVEL_NUMBER_AVX512:
		return lapwing_peak_avx512(n, sink);
	case LEVEL_NUMBER_AVX2:
		return lapwing_peak_avx2(n, sink);
#else
	case LEVEL_NUMBER_NEON:
		return lapwing_peak_neon(n, sink);
#endif
	}
	return 0;
}
