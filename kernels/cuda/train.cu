// Training: many steps of the optimizer in one launch, over rows that stay in device memory.
//
// A minibatch is cut into groups of 32 rows and those into leaves of four groups, whatever the device and the grid are.
// Every sum has one order: over the rows of a group one by one, over the groups of a leaf in pairs, over the leaves of a
// batch in eight chains and those in pairs. So the same bytes come out of any grid on any device, without atomics.
//
// A block holds a lot of groups as a tile: a value's units (its columns) stand one after another, each with the group's 32
// rows side by side, STRIDE words apart. Shared memory gives a word a lane where the processor could do four products, so
// every word is used several times: a warp computes eight outputs (or four) of a product for a leaf, four rows a lane
// (train_values.cuh); a thread eight by four weights of a gradient (or fewer) over 32 rows (train_gradient.cuh). What no step
// of the optimizer changes, the maps above all, train_prepare computes once.
//
// Blocks leave the gradient of each leaf in a slot. Behind a barrier each adds up the slots of its share of the parameters
// and steps them (train_update.cuh); behind a second one all take the new weights.
#include "train.cuh"
#include "train_gradient.cuh"
#include "train_loss.cuh"
#include "train_update.cuh"
#include "train_values.cuh"

// By four rows a lane where the lot has whole leaves, by two elsewhere.
#define BY_ROWS(CALL4, CALL2) \
	if (l.whole)          \
		CALL4;         \
	else                  \
		CALL2

// pass_lot goes forward, and backward where asked, over the groups from first on.
template <bool SHARED_TILE> INLINE void pass_lot(const train_model &m, const train_step &s, const train_work *work, const float *layout, const train_lot &l, int first, int phases)
{
	take(m, s, l, first);
	int forward = m.forward, backward = phases & DO_BACKWARD ? m.backward : 0;
	for (int i = 0; i < forward; i++) {
		const train_op o = work[i].o;
		__syncthreads();
		if (o.kind == TRAIN_COMBINE) {
			BY_ROWS(combine<4>(o, l), combine<2>(o, l));
			continue;
		}
		BY_ROWS((products<false, 4>(o, layout, l)), (products<false, 2>(o, layout, l)));
		if (!quick(o.act)) {
			__syncthreads();
			BY_ROWS(bend<4>(o, l), bend<2>(o, l));
		}
	}
	__syncthreads();
	BY_ROWS(residual<4>(m, s, l, first, backward > 0), residual<2>(m, s, l, first, backward > 0));
	// A lot of two groups is half a leaf: the second half is added to the first.
	int split = l.whole ? LEAF : LEAF / 2;
	bool add = first % LEAF != 0;
	float *slots = m.slots + (size_t)(first / LEAF) * m.slot;
	for (int i = forward; i < forward + backward; i++) {
		const train_work &w = work[i]; // each part takes from shared memory what it needs
		const train_op &o = w.o;
		if (FAULT != 201)
			__syncthreads();
		if (o.kind == TRAIN_COMBINE) {
			BY_ROWS(combine<4>(o, l), combine<2>(o, l));
			continue;
		}
		if (o.through) {
			BY_ROWS(slopes<4>(o.act, o.out, o.dy, o.y, o.slope, true, l), slopes<2>(o.act, o.out, o.dy, o.y, o.slope, true, l));
			__syncthreads();
		}
		bias_gradient(m, o, l, slots, split, add);
		if (SHARED_TILE && w.shape == 0)
			weight_gradient<8, 4>(m, w, l, slots, split, add);
		else if (w.shape == 1)
			weight_gradient<4, 4>(m, w, l, slots, split, add);
		else
			weight_gradient<2, 2>(m, w, l, slots, split, add);
		if (o.dx < 0)
			continue;
		if (FAULT != 202)
			__syncthreads(); // dx may stand where x does
		if (!quick(o.next_act)) {
			BY_ROWS(slopes<4>(o.next_act, o.in, o.dx, o.next_y, o.next_slope, false, l), slopes<2>(o.next_act, o.in, o.dx, o.next_y, o.next_slope, false, l));
			__syncthreads();
		}
		BY_ROWS((products<true, 4>(o, layout, l)), (products<true, 2>(o, layout, l)));
	}
	__syncthreads();
}

// copy_layout brings the layout, which is whole quads, to shared memory. Loads first, as in take.
INLINE void copy_layout(float *to, const float *from, int quads, int t)
{
	for (int k = t; k < quads; k += 4 * (int)blockDim.x) {
		quad q[4];
#pragma unroll
		for (int j = 0; j < 4; j++) {
			int at = k + j * (int)blockDim.x;
			q[j] = quad_at(from + 4 * (at < quads ? at : k));
		}
#pragma unroll
		for (int j = 0; j < 4; j++) {
			int at = k + j * (int)blockDim.x;
			if (at < quads)
				*(quad *)(to + 4 * at) = q[j];
		}
	}
}

// row_ahead is the row that this thread asks for before the next step, −1 for none.
INLINE int row_ahead(const train_model &m, const train_step &next, int rank, int blocks, int run, int t)
{
	int some = run * GROUP, row = t + (rank + (t >= some ? blocks - 1 : 0)) * some;
	return t < 2 * some && row < next.n ? m.order[next.first + row] : -1;
}

// train does steps from … from+count−1 of the model that this block is one of blocks for. Shared memory: the header, the
// operations, the layout where weights are shared, the tile where that is.
template <bool SHARED_WEIGHTS, bool SHARED_TILE>
INLINE void train(const train_model *models, int blocks, int from, int count, int phases, float *memory)
{
	int rank = (int)blockIdx.x % blocks, t = (int)threadIdx.x;
	// The model stands in shared memory: registers are for sums.
	train_model &m = *(train_model *)(memory + 4);
	if (t == 0)
		m = models[(int)blockIdx.x / blocks];
	__syncthreads();
	float *steps = memory + HEADER - 2 * STEP;
	train_work *work = (train_work *)(memory + HEADER);
	int operations = m.forward + m.backward;
	for (int i = t; i < operations; i += (int)blockDim.x)
		work[i] = work_of<SHARED_TILE>(m.ops[i], m.lot);
	float *weights = memory + HEADER + operations * WORK;
	const float *layout = SHARED_WEIGHTS ? weights : m.layout;
	train_lot l;
	l.tile = SHARED_TILE ? weights + (SHARED_WEIGHTS ? m.layout_words : 0) : m.scratch + (size_t)rank * m.lot * m.group_words;
	l.words = m.group_words, l.whole = !SHARED_TILE || m.lot >= LEAF;
	l.warp = t / GROUP, l.warps = (int)blockDim.x / GROUP, l.lane = t % GROUP;
	unsigned passed = 0;
	// An earlier launch met a loss that is not finite. This launch may meet one while this block begins.
	unsigned stopped = load_acquire(m.state + 1);
	if (stopped && (int)stopped <= from)
		return;
	if (t == 0)
		*(train_step *)(steps + from % 2 * STEP) = m.steps[from];
	__syncthreads();
	int run = m.lot < LEAF ? LEAF : m.lot; // groups that a block takes at a time: whole leaves
	for (int i = from; i < from + count; i++) {
		const train_step &s = *(const train_step *)(steps + i % 2 * STEP), &next = *(const train_step *)(steps + (i + 1) % 2 * STEP);
		if (s.n == 0) // this model makes fewer steps than others
			return;
		if (t == 0)
			*(train_step *)(steps + (i + 1) % 2 * STEP) = i + 1 < from + count ? m.steps[i + 1] : train_step{};
		int groups = (s.n + GROUP - 1) / GROUP;
		if (phases & DO_FORWARD) {
			if (SHARED_WEIGHTS && (blocks > 1 || i == from))
				copy_layout(weights, m.layout, m.layout_words / 4, t);
			for (int first = rank * run; first < groups; first += blocks * run)
				for (int at = first; at < first + run && at < groups; at += m.lot) {
					l.active = groups - at < m.lot ? groups - at : m.lot;
					pass_lot<SHARED_TILE>(m, s, work, layout, l, at, phases);
				}
			if (blocks > 1 && (phases & DO_LOSS))
				grid_barrier(m.barrier, ++passed * (unsigned)blocks);
			else
				__syncthreads();
		}
		if (phases & DO_LOSS) {
			// One warp adds up the loss while all make the step; none of it is kept before the loss is known.
			int ahead = phases & DO_FORWARD ? row_ahead(m, next, rank, blocks, run, t) : -1; // no barrier stands before next elsewhere
			if (l.warp == l.warps - 1)
				add_losses(m, s, (double *)memory, l.lane);
			bool known = false;
			int apart = blocks * (int)blockDim.x, all = phases & (DO_STEP | DO_GRADIENT) ? m.parameter_count : 0;
			for (int at = rank * (int)blockDim.x; at < all || !known; at += FEW * apart) {
				train_change c;
				if (all)
					change(c, m, s, at + t, apart, blocks, phases);
				if (!known) {
					if (ahead >= 0)
						for (int k = 0; k < m.pitch; k += 8)
							prefetch(m.rows + (size_t)ahead * m.pitch + k);
					__syncthreads();
					known = true;
					double loss = *(double *)memory;
					bool finite = loss - loss == 0.0;
					if (rank == 0 && t == 0) {
						m.losses[i] = loss;
						if (finite || !(phases & DO_STEP))
							m.state[0] = (unsigned)i + 1;
						else
							store_release(m.state + 1, (unsigned)i + 1);
					}
					if (!finite && (phases & DO_STEP) && FAULT != 203)
						return;
				}
				if (all)
					keep(c, m, at + t, apart, phases, SHARED_WEIGHTS && blocks == 1 ? weights : nullptr);
			}
			if (blocks > 1 && (phases & DO_FORWARD))
				grid_barrier(m.barrier, ++passed * (unsigned)blocks);
			else
				__syncthreads();
		}
	}
}

#define TRAIN_PARAMETERS const train_model *models, int blocks, int from, int count, int phases

// Weights and values in shared memory.
extern "C" __global__ void __launch_bounds__(256, 1) train_shared(TRAIN_PARAMETERS)
{
	DYNAMIC_SHARED(float, memory);
	train<true, true>(models, blocks, from, count, phases, memory);
}

// Values in shared memory; there are too many weights.
extern "C" __global__ void __launch_bounds__(256, 1) train_weights(TRAIN_PARAMETERS)
{
	DYNAMIC_SHARED(float, memory);
	train<false, true>(models, blocks, from, count, phases, memory);
}

// The wide path: all in device memory.
extern "C" __global__ void __launch_bounds__(256, 1) train_wide(TRAIN_PARAMETERS)
{
	DYNAMIC_SHARED(float, memory);
	train<false, false>(models, blocks, from, count, phases, memory);
}

// train_prepare computes up to three values that no step changes, for n raw rows, and leaves them at their words of the
// prepared rows. tiles has room for the program's values, height columns a row of every thread.
extern "C" __global__ void __launch_bounds__(128, 4) train_prepare(const float *rows, int n, int width, int input_at, const program_step *steps,
	int count, const float *constants, float *tiles, int height, float *prepared, int pitch, int at0, int width0, int to0, int at1,
	int width1, int to1, int at2, int width2, int to2)
{
	int threads = (int)(gridDim.x * blockDim.x), t = (int)(blockIdx.x * blockDim.x + threadIdx.x);
	tile_row row = {tiles + t, (size_t)threads};
	for (int r = t; r < n; r += threads) {
		const float *from = rows + (size_t)r * width;
		float *to = prepared + (size_t)r * pitch;
		if (input_at >= 0)
			for (int j = 0; j < width; j++)
				*row.column(input_at + j) = from[j];
		evaluate(steps, count, constants, row);
		for (int j = 0; j < width0; j++)
			to[to0 + j] = *row.column(at0 + j);
		for (int j = 0; j < width1; j++)
			to[to1 + j] = *row.column(at1 + j);
		for (int j = 0; j < width2; j++)
			to[to2 + j] = *row.column(at2 + j);
	}
}

KERNEL(train_shared)
KERNEL(train_weights)
KERNEL(train_wide)
KERNEL(train_prepare)
