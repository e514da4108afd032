// Training: many steps of the optimizer in one launch, over rows that stay in device memory.
//
// A minibatch is cut into groups of 32 rows and those into leaves of four groups, whatever the device and the grid are.
// Every sum has one order: over the rows of a group one by one, over the groups of a leaf in pairs, over the leaves of a
// batch in eight chains and those in pairs. So the same bytes come out of any grid on any device, without atomics.
//
// A block holds a lot of groups as a tile: a value's units (its columns) stand one after another, each with the group's 32
// rows side by side, STRIDE words apart. A warp computes eight outputs of a product for 32 rows, a row a lane; a thread
// four by four weights of a gradient over 32 rows. What no step of the optimizer changes, the maps above all, train_prepare
// computes once.
//
// Blocks leave the gradient of each leaf in a slot. Behind a barrier each adds up the slots of its share of the parameters
// and steps them; behind a second one all take the new weights.
#include "program.cuh"

enum { GROUP = 32, LEAF = 4, STRIDE = 36 }; // STRIDE: four words at a time, eight neighbouring units, meet every bank once

// What a launch does; train.go has the same.
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
	int lot;               // groups in the tile: 2, 4 or 8
	int parameter_count, slot, layout_words;
	int width, prediction, target, gradient_unit; // of the residual; units
	int last_act, last_y, last_slope;             // as next_act, of the prediction
	int huber, sgd;
	float delta;
};

// A lot in the tile.
struct train_lot {
	float *tile;
	int words, active; // of a group; groups
	int warp, warps, lane;
	__device__ __forceinline__ float *unit(int group, int u) const { return tile + (size_t)group * words + (size_t)u * STRIDE; }
};

// slope_at is the derivative of an activation where its result is y; gelu's was kept.
INLINE float slope_at(int act, float y, const float *kept)
{
	switch (act) {
	case ACT_RELU:
		return 0.0f < y ? 1.0f : 0.0f;
	case ACT_TANH:
		return fmaf(-y, y, 1.0f);
	case ACT_SIGMOID:
		return y * (1.0f - y);
	case ACT_LEAKY_RELU:
		return 0.0f < y ? 1.0f : 0.01f;
	case ACT_ELU:
		return 0.0f < y ? 1.0f : y + 1.0f;
	case ACT_GELU:
		return *kept;
	}
	return 1.0f;
}

// take brings rows into the tile, eight words of four rows at a time: whole sectors of memory, and every bank once.
INLINE void take(const train_model &m, const train_step &s, const train_lot &l, int first)
{
	int blocks = (m.loaded + 7) / 8, word = l.lane & 7, some = l.lane >> 3;
	for (int i = l.warp; i < l.active * blocks; i += l.warps) {
		int group = i / blocks, u = i % blocks * 8 + word;
		float *to = l.unit(group, u), v[GROUP / 4];
		int number[GROUP / 4], row = (first + group) * GROUP + some;
		// All loads stand before the first store: the compiler must take the tile for a part of the rows, and would wait for each.
#pragma unroll
		for (int r = 0; r < GROUP / 4; r++)
			number[r] = row + 4 * r < s.n ? m.order[s.first + row + 4 * r] : -1;
#pragma unroll
		for (int r = 0; r < GROUP / 4; r++)
			v[r] = u < m.loaded && number[r] >= 0 ? m.rows[(size_t)number[r] * m.pitch + u] : 0.0f;
#pragma unroll
		for (int r = 0; r < GROUP / 4; r++)
			if (u < m.loaded)
				to[some + 4 * r] = v[r];
	}
}

// product adds to a[] the sum over depth of x and T neighbouring words of w.
template <int T> INLINE void product(float (&a)[T], const float *w, int pitch, const float *x, int depth)
{
	for (int k = 0; k < depth; k++, w += pitch, x += STRIDE) {
		float e = *x;
#pragma unroll
		for (int t = 0; t < T; t += 4) {
			quad q = quad_at(w + t);
			a[t] = fmaf(q.a, e, a[t]), a[t + 1] = fmaf(q.b, e, a[t + 1]);
			a[t + 2] = fmaf(q.c, e, a[t + 2]), a[t + 3] = fmaf(q.d, e, a[t + 3]);
		}
	}
}

template <int T> INLINE void forward_tile(const train_op &o, const float *layout, const train_lot &l, int group, int at)
{
	int pitch = (o.out + 3) / 4 * 4;
	const float *w = layout + o.columns + at;
	float a[T];
#pragma unroll
	for (int t = 0; t < T; t++)
		a[t] = w[t];
	product<T>(a, w + pitch, pitch, l.unit(group, o.x) + l.lane, o.in);
	float *y = l.unit(group, o.y + at) + l.lane, *slope = l.unit(group, o.slope + at) + l.lane;
#pragma unroll
	for (int t = 0; t < T; t++) {
		if (at + t >= o.out)
			break;
		if (o.act == ACT_GELU)
			y[t * STRIDE] = gelu_of(a[t], slope + t * STRIDE);
		else
			y[t * STRIDE] = activated(o.act, a[t]);
	}
}

template <int T> INLINE void backward_tile(const train_op &o, const float *layout, const train_lot &l, int group, int at)
{
	float a[T];
#pragma unroll
	for (int t = 0; t < T; t++)
		a[t] = 0.0f;
	product<T>(a, layout + o.rows + at, (o.in + 3) / 4 * 4, l.unit(group, o.dy) + l.lane, o.out);
	float *dx = l.unit(group, o.dx + at) + l.lane;
	const float *y = l.unit(group, o.next_y + at) + l.lane, *slope = l.unit(group, o.next_slope + at) + l.lane;
#pragma unroll
	for (int t = 0; t < T; t++) {
		if (at + t >= o.in)
			break;
		float d = a[t];
		if (o.next_act >= 0)
			d = d * slope_at(o.next_act, y[t * STRIDE], slope + t * STRIDE);
		dx[t * STRIDE] = o.add ? dx[t * STRIDE] + d : d;
	}
}

// By eight outputs where that leaves every warp something to do, by four elsewhere. An output's sum is the same.
#define EACH_TILE(TILE, WIDTH)                                                            \
	{                                                                                 \
		int by = l.active * (((WIDTH) + 7) / 8) >= l.warps ? 8 : 4;               \
		int tiles = ((WIDTH) + by - 1) / by;                                      \
		for (int i = l.warp; i < l.active * tiles; i += l.warps) {                \
			int group = i / tiles, at = i % tiles * by;                       \
			if (by == 8 && (WIDTH) - at > 4)                                  \
				TILE<8>(o, layout, l, group, at);                         \
			else                                                              \
				TILE<4>(o, layout, l, group, at);                         \
		}                                                                         \
	}

// combine is y = weight·x, or y + weight·x.
INLINE void combine(const train_op &o, const train_lot &l)
{
	for (int i = l.warp; i < l.active * o.out; i += l.warps) {
		int group = i / o.out, u = i % o.out;
		float *y = l.unit(group, o.y + u) + l.lane, t = o.weight * l.unit(group, o.x + u)[l.lane];
		*y = o.add ? *y + t : t;
	}
}

// overflowed is a part of the loss in float64, which most devices are 32 times slower at.
static __device__ double overflowed(const float *y, const float *t, int some, int huber, float delta)
{
	double whole = 0.0;
	for (int i = 0; i < some; i++) {
		float e = y[i * STRIDE] - t[i * STRIDE], q = huber ? at_least(-delta, at_most(delta, e)) : e;
		whole += huber ? (double)q * ((double)e - 0.5 * (double)q) : (double)e * (double)e;
	}
	return whole;
}

// residual leaves the gradient of the prediction, 0 from row n on, and each group's loss. Eight squares are added up in
// float32; where one overflows, again in float64.
INLINE void residual(const train_model &m, const train_step &s, const train_lot &l, int first, bool backward)
{
	for (int group = l.warp; group < l.active; group += l.warps) {
		const float *y = l.unit(group, m.prediction) + l.lane, *t = l.unit(group, m.target) + l.lane;
		const float *last = l.unit(group, m.last_y) + l.lane, *slope = l.unit(group, m.last_slope) + l.lane;
		float *d = l.unit(group, m.gradient_unit) + l.lane;
		bool real = (first + group) * GROUP + l.lane < s.n;
		float by = m.huber ? s.scale : 2.0f * s.scale;
		double sum = 0.0;
		for (int u = 0; u < m.width; u += 8) {
			int some = m.width - u < 8 ? m.width - u : 8;
			float part = 0.0f;
			for (int i = 0; i < some; i++) {
				int at = (u + i) * STRIDE;
				float e = y[at] - t[at], q = e;
				if (m.huber) {
					q = at_least(-m.delta, at_most(m.delta, e));
					part = fmaf(q, fmaf(-0.5f, q, e), part);
				} else
					part = fmaf(e, e, part);
				if (backward) {
					float g = real ? q * by : 0.0f;
					if (m.last_act >= 0)
						g = g * slope_at(m.last_act, last[at], slope + at);
					d[at] = g;
				}
			}
			sum += magnitude(part) < float_of(0x7f800000) ? (double)part : overflowed(y + u * STRIDE, t + u * STRIDE, some, m.huber, m.delta);
		}
		if (!real)
			sum = 0.0;
		for (int k = 16; k > 0; k /= 2)
			sum += __shfl_xor_sync(0xffffffffu, sum, k);
		if (l.lane == 0)
			m.group_losses[first + group] = sum;
	}
}

// leaf_sum adds up the lanes that stand for the groups of a leaf.
INLINE float leaf_sum(float v, int split)
{
	for (int k = 1; k < split; k *= 2)
		v += __shfl_xor_sync(0xffffffffu, v, k);
	return v;
}

// weight_gradient leaves in the slots, or adds, Σ over a leaf's rows of dy·x. Neighbouring lanes take the same weights for
// the groups of a leaf, of which the lot has split. A thread's units are count apart, so that neighbours read neighbours.
template <int N> INLINE void weight_gradient(const train_model &m, const train_op &o, const train_lot &l, float *slots, int split, bool add)
{
	int down = (o.out + N - 1) / N, across = (o.in + N - 1) / N, leaves = (l.active + split - 1) / split;
	int count = leaves * down * across * split, all = l.warps * GROUP;
	for (int i = l.warp * GROUP + l.lane; i < (count + GROUP - 1) / GROUP * GROUP; i += all) {
		int part = i & (split - 1), rest = i / split;
		int column = rest % across, row = rest / across % down, leaf = rest / across / down;
		int group = leaf * split + part;
		float sum[N][N];
#pragma unroll
		for (int a = 0; a < N * N; a++)
			sum[a / N][a % N] = 0.0f;
		if (i < count && group < l.active) {
			int dy[N], x[N]; // words from the tile: pointers would take two registers each
#pragma unroll
			for (int a = 0; a < N; a++) {
				int r = row + a * down, c = column + a * across;
				dy[a] = (int)(l.unit(group, o.dy + (r < o.out ? r : o.out - 1)) - l.tile);
				x[a] = (int)(l.unit(group, o.x + (c < o.in ? c : o.in - 1)) - l.tile);
			}
#pragma unroll 1
			for (int at = 0; at < GROUP; at += 4) {
				quad e[N];
#pragma unroll
				for (int c = 0; c < N; c++)
					e[c] = quad_at(l.tile + x[c] + at);
#pragma unroll
				for (int a = 0; a < N; a++) {
					quad d = quad_at(l.tile + dy[a] + at);
#pragma unroll
					for (int c = 0; c < N; c++) {
						float t = fmaf(d.a, e[c].a, sum[a][c]);
						t = fmaf(d.b, e[c].b, t);
						t = fmaf(d.c, e[c].c, t);
						sum[a][c] = fmaf(d.d, e[c].d, t);
					}
				}
			}
		}
		// The lanes of a leaf share out the sums as they add them up, half to either lane of a pair: as leaf_sum, for fewer shuffles.
		float *sums = &sum[0][0];
		bool high = (part & 1) != 0;
		int mine = high ? N * N / 2 : 0;
#pragma unroll
		for (int t = 0; t < N * N / 2; t++) {
			float give = high ? sums[t] : sums[t + N * N / 2], keep = high ? sums[t + N * N / 2] : sums[t];
			sums[t] = keep + __shfl_xor_sync(0xffffffffu, give, 1);
		}
		int left = N * N / 2;
		if (split == LEAF) {
			high = (part & 2) != 0;
			mine += high ? N * N / 4 : 0;
			left = N * N / 4;
#pragma unroll
			for (int t = 0; t < N * N / 4; t++) {
				float give = high ? sums[t] : sums[t + N * N / 4], keep = high ? sums[t + N * N / 4] : sums[t];
				sums[t] = keep + __shfl_xor_sync(0xffffffffu, give, 2);
			}
		}
		float *slot = slots + (size_t)leaf * m.slot + o.w;
#pragma unroll
		for (int t = 0; t < N * N / 2; t++) {
			int r = row + (mine + t) / N * down, k = column + (mine + t) % N * across;
			if (t < left && i < count && r < o.out && k < o.in) {
				float *to = slot + (size_t)r * o.in + k;
				*to = add ? *to + sums[t] : sums[t];
			}
		}
	}
}

INLINE void bias_gradient(const train_model &m, const train_op &o, const train_lot &l, float *slots, int split, bool add)
{
	int leaves = (l.active + split - 1) / split, count = leaves * o.out * split, all = l.warps * GROUP;
	for (int i = l.warp * GROUP + l.lane; i < (count + GROUP - 1) / GROUP * GROUP; i += all) {
		int part = i % split, unit = i / split % o.out, leaf = i / split / o.out, group = leaf * split + part;
		float sum = 0.0f;
		if (i < count && group < l.active) {
			const float *d = l.unit(group, o.dy + unit);
			for (int at = 0; at < GROUP; at += 4) {
				quad q = quad_at(d + at);
				sum = sum + q.a;
				sum = sum + q.b;
				sum = sum + q.c;
				sum = sum + q.d;
			}
		}
		sum = leaf_sum(sum, split);
		if (i < count && part == 0) {
			float *to = slots + (size_t)leaf * m.slot + o.b + unit;
			*to = add ? *to + sum : sum;
		}
	}
}

// pass_lot goes forward, and backward where asked, over the groups from first on.
INLINE void pass_lot(const train_model &m, const train_step &s, const float *layout, const train_lot &l, int first, int phases)
{
	take(m, s, l, first);
	for (int i = 0; i < m.forward; i++) {
		__syncthreads();
		const train_op o = m.ops[i];
		if (o.kind == TRAIN_COMBINE)
			combine(o, l);
		else
			EACH_TILE(forward_tile, o.out)
	}
	__syncthreads();
	bool backward = (phases & DO_BACKWARD) != 0;
	residual(m, s, l, first, backward);
	// A lot of two groups is half a leaf: the second half is added to the first.
	int split = m.lot < LEAF ? m.lot : LEAF;
	bool add = first % LEAF != 0;
	float *slots = m.slots + (size_t)(first / LEAF) * m.slot;
	for (int i = 0; backward && i < m.backward; i++) {
		if (FAULT != 201)
			__syncthreads();
		const train_op o = m.ops[m.forward + i];
		if (o.kind == TRAIN_COMBINE) {
			combine(o, l);
			continue;
		}
		if (o.through) {
			for (int k = l.warp; k < l.active * o.out; k += l.warps) {
				int group = k / o.out, u = k % o.out;
				float *dy = l.unit(group, o.dy + u) + l.lane;
				*dy = *dy * slope_at(o.act, l.unit(group, o.y + u)[l.lane], l.unit(group, o.slope + u) + l.lane);
			}
			__syncthreads();
		}
		bias_gradient(m, o, l, slots, split, add);
		// By four where that gives every thread something to do, by two elsewhere. A weight's sum is the same.
		if ((l.active * ((o.out + 3) / 4) * ((o.in + 3) / 4)) >= l.warps * GROUP / 2)
			weight_gradient<4>(m, o, l, slots, split, add);
		else
			weight_gradient<2>(m, o, l, slots, split, add);
		if (o.dx < 0)
			continue;
		if (FAULT != 202)
			__syncthreads(); // dx may stand where x does
		EACH_TILE(backward_tile, o.in)
	}
	__syncthreads();
}

// step_parameters adds up the leaves' slots and makes the optimizer's step, or writes the gradient out.
INLINE void step_parameters(const train_model &m, const train_step &s, int rank, int blocks, int phases)
{
	int leaves = ((s.n + GROUP - 1) / GROUP + LEAF - 1) / LEAF;
	for (int i = rank * (int)blockDim.x + (int)threadIdx.x; i < m.parameter_count; i += blocks * (int)blockDim.x) {
		// Loads first, as in take.
		int forward = m.places[2 * i], backward = m.places[2 * i + 1];
		float w = m.parameters[i], moment1 = m.moment1[i], moment2 = m.moment2[i];
		float sum[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
		for (int k = 0; k < leaves; k += 8)
#pragma unroll
			for (int j = 0; j < 8; j++)
				if (k + j < leaves)
					sum[FAULT == 204 ? (j + blocks) & 7 : j] += m.slots[(size_t)(k + j) * m.slot + i];
		float g = ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
		if (phases & DO_GRADIENT) {
			m.gradient[i] = g;
			continue;
		}
		if (m.sgd)
			w = fmaf(-s.rate, g, w);
		else {
			float a = fmaf(0.9f, moment1, (1.0f - 0.9f) * g);
			float b = fmaf(0.999f, moment2, (1.0f - 0.999f) * (g * g));
			m.moment1[i] = a;
			m.moment2[i] = b;
			w = w - (s.rate * (a * s.correction1)) / (sqrtf(b * s.correction2) + 1e-8f);
		}
		m.parameters[i] = w;
		if (forward >= 0)
			m.layout[forward] = w;
		if (backward >= 0)
			m.layout[backward] = w;
	}
}

// add_losses is the step's mean loss, the same in every thread of every block. memory has room for one.
INLINE double add_losses(const train_model &m, const train_step &s, double *memory)
{
	int t = (int)threadIdx.x, groups = (s.n + GROUP - 1) / GROUP;
	if (t < GROUP) {
		double sum = 0.0;
		for (int g = t; g < groups; g += GROUP)
			sum += m.group_losses[g];
		for (int k = 16; k > 0; k /= 2)
			sum += __shfl_xor_sync(0xffffffffu, sum, k);
		if (t == 0)
			*memory = sum / ((double)s.n * (double)m.width);
	}
	__syncthreads();
	return *memory;
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

// train does steps from … from+count−1 of the model that this block is one of blocks for. Shared memory: 16 bytes, the
// layout where weights are shared, the tile where that is.
template <bool SHARED_WEIGHTS, bool SHARED_TILE>
INLINE void train(const train_model *models, int blocks, int from, int count, int phases, float *memory)
{
	const train_model m = models[(int)blockIdx.x / blocks];
	int rank = (int)blockIdx.x % blocks, t = (int)threadIdx.x;
	float *weights = memory + 4;
	const float *layout = SHARED_WEIGHTS ? weights : m.layout;
	train_lot l;
	l.tile = SHARED_TILE ? memory + 4 + (SHARED_WEIGHTS ? m.layout_words : 0) : m.scratch + (size_t)rank * m.lot * m.group_words;
	l.words = m.group_words;
	l.warp = t / GROUP, l.warps = (int)blockDim.x / GROUP, l.lane = t % GROUP;
	unsigned passed = 0;
	// An earlier launch met a loss that is not finite. This launch may meet one while this block begins.
	unsigned stopped = load_acquire(m.state + 1);
	if (stopped && (int)stopped <= from)
		return;
	int run = m.lot < LEAF ? LEAF : m.lot; // groups that a block takes at a time: whole leaves
	for (int i = from; i < from + count; i++) {
		const train_step s = m.steps[i];
		if (s.n == 0) // this model makes fewer steps than others
			return;
		int groups = (s.n + GROUP - 1) / GROUP;
		if (phases & DO_FORWARD) {
			if (SHARED_WEIGHTS)
				copy_layout(weights, m.layout, m.layout_words / 4, t);
			for (int first = rank * run; first < groups; first += blocks * run)
				for (int at = first; at < first + run && at < groups; at += m.lot) {
					l.active = groups - at < m.lot ? groups - at : m.lot;
					pass_lot(m, s, layout, l, at, phases);
				}
			if (blocks > 1 && (phases & DO_LOSS))
				grid_barrier(m.barrier, ++passed * (unsigned)blocks);
			else
				__syncthreads();
		}
		if (phases & DO_LOSS) {
			double loss = add_losses(m, s, (double *)memory);
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
			if (phases & (DO_STEP | DO_GRADIENT))
				step_parameters(m, s, rank, blocks, phases);
			if (blocks > 1 && (phases & DO_FORWARD))
				grid_barrier(m.barrier, ++passed * (unsigned)blocks);
			else
				__syncthreads();
		}
	}
}

#define TRAIN_PARAMETERS const train_model *models, int blocks, int from, int count, int phases

// Weights and values in shared memory.
extern "C" __global__ void __launch_bounds__(384) train_shared(TRAIN_PARAMETERS)
{
	DYNAMIC_SHARED(float, memory);
	train<true, true>(models, blocks, from, count, phases, memory);
}

// Values in shared memory; there are too many weights.
extern "C" __global__ void __launch_bounds__(384) train_weights(TRAIN_PARAMETERS)
{
	DYNAMIC_SHARED(float, memory);
	train<false, true>(models, blocks, from, count, phases, memory);
}

// The wide path: all in device memory. With 384 threads a few registers are missing.
extern "C" __global__ void __launch_bounds__(256) train_wide(TRAIN_PARAMETERS)
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
