// What a model, its steps and its operations are in memory, and how a block holds rows: shared by train.cu and the parts of a step.
// training.go and cohort.go have the same.
#ifndef LAPWING_TRAIN_CUH
#define LAPWING_TRAIN_CUH

#include "program.cuh"

enum { GROUP = 32, LEAF = 4, STRIDE = 36 }; // STRIDE: four words at a time, eight neighbouring units, meet every bank once

// What a launch does.
enum {
	DO_FORWARD = 1,  // losses of groups
	DO_BACKWARD = 2, // slots of leaves
	DO_LOSS = 4,     // the step's loss
	DO_STEP = 8,     // the optimizer's step, if the loss is finite; otherwise no later step is done
	DO_GRADIENT = 16 // the gradient is written out
};

enum { TRAIN_PRODUCT, TRAIN_COMBINE };

// One operation, forward or backward. x, y, slope, dy and dx are units of the tile.
struct train_op {
	int kind, act;
	int in, out;  // widths
	int x, y;     // y = act(W·x + b), or y = weight·x
	int slope;    // gelu's derivative
	int dy, dx;   // gradients; dx < 0: not wanted
	int add;      // to what stands at y of a combination or at dx
	int through;  // dy is still to be taken through the activation
	int next_act; // the activation that dx is taken through on the way, −1 for none …
	int next_y, next_slope;
	int columns, rows; // the weights in the layout: biases and then input by input; output by output
	int w, b;          // parameters
	float weight;
};

// One step: rows order[first], …, n of them.
struct train_step {
	int first, n;
	float scale; // of the gradient: 1/(n·width)
	float rate, correction1, correction2;
};

// One model. Addresses are of device memory.
struct train_model {
	const train_op *ops;
	const float *rows; // prepared, pitch words apart
	const int *order;
	const train_step *steps;
	double *losses;    // by step
	unsigned *state;   // steps done; 1 + the step whose loss was not finite, 0 where all were
	unsigned *barrier; // counts blocks that came to a barrier, 0 before a launch
	float *parameters, *moment1, *moment2;
	float *layout;       // the weights as products read them
	const int *places;   // two for each parameter: where it stands in the layout, −1 for nowhere
	float *slots;        // of leaves, slot words apart
	double *group_losses;
	float *gradient;
	float *scratch; // tiles of blocks where they do not fit shared memory
	int forward, backward; // operations
	int pitch, loaded;     // of a prepared row: words, and how many of them are units 0, 1, … of the tile
	int group_words;       // of the tile
	int lot;               // groups in the tile: 2, 4 or 8, of train_wide 4
	int parameter_count, slot, layout_words;
	int width, prediction, target, gradient_unit; // of the residual; units
	int last_act, last_y, last_slope;             // as next_act, of the prediction
	int huber, sgd;
	float delta;
};

// An operation as a block works on it: with the cut of its weights' gradients.
struct train_work {
	train_op o;
	int shape;        // weights of a thread: 0 = 8×4, 1 = 4×4, 2 = 2×2
	int down, across; // threads for all weights
	int cells;        // down·across
	unsigned inverse; // of across, for __umulhi; 0: divide
};

// What stands in shared memory before the layout, in words: a loss, the model, two steps, and behind these the operations.
enum { STEP = 8, HEADER = 4 + sizeof(train_model) / 4 + 2 * STEP, WORK = sizeof(train_work) / 4 };
static_assert(sizeof(train_step) <= 4 * STEP && HEADER % 4 == 0 && WORK % 4 == 0, "quads need their alignment");

// A lot in the tile.
struct train_lot {
	float *tile;
	int words, active; // of a group; groups
	int warp, warps, lane;
	bool whole; // leaves: a warp takes four groups at a time, four rows a lane; otherwise two and two
	__device__ __forceinline__ float *unit(int group, int u) const { return tile + group * words + u * STRIDE; }
	// Unit 0 of this lane's rows among R groups.
	template <int R> __device__ __forceinline__ float *origin(int bundle) const { return tile + (bundle * R + lane * R / GROUP) * words + lane * R % GROUP; }
	template <int R> __device__ __forceinline__ int bundles() const { return (active + R - 1) / R; } // at most 2
};

// R rows of a unit.
template <int R> struct alignas(4 * R) some_rows {
	float r[R];
};
template <int R> INLINE some_rows<R> rows_at(const float *p) { return *(const some_rows<R> *)p; }
template <int R> INLINE void put_rows(float *p, const some_rows<R> &v) { *(some_rows<R> *)p = v; }

// each_unit calls f for every unit and bundle of R groups, a warp each.
template <int R, class F> INLINE void each_unit(const train_lot &l, int width, F f)
{
	for (int i = l.warp; i < l.bundles<R>() * width; i += l.warps) {
		int bundle = i >= width ? 1 : 0;
		f(l.origin<R>(bundle), i - bundle * width);
	}
}

#endif
