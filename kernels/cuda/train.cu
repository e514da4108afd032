// Training: many steps of the optimizer in one launch, over rows that stay in device memory.
//
// A minibatch is cut into groups of 32 rows and those into leaves of four groups, whatever the device and the grid are.
// Every sum has one order: over the rows of a group one by one, over the groups of a leaf in pairs, over the leaves of a
// batch in eight chains and those in pairs. So the same bytes come out of any grid on any device, without atomics.
//
// A block holds a lot of groups as a tile: a value's units (its columns) stand one after another, each with the group's 32
// rows side by side, STRIDE words apart. Shared memory gives a word a lane where the processor could do four products, so
// every word is used several times: a warp computes eight outputs (or four) of a product for a leaf, four rows a lane; a
// thread eight by four weights of a gradient (or fewer) over 32 rows. What no step of the optimizer changes, the maps above
// all, train_prepare computes once.
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

// quotient is n/d by multiplications: without the branch of the division, behind which the compiler moves nothing, so that
// several values are under way at a time. It is correctly rounded where 2^-98 < |n|, which a test over all arguments of
// tanh shows, and the same bits everywhere.
INLINE float quotient(float n, float d)
{
	float r = float_of(0x7ef311c7 - bits_of(d)); // 1/d within an eighth
	float e = fmaf(-d, r, 1.0f);
	r = fmaf(fmaf(e, e, e), r, r);
	e = fmaf(-d, r, 1.0f);
	r = fmaf(fmaf(e, e, e), r, r);
	float q = n * r;
	return fmaf(fmaf(-d, q, n), r, q);
}

// quick_tanh is tanh_of without its branch, and without its last bounds, which no argument meets.
INLINE float quick_tanh(float x)
{
	float q, n = tanh_parts(0.5f * at_least(-9.0f, at_most(9.0f, x)), &q);
	return quotient((n + n) * q, fmaf(n, n, q * q));
}

// quick tells which activations tiles apply themselves; others take a walk of their own over the units.
INLINE bool quick(int act) { return act < 0 || act == ACT_LINEAR || act == ACT_RELU || act == ACT_TANH; }

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

// take brings rows into the tile, eight words of four rows at a time: whole sectors of memory, and every bank once. Rows from
// n on are 0, up to the last group of a bundle. A warp takes groups; where there are more warps than groups, words of a group.
INLINE void take(const train_model &m, const train_step &s, const train_lot &l, int first)
{
	int shift = !l.whole ? 1 : l.active > LEAF ? 3 : 2, loaded = m.loaded, pitch = m.pitch, n = s.n; // groups are counted by two, four or eight
	int some = l.lane >> 3, helpers = l.warps >> shift > 1 ? l.warps >> shift : 1;
	const int *order = m.order + s.first;
	const float *rows = m.rows;
	for (int i = l.warp; i < helpers << shift; i += l.warps) {
		int group = i & ((1 << shift) - 1), row = (first + group) * GROUP + some, number[GROUP / 4];
#pragma unroll
		for (int r = 0; r < GROUP / 4; r++)
			number[r] = row + 4 * r < n ? order[row + 4 * r] : -1;
#pragma unroll 1
		for (int u = (i >> shift) * 8 + (l.lane & 7); u < (loaded + 7) / 8 * 8; u += 16 * helpers) {
			float v[2][GROUP / 4];
			// All loads stand before the first store: the compiler must take the tile for a part of the rows, and would wait for each.
#pragma unroll
			for (int k = 0; k < 2; k++)
#pragma unroll
				for (int r = 0; r < GROUP / 4; r++)
					v[k][r] = u + 8 * k * helpers < loaded && number[r] >= 0 ? rows[(size_t)number[r] * pitch + u + 8 * k * helpers] : 0.0f;
#pragma unroll
			for (int k = 0; k < 2; k++)
				if (u + 8 * k * helpers < loaded)
#pragma unroll
					for (int r = 0; r < GROUP / 4; r++)
						l.unit(group, u + 8 * k * helpers)[some + 4 * r] = v[k][r];
		}
	}
}

// product adds to a[] the sum over depth of R rows of x and T neighbouring words of w.
template <int T, int R> INLINE void product(float (&a)[T][R], const float *w, int pitch, const float *x, int depth)
{
#pragma unroll 2
	for (int k = 0; k < depth; k++, w += pitch, x += STRIDE) {
		some_rows<R> e = rows_at<R>(x);
#pragma unroll
		for (int t = 0; t < T; t += 4) {
			quad q = quad_at(w + t);
#pragma unroll
			for (int r = 0; r < R; r++) {
				a[t][r] = fmaf(q.a, e.r[r], a[t][r]), a[t + 1][r] = fmaf(q.b, e.r[r], a[t + 1][r]);
				a[t + 2][r] = fmaf(q.c, e.r[r], a[t + 2][r]), a[t + 3][r] = fmaf(q.d, e.r[r], a[t + 3][r]);
			}
		}
	}
}

// forward_tile computes T outputs for R rows a lane.
template <int T, int R> INLINE void forward_tile(const train_op &o, const float *layout, float *origin, int at)
{
	int pitch = (o.out + 3) / 4 * 4, some = o.out - at < T ? o.out - at : T;
	const float *w = layout + o.columns + at;
	float a[T][R], *y = origin + (o.y + at) * STRIDE;
#pragma unroll
	for (int t = 0; t < T; t++)
#pragma unroll
		for (int r = 0; r < R; r++)
			a[t][r] = w[t];
	product<T, R>(a, w + pitch, pitch, origin + o.x * STRIDE, o.in);
#pragma unroll
	for (int t = 0; t < T; t++)
		if (t < some) {
			some_rows<R> v;
#pragma unroll
			for (int r = 0; r < R; r++)
				v.r[r] = o.act == ACT_RELU ? at_least(0.0f, a[t][r]) : a[t][r];
			put_rows<R>(y + t * STRIDE, v);
		}
	if (o.act == ACT_TANH)
#pragma unroll 1
		for (int t = 0; t < some; t++, y += STRIDE) {
			some_rows<R> v = rows_at<R>(y);
#pragma unroll
			for (int r = 0; r < R; r++)
				v.r[r] = quick_tanh(v.r[r]);
			put_rows<R>(y, v);
		}
}

// backward_tile computes dx of T inputs for R rows a lane. Where dx is taken through an activation, that one's result stands
// at dx, or its slope if it is not a quick one.
template <int T, int R> INLINE void backward_tile(const train_op &o, const float *layout, float *origin, int at)
{
	int some = o.in - at < T ? o.in - at : T, act = o.next_act;
	float a[T][R], *dx = origin + (o.dx + at) * STRIDE;
#pragma unroll
	for (int t = 0; t < T; t++)
#pragma unroll
		for (int r = 0; r < R; r++)
			a[t][r] = 0.0f;
	product<T, R>(a, layout + o.rows + at, (o.in + 3) / 4 * 4, origin + o.dy * STRIDE, o.out);
	if (act == ACT_TANH) {
#pragma unroll
		for (int t = 0; t < T; t++)
			if (t < some) {
				some_rows<R> v = rows_at<R>(dx + t * STRIDE);
#pragma unroll
				for (int r = 0; r < R; r++)
					v.r[r] = a[t][r] * fmaf(-v.r[r], v.r[r], 1.0f);
				put_rows<R>(dx + t * STRIDE, v);
			}
		return;
	}
	bool add = o.add != 0, times = act > ACT_LINEAR, relu = act == ACT_RELU;
#pragma unroll
	for (int t = 0; t < T; t++)
		if (t < some) {
			some_rows<R> v;
#pragma unroll
			for (int r = 0; r < R; r++)
				v.r[r] = times ? 1.0f : 0.0f;
			if (add || times)
				v = rows_at<R>(dx + t * STRIDE);
#pragma unroll
			for (int r = 0; r < R; r++) {
				float f = relu ? (0.0f < v.r[r] ? 1.0f : 0.0f) : v.r[r];
				v.r[r] = times ? a[t][r] * f : v.r[r] + a[t][r];
			}
			put_rows<R>(dx + t * STRIDE, v);
		}
}

// products cuts an operation into tiles by eight or by four, as leaves the four schedulers of an SM less to do; a warp that is
// alone on one waits for what it loads. An output's sum is the same.
template <bool BACK, int R> INLINE void products(const train_op &o, const float *layout, const train_lot &l)
{
	int width = BACK ? o.in : o.out, both = l.bundles<R>() > 1 ? 1 : 0;
	int eights = (width + 7) / 8 << both, fours = (width + 3) / 4 << both;
	bool eight = eights > 4 && (eights + 3) / 4 * 2 <= (fours + 3) / 4;
	int tiles = eight ? eights : fours;
#pragma unroll 1
	for (int i = l.warp; i < tiles; i += l.warps) {
		int at = (i >> both) * (eight ? 8 : 4);
		float *origin = l.origin<R>(i & both);
		if (eight && width - at > 4) {
			if (BACK)
				backward_tile<8, R>(o, layout, origin, at);
			else
				forward_tile<8, R>(o, layout, origin, at);
		} else {
			if (BACK)
				backward_tile<4, R>(o, layout, origin, at);
			else
				forward_tile<4, R>(o, layout, origin, at);
		}
	}
}

// combine is y = weight·x, or y + weight·x.
template <int R> INLINE void combine(const train_op &o, const train_lot &l)
{
	each_unit<R>(l, o.out, [&](float *origin, int u) {
		some_rows<R> x = rows_at<R>(origin + (o.x + u) * STRIDE), y = rows_at<R>(origin + (o.y + u) * STRIDE);
		for (int r = 0; r < R; r++) {
			float t = o.weight * x.r[r];
			x.r[r] = o.add ? y.r[r] + t : t;
		}
		put_rows<R>(origin + (o.y + u) * STRIDE, x);
	});
}

// bend applies an activation that is not quick.
template <int R> INLINE void bend(const train_op &o, const train_lot &l)
{
	each_unit<R>(l, o.out, [&](float *origin, int u) {
#pragma unroll 1
		for (int r = 0; r < R; r++) {
			float *y = origin + (o.y + u) * STRIDE + r;
			*y = o.act == ACT_GELU ? gelu_of(*y, origin + (o.slope + u) * STRIDE + r) : activated(o.act, *y);
		}
	});
}

// slopes leaves at `to` the slope of an activation whose result is y, or what stands there times the slope.
template <int R> INLINE void slopes(int act, int width, int to, int y, int slope, bool times, const train_lot &l)
{
	each_unit<R>(l, width, [&](float *origin, int u) {
#pragma unroll 1
		for (int r = 0; r < R; r++) {
			float v = slope_at(act, origin[(y + u) * STRIDE + r], origin + (slope + u) * STRIDE + r), *p = origin + (to + u) * STRIDE + r;
			*p = times ? *p * v : v;
		}
	});
}

// overflowed is a part of a loss in float64, which most devices are 32 times slower at.
static __device__ double overflowed(const float *y, const float *t, int some, int huber, float delta)
{
	double whole = 0.0;
#pragma unroll 1
	for (int i = 0; i < some; i++) {
		float e = y[i * STRIDE] - t[i * STRIDE], q = huber ? at_least(-delta, at_most(delta, e)) : e;
		whole += huber ? (double)q * ((double)e - 0.5 * (double)q) : (double)e * (double)e;
	}
	return whole;
}

// residual leaves the gradient of the prediction, 0 from row n on, and the loss of eight columns of each group. It is added up
// in float32 (the columns one by one, then the rows by two, four, eight, …); where that overflows, in float64.
template <int R> INLINE void residual(const train_model &m, const train_step &s, const train_lot &l, int first, bool backward)
{
	int width = m.width, parts = (width + 7) / 8, both = l.bundles<R>() > 1 ? 1 : 0, groups = (s.n + GROUP - 1) / GROUP;
	int huber = m.huber, act = m.last_act, prediction = m.prediction, target = m.target, gradient = m.gradient_unit;
	float delta = m.delta, by = huber ? s.scale : 2.0f * s.scale;
	for (int i = l.warp; i < parts << both; i += l.warps) {
		int part = i >> both, group = (i & both) * R + l.lane * R / GROUP, some = width - 8 * part < 8 ? width - 8 * part : 8;
		float *origin = l.origin<R>(i & both) + 8 * part * STRIDE;
		const float *y = origin + prediction * STRIDE, *t = origin + target * STRIDE;
		int real = s.n - (first + group) * GROUP - l.lane * R % GROUP; // so many of the R rows are
		float sum[R];
#pragma unroll
		for (int r = 0; r < R; r++)
			sum[r] = 0.0f;
#pragma unroll 2
		for (int u = 0; u < some; u++) {
			some_rows<R> a = rows_at<R>(y + u * STRIDE), b = rows_at<R>(t + u * STRIDE);
#pragma unroll
			for (int r = 0; r < R; r++) {
				float e = a.r[r] - b.r[r];
				if (huber) {
					float q = at_least(-delta, at_most(delta, e));
					sum[r] = fmaf(q, fmaf(-0.5f, q, e), sum[r]);
				} else
					sum[r] = fmaf(e, e, sum[r]);
			}
		}
		float all = 0.0f;
#pragma unroll
		for (int r = 0; r < R; r++)
			sum[r] = r < real ? sum[r] : 0.0f;
		all = R == 4 ? (sum[0] + sum[1]) + (sum[R - 2] + sum[R - 1]) : sum[0] + sum[1];
#pragma unroll
		for (int k = 1; k < GROUP / R; k *= 2)
			all += __shfl_xor_sync(0xffffffffu, all, k);
		double loss = (double)all;
		bool finite = magnitude(all) < float_of(0x7f800000);
		if (__any_sync(0xffffffffu, !finite)) {
			double whole = 0.0;
#pragma unroll 1
			for (int r = 0; r < R; r++)
				whole += r < real ? overflowed(y + r, t + r, some, huber, delta) : 0.0;
			for (int k = 1; k < GROUP / R; k *= 2)
				whole += __shfl_xor_sync(0xffffffffu, whole, k);
			loss = finite ? loss : whole;
		}
		if (l.lane % (GROUP / R) == 0 && first + group < groups)
			m.group_losses[(first + group) * parts + part] = loss;
		if (!backward)
			continue;
		if (act > ACT_LINEAR) { // the prediction stands where its gradient goes
#pragma unroll 1
			for (int k = 0; k < some * R; k++) {
				int u = k / R, r = k % R, at = (8 * part + u) * STRIDE + r;
				float q = y[u * STRIDE + r] - t[u * STRIDE + r];
				if (huber)
					q = at_least(-delta, at_most(delta, q));
				float d = r < real ? q * by : 0.0f;
				const float *lane = l.origin<R>(i & both);
				origin[(gradient + u) * STRIDE + r] = d * slope_at(act, lane[m.last_y * STRIDE + at], lane + m.last_slope * STRIDE + at);
			}
			continue;
		}
#pragma unroll 2
		for (int u = 0; u < some; u++) {
			some_rows<R> a = rows_at<R>(y + u * STRIDE), b = rows_at<R>(t + u * STRIDE);
#pragma unroll
			for (int r = 0; r < R; r++) {
				float q = a.r[r] - b.r[r];
				if (huber)
					q = at_least(-delta, at_most(delta, q));
				a.r[r] = r < real ? q * by : 0.0f;
			}
			put_rows<R>(origin + (gradient + u) * STRIDE, a);
		}
	}
}

// weight_gradient leaves in the slots, or adds, Σ over a leaf's rows of dy·x, A by B weights a thread. Neighbouring lanes take the
// same weights for the groups of a leaf, of which the lot has split. A thread's units are down or across apart, so that neighbours
// read neighbours.
template <int A, int B> INLINE void weight_gradient(const train_model &m, const train_work &w, const train_lot &l, float *slots, int split, bool add)
{
	const int down = w.down, across = w.across, cells = w.cells, out = w.o.out, in = w.o.in, first_dy = w.o.dy, first_x = w.o.x;
	const unsigned inverse = w.inverse;
	float *gradient = slots + w.o.w;
	const int slot = m.slot;
	int shift = split == LEAF ? 2 : 1, leaves = (l.active + split - 1) >> shift; // at most 2
	int count = leaves * cells << shift, all = l.warps * GROUP;
	for (int i = l.warp * GROUP + l.lane; i < (count + GROUP - 1) / GROUP * GROUP; i += all) {
		int part = i & (split - 1), rest = i >> shift, leaf = leaves > 1 && rest >= cells ? 1 : 0, cell = rest - leaf * cells;
		int row = inverse ? (int)__umulhi((unsigned)cell, inverse) : cell / across, column = cell - row * across;
		int group = leaf * split + part;
		float sum[A * B];
#pragma unroll
		for (int t = 0; t < A * B; t++)
			sum[t] = 0.0f;
		if (i < count && group < l.active) {
			int dy[A], x[B]; // words from the tile: pointers would take two registers each
#pragma unroll
			for (int a = 0; a < A; a++)
				dy[a] = group * l.words + (first_dy + (row + a * down < out ? row + a * down : out - 1)) * STRIDE;
#pragma unroll
			for (int b = 0; b < B; b++)
				x[b] = group * l.words + (first_x + (column + b * across < in ? column + b * across : in - 1)) * STRIDE;
#pragma unroll 2
			for (int at = 0; at < GROUP; at += 4) {
				quad e[B];
#pragma unroll
				for (int b = 0; b < B; b++)
					e[b] = quad_at(l.tile + x[b] + at);
#pragma unroll
				for (int a = 0; a < A; a++) {
					quad d = quad_at(l.tile + dy[a] + at);
#pragma unroll
					for (int b = 0; b < B; b++) {
						float t = fmaf(d.a, e[b].a, sum[a * B + b]);
						t = fmaf(d.b, e[b].b, t);
						t = fmaf(d.c, e[b].c, t);
						sum[a * B + b] = fmaf(d.d, e[b].d, t);
					}
				}
			}
		}
		// The lanes of a leaf share out the sums as they add them up, half to either lane of a pair: rows of them, then rows or columns.
		bool high = (part & 1) != 0;
#pragma unroll
		for (int t = 0; t < A * B / 2; t++) {
			float give = high ? sum[t] : sum[t + A * B / 2], keep = high ? sum[t + A * B / 2] : sum[t];
			sum[t] = keep + __shfl_xor_sync(0xffffffffu, give, 1);
		}
		row += high ? A / 2 * down : 0;
		if (split == LEAF) {
			high = (part & 2) != 0;
#pragma unroll
			for (int t = 0; t < A * B / 4; t++) {
				float give = high ? sum[t] : sum[t + A * B / 4], keep = high ? sum[t + A * B / 4] : sum[t];
				sum[t] = keep + __shfl_xor_sync(0xffffffffu, give, 2);
			}
			if (A > 2)
				row += high ? A / 4 * down : 0;
			else
				column += high ? B / 2 * across : 0;
		}
		if (i >= count)
			continue;
		float *to = gradient + (size_t)leaf * slot;
#pragma unroll
		for (int t = 0; t < A * B / 2; t++) {
			if (t >= A * B / 4 && split == LEAF)
				break;
			if (row + t / B * down < out && column + t % B * across < in) {
				float *p = to + (row + t / B * down) * in + column + t % B * across;
				*p = add ? *p + sum[t] : sum[t];
			}
		}
	}
}

// bias_gradient does the same for biases. The last warps begin: the first have weights.
INLINE void bias_gradient(const train_model &m, const train_op &o, const train_lot &l, float *slots, int split, bool add)
{
	const int out = o.out, dy = o.dy, slot = m.slot;
	slots += o.b;
	int shift = split == LEAF ? 2 : 1, leaves = (l.active + split - 1) >> shift, count = leaves * out << shift, all = l.warps * GROUP;
	for (int i = (l.warps - 1 - l.warp) * GROUP + l.lane; i < (count + GROUP - 1) / GROUP * GROUP; i += all) {
		int part = i & (split - 1), rest = i >> shift, leaf = leaves > 1 && rest >= out ? 1 : 0, unit = rest - leaf * out, group = leaf * split + part;
		float sum = 0.0f;
		if (i < count && group < l.active) {
			const float *d = l.unit(group, dy + unit);
#pragma unroll 2
			for (int at = 0; at < GROUP; at += 4) {
				quad q = quad_at(d + at);
				sum = sum + q.a;
				sum = sum + q.b;
				sum = sum + q.c;
				sum = sum + q.d;
			}
		}
		for (int k = 1; k < split; k *= 2)
			sum += __shfl_xor_sync(0xffffffffu, sum, k);
		if (i < count && part == 0) {
			float *to = slots + (size_t)leaf * slot + unit;
			*to = add ? *to + sum : sum;
		}
	}
}

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

// work_of cuts the weights of an operation into threads as leaves the busiest scheduler the least to do, by about so many
// instructions of a warp.
// Addresses of device memory leave no registers for the largest.
template <bool SHARED_TILE> INLINE train_work work_of(const train_op &o, int lot)
{
	train_work w, best;
	int least = 0;
	for (int shape = SHARED_TILE ? 0 : 1; shape < 3; shape++) {
		int a = shape == 0 ? 8 : shape == 1 ? 4 : 2, b = shape == 2 ? 2 : 4, cost = shape == 0 ? 1600 : shape == 1 ? 880 : 310;
		w.o = o, w.shape = shape, w.down = (o.out + a - 1) / a, w.across = (o.in + b - 1) / b;
		w.cells = w.down * w.across;
		w.inverse = w.across > 1 && (unsigned)w.cells < 0xffffffffu / (unsigned)w.across ? 0xffffffffu / (unsigned)w.across + 1 : 0;
		int warps = (w.cells * lot + GROUP - 1) / GROUP;
		cost = cost * ((warps + 3) / 4) + (warps > 4 ? 0 : 250); // alone on its scheduler a warp waits for what it loads
		if (least == 0 || cost < least)
			least = cost, best = w;
	}
	return best;
}

// add_losses leaves the step's mean loss, the same in every block. For one warp.
INLINE void add_losses(const train_model &m, const train_step &s, double *to, int lane)
{
	int count = (s.n + GROUP - 1) / GROUP * ((m.width + 7) / 8);
	double sum = 0.0;
#pragma unroll 4
	for (int i = lane; i < count; i += GROUP)
		sum += m.group_losses[i];
	for (int k = 16; k > 0; k /= 2)
		sum += __shfl_xor_sync(0xffffffffu, sum, k);
	if (lane == 0)
		*to = sum / ((double)s.n * (double)m.width);
}

// A few parameters and their next values.
enum { FEW = 5 };
struct train_change {
	float w[FEW], moment1[FEW], moment2[FEW], gradient[FEW];
	int forward[FEW], backward[FEW];
};

// change adds up the leaves' slots of parameters at, at+apart, … and makes the optimizer's step.
INLINE void change(train_change &c, const train_model &m, const train_step &s, int at, int apart, int blocks, int phases)
{
	int leaves = ((s.n + GROUP - 1) / GROUP + LEAF - 1) / LEAF, count = m.parameter_count, slot = m.slot, sgd = m.sgd;
	const float *slots = m.slots;
	bool gradient = (phases & DO_GRADIENT) != 0;
	float sum[FEW][2];
	// Loads first, as in take; of two leaves, which is all of them where a block is alone.
#pragma unroll
	for (int u = 0; u < FEW; u++) {
		int i = at + u * apart;
		bool there = i < count;
#pragma unroll
		for (int j = 0; j < 2; j++)
			sum[u][j] = there && j < leaves ? slots[(size_t)j * slot + i] : 0.0f;
		c.forward[u] = there ? m.places[2 * i] : -1, c.backward[u] = there ? m.places[2 * i + 1] : -1;
		c.w[u] = there ? m.parameters[i] : 0.0f;
		c.moment1[u] = there && !sgd ? m.moment1[i] : 0.0f, c.moment2[u] = there && !sgd ? m.moment2[i] : 0.0f;
	}
#pragma unroll
	for (int u = 0; u < FEW; u++) {
		int i = at + u * apart;
		if (i >= count)
			break;
		float v[8] = {sum[u][0], sum[u][1], 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
		if (leaves > 2) {
#pragma unroll
			for (int j = 2; j < 8; j++)
				if (j < leaves)
					v[j] = slots[(size_t)j * slot + i];
#pragma unroll 1
			for (int k = 8; k < leaves; k += 8)
#pragma unroll
				for (int j = 0; j < 8; j++)
					if (k + j < leaves)
						v[j] += slots[(size_t)(k + j) * slot + i];
		}
		float g = ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
		if (FAULT == 204 && (blocks & 1))
			g = ((v[0] + v[2]) + (v[1] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
		c.gradient[u] = g;
		if (gradient)
			continue;
		if (sgd)
			c.w[u] = fmaf(-s.rate, g, c.w[u]);
		else {
			float a = fmaf(0.9f, c.moment1[u], (1.0f - 0.9f) * g);
			float b = fmaf(0.999f, c.moment2[u], (1.0f - 0.999f) * (g * g));
			c.moment1[u] = a, c.moment2[u] = b;
			c.w[u] = c.w[u] - (s.rate * (a * s.correction1)) / (sqrtf(b * s.correction2) + 1e-8f);
		}
	}
}

// keep makes a change good. own are the weights of a block that is alone with its model, otherwise null.
INLINE void keep(const train_change &c, const train_model &m, int at, int apart, int phases, float *own)
{
	int count = m.parameter_count, sgd = m.sgd;
	float *parameters = m.parameters, *moment1 = m.moment1, *moment2 = m.moment2, *layout = m.layout, *gradient = m.gradient;
#pragma unroll
	for (int u = 0; u < FEW; u++) {
		int i = at + u * apart;
		if (i >= count)
			break;
		if (phases & DO_GRADIENT) {
			gradient[i] = c.gradient[u];
			continue;
		}
		parameters[i] = c.w[u];
		if (!sgd)
			moment1[i] = c.moment1[u], moment2[i] = c.moment2[u];
		if (c.forward[u] >= 0) {
			layout[c.forward[u]] = c.w[u];
			if (own)
				own[c.forward[u]] = c.w[u];
		}
		if (c.backward[u] >= 0) {
			layout[c.backward[u]] = c.w[u];
			if (own)
				own[c.backward[u]] = c.w[u];
		}
	}
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
			int ahead = row_ahead(m, next, rank, blocks, run, t);
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
