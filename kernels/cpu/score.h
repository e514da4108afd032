// A Program as the kernels read it: a list of steps without pointers, and constants. cgo gives Go the same types,
// so that the layouts cannot differ.
#ifndef LAPWING_SCORE_H
#define LAPWING_SCORE_H
#include <stdint.h>

enum {
	OP_LOAD,  // out = columns of the rows, mapped: width, column
	OP_MAP,   // out = in, mapped: width, column
	OP_UNMAP, // out = in, mapped by the inverse: width, column
	OP_GEMM,  // out = act(W·in + b): width inputs, outs outputs
	OP_DIFF,  // out = in − in2: width
	OP_NORM,  // out = √Σ in²: width
	OP_NEAREST, // out = mean distance to the nearest of each group: width, groups, per
	OP_SPLIT, // out = in²/in2: width
	OP_SPLIT_NEAREST, // out = the shares of a nearest in2: width, groups, per
	OP_SCALE, // out = weight·in: width
	OP_ADD,   // out = out + weight·in: width
	OP_STORE, // the caller's slice number out = in: width
};

// As kernels.Activation counts them.
enum { ACT_LINEAR, ACT_RELU, ACT_TANH, ACT_SIGMOID, ACT_LEAKY_RELU, ACT_ELU, ACT_GELU };

// A value stands in the tile column by column. in, in2 and out count columns from the tile's beginning.
typedef struct {
	int32_t op, act;
	int32_t in, in2, out;
	int32_t width, outs;
	int32_t groups, per, table; // prototypes of a group; entries of a lookup table, or 0 where it is gathered from
	float weight;
	int64_t column;   // first of the map's columns
	int64_t constant; // first constant: the gemm's biases, then weights in blocks; half squares, then prototypes, then tables
} lapwing_step;

enum { COLUMN_LOG = 1, COLUMN_CLIP = 2, COLUMN_BENT = 4, COLUMN_IMPUTE = 8 };

typedef struct {
	float impute, lo, hi;
	float x, base, slope, before; // the first knot; slope right of it where it is the only one
	int32_t flags;
	int32_t table;    // entries of the knots' tables, 8 to 64; 0 for one knot
	int64_t constant; // tables: knots, bases, slopes
} lapwing_column;

// Outputs that a gemm's block has at most, by level: what the registers hold beside two vectors of input.
#define OUTPUTS_AVX512 14
#define OUTPUTS_AVX2 6
#define OUTPUTS_NEON 12

#define SCORE_ARGUMENTS                                                                                             \
	const lapwing_step *steps, int64_t count, const lapwing_column *columns, const float *constants, float *tile, \
		int64_t tile_rows, const float *rows, int64_t n, int64_t width, float *score, float *reconstruction,        \
		float *contributions
void lapwing_score_avx512(SCORE_ARGUMENTS);
void lapwing_score_avx2(SCORE_ARGUMENTS);
void lapwing_score_neon(SCORE_ARGUMENTS);

// Functions of one variable, by element: what the accuracy tests walk over.
enum { FN_TANH, FN_SIGMOID, FN_EXP, FN_LOG, FN_ELU, FN_GELU };
void lapwing_apply_avx512(int fn, const float *x, float *y, int64_t n);
void lapwing_apply_avx2(int fn, const float *x, float *y, int64_t n);
void lapwing_apply_neon(int fn, const float *x, float *y, int64_t n);

// n rounds of multiply-adds in as many independent chains as hide their latency; gives the number of
// multiply-adds, lanes counted. sink keeps the compiler from dropping them.
double lapwing_peak_avx512(int64_t n, float *sink);
double lapwing_peak_avx2(int64_t n, float *sink);
double lapwing_peak_neon(int64_t n, float *sink);

// Levels as Go names them by number.
enum { LEVEL_NUMBER_AVX2 = 1, LEVEL_NUMBER_AVX512, LEVEL_NUMBER_NEON };
void lapwing_score(int level, SCORE_ARGUMENTS);
void lapwing_apply(int level, int fn, const float *x, float *y, int64_t n);
double lapwing_peak(int level, int64_t n, float *sink);

#endif
