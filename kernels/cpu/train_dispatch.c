//go:build cgo && (amd64 || arm64)

// As dispatch.c, for training.
#include "train.h"

double lapwing_train(int level, TRAIN_ARGUMENTS)
{
	switch (level) {
#ifdef __x86_64__
	case LEVEL_NUMBER_AVX512:
		return lapwing_train_avx512(p, ops, columns, constants, w, tile, rows, n, scale, gradient, add);
	case LEVEL_NUMBER_AVX2:
		return lapwing_train_avx2(p, ops, columns, constants, w, tile, rows, n, scale, gradient, add);
#else
	case LEVEL_NUMBER_NEON:
		return lapwing_train_neon(p, ops, columns, constants, w, tile, rows, n, scale, gradient, add);
#endif
	}
	return 0;
}

void lapwing_adjust(int level, ADJUST_ARGUMENTS)
{
	switch (level) {
#ifdef __x86_64__
	case LEVEL_NUMBER_AVX512:
		lapwing_adjust_avx512(u, w, m, s, shards, n);
		break;
	case LEVEL_NUMBER_AVX2:
		lapwing_adjust_avx2(u, w, m, s, shards, n);
		break;
#else
	case LEVEL_NUMBER_NEON:
		lapwing_adjust_neon(u, w, m, s, shards, n);
		break;
#endif
	}
}

void lapwing_import(int level, IMPORT_ARGUMENTS)
{
	switch (level) {
#ifdef __x86_64__
	case LEVEL_NUMBER_AVX512:
		lapwing_import_avx512(to, from, width, between, n, stride);
		break;
	case LEVEL_NUMBER_AVX2:
		lapwing_import_avx2(to, from, width, between, n, stride);
		break;
#else
	case LEVEL_NUMBER_NEON:
		lapwing_import_neon(to, from, width, between, n, stride);
		break;
#endif
	}
}
