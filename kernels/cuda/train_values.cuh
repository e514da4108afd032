// The values of a lot, forward and backward: rows come into the tile, products and activations go over it. A warp computes eight
// outputs (or four) of a product for a leaf, four rows a lane, so that a word of shared memory is used several times.
#ifndef LAPWING_TRAIN_VALUES_CUH
#define LAPWING_TRAIN_VALUES_CUH

#include "train.cuh"

// quotient is n/d by multiplications: without the branch of the division, behind which the compiler moves nothing, so that
// several values are under way at a time. It is correctly rounded where 2^-98 < |n|, by trial of all arguments of
// tanh, and the same bits everywhere.
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

#endif
