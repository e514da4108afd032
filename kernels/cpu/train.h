// What Go hands to the training kernels. As in score.h there are no pointers in it.
#ifndef LAPWING_TRAIN_H
#define LAPWING_TRAIN_H
#include <stdint.h>

#include "score.h"

enum {
	TRAIN_LOAD,    // y = the rows, mapped where column >= 0
	TRAIN_COMBINE, // y = weight·x, or has it added
	TRAIN_PRODUCT, // y = act(W·x + b); on the way back the gradients of all of them
};

// A value or gradient of a block stands unit by unit. Its place counts units from the tile's beginning; parameters are
// counted in floats.
typedef struct {
	int32_t kind, act;
	int32_t in, out; // widths
	int32_t add;     // to what stands there: y of a combination, dx of a product
	float weight;
	int64_t x, y, slope; // slope: of gelu
	int64_t dx, dy;      // dx < 0: not wanted
	int64_t w, b, column;
} lapwing_training_op;

typedef struct {
	int32_t forward, backward; // ops
	int32_t rows;              // of a block, at most
	int32_t stride;            // floats of a unit in the tile
	int32_t huber;
	float delta;
	int32_t width;                        // of the prediction
	int64_t prediction, target, gradient; // places; gradient is the prediction's
} lapwing_training;

typedef struct {
	int32_t sgd, shards;
	int64_t between; // floats from one shard's gradient to the next one's
	float rate, correction1, correction2;
} lapwing_update;

#define TRAIN_ARGUMENTS                                                                                                   \
	const lapwing_training *p, const lapwing_training_op *ops, const lapwing_column *columns, const float *constants, \
		const float *w, float *tile, const float *rows, int n, float scale, float *gradient, int add
#define ADJUST_ARGUMENTS const lapwing_update *u, float *w, float *m, float *s, const float *shards, int64_t n
#define IMPORT_ARGUMENTS float *to, const float *from, int64_t width, int64_t between, int n, int64_t stride

#define TRAIN_AT(level)                                   \
	double lapwing_train_##level(TRAIN_ARGUMENTS);    \
	void lapwing_adjust_##level(ADJUST_ARGUMENTS);    \
	void lapwing_import_##level(IMPORT_ARGUMENTS);
TRAIN_AT(avx512)
TRAIN_AT(avx2)
TRAIN_AT(neon)

double lapwing_train(int level, TRAIN_ARGUMENTS);
void lapwing_adjust(int level, ADJUST_ARGUMENTS);
void lapwing_import(int level, IMPORT_ARGUMENTS);

#endif
