// A Program as kernels read it, and its evaluation: of a row by one thread, or step by step of several rows, a part of each
// step by a thread. encode.go writes what is read here.
#ifndef LAPWING_PROGRAM_CUH
#define LAPWING_PROGRAM_CUH
#include "math.cuh"

enum {
	OP_MAP,           // out = in, mapped: width
	OP_UNMAP,         // out = in, mapped by the inverse: width
	OP_GEMM,          // out = act(W·in + b): width inputs, outs outputs; where subtract is set, out = in2 − (W·in + b)
	OP_DIFF,          // out = in − in2: width
	OP_NORM,          // out = √Σ in²: width
	OP_NEAREST,       // out = mean distance to the nearest of each group: width, groups, per; the rest of it where keep is set
	OP_SPLIT,         // out = in²/in2: width
	OP_SPLIT_NEAREST, // out = the shares of a nearest in2: width, groups, per
	OP_SCALE,         // out = weight·in: width
	OP_ADD,           // out = out + weight·in: width
};

// in, in2 and out count columns from the tile's beginning.
struct __attribute__((aligned(16))) program_step {
	int op, act;
	int in, in2, out;
	int width, outs;
	int groups, per, keep; // keep is subtract of a gemm
	float weight;
	int constants; // first constant
};

// A value stands in the tile column by column: element j of a row lies at column(value + j)[0]. A thread takes one row, or N rows
// that stand beside each other: values<N> is what it reads and writes of a column.
struct tile_row {
	float *at;
	size_t stride;
	__device__ __forceinline__ float *column(int c) const { return at + (size_t)c * stride; }
};
template <int N> struct __attribute__((aligned(4 * N))) values {
	float of[N];
};
template <int N> INLINE values<N> values_at(const float *p) { return *(const values<N> *)p; }
INLINE void put(float *p, const values<1> &v) { *p = v.of[0]; }
INLINE void put(float *p, const values<4> &v) { *(float4 *)p = make_float4(v.of[0], v.of[1], v.of[2], v.of[3]); }

// share is what a thread does of a step that is shared out by columns: first, first + of, …
struct share {
	int first, of;
};

// The column of a map: 12 words. Tables of knots, bases and slopes, entries each, lie at table.
enum { COLUMN_FLAGS, COLUMN_IMPUTE, COLUMN_LO, COLUMN_HI, COLUMN_X, COLUMN_BASE, COLUMN_SLOPE, COLUMN_BEFORE, COLUMN_ENTRIES, COLUMN_TABLE, COLUMN_WORDS = 12 };
enum { FLAG_LOG = 1, FLAG_CLIP = 2, FLAG_BENT = 4, FLAG_TABLE = 8 };

// curve is the piecewise-linear function. Product and sum are rounded apart, as kernels.Curve does it.
template <int N> INLINE void curve(int flags, quad line, const float *column, const float *constants, values<N> &x)
{
	if (!(flags & FLAG_TABLE)) {
#pragma unroll
		for (int i = 0; i < N; i++) {
			float d = x.of[i] - line.a, slope = line.c;
			if ((flags & FLAG_BENT) && d < 0.0f)
				slope = line.d;
			x.of[i] = line.b + slope * d;
		}
		return;
	}
	// The last knot not right of x; entries that fill the table are NaN, which nothing lies right of.
	int entries = bits_of(column[COLUMN_ENTRIES]);
	const float *table = constants + bits_of(column[COLUMN_TABLE]);
	int at[N] = {};
	for (int half = entries / 2; half > 0; half /= 2)
#pragma unroll
		for (int i = 0; i < N; i++)
			if (table[at[i] + half] <= x.of[i])
				at[i] += half;
#pragma unroll
	for (int i = 0; i < N; i++) {
		float d = x.of[i] - table[at[i]], slope = table[2 * entries + at[i]];
		if (d < 0.0f)
			slope = line.d;
		x.of[i] = table[entries + at[i]] + slope * d;
	}
}

template <int N> INLINE void map_columns(const program_step &s, const float *constants, const tile_row &row, share p)
{
	const float *x = row.column(s.in + p.first), *column = constants + s.constants + p.first * COLUMN_WORDS;
	float *y = row.column(s.out + p.first);
	for (int j = p.first; j < s.width; j += p.of, x += p.of * row.stride, y += p.of * row.stride, column += p.of * COLUMN_WORDS) {
		values<N> v = values_at<N>(x);
		quad head = quad_at(column), line = quad_at(column + COLUMN_X); // flags, impute, lo, hi; x, base, slope, before
		int flags = bits_of(head.a);
		if (s.op == OP_MAP && flags == 0) { // as below, for the many that have nothing to ask
#pragma unroll
			for (int i = 0; i < N; i++) {
				float d = (v.of[i] != v.of[i] ? head.b : v.of[i]) - line.a;
				v.of[i] = line.b + line.c * d;
			}
			put(y, v);
			continue;
		}
		if (s.op == OP_MAP) {
#pragma unroll
			for (int i = 0; i < N; i++)
				if (v.of[i] != v.of[i])
					v.of[i] = head.b;
			if (flags & FLAG_LOG)
#pragma unroll
				for (int i = 0; i < N; i++)
					v.of[i] = with_sign(log_of(1.0f + magnitude(v.of[i])), v.of[i]);
			if (flags & FLAG_CLIP)
#pragma unroll
				for (int i = 0; i < N; i++)
					v.of[i] = at_most(head.d, at_least(head.c, v.of[i]));
		}
		curve(flags, line, column, constants, v);
		if (s.op != OP_MAP && (flags & FLAG_LOG))
#pragma unroll
			for (int i = 0; i < N; i++)
				v.of[i] = with_sign(exp_of(magnitude(v.of[i])) - 1.0f, v.of[i]);
		put(y, v);
	}
}

// A block of a gemm: OUTS outputs of N rows, all sums in registers. w holds OUTS biases, then OUTS weights for each input.
template <int N, int OUTS> INLINE void gemm_block(const program_step &s, const float *w, const tile_row &row, int o, float *y, const float *from)
{
	values<N> sum[OUTS];
	const float *in = row.column(s.in);
	values<N> x = values_at<N>(in);
#pragma unroll
	for (int q = 0; q < OUTS; q += 4) {
		quad b = quad_at(w + q), u = quad_at(w + OUTS + q);
#pragma unroll
		for (int r = 0; r < N; r++) {
			sum[q].of[r] = fmaf(u.a, x.of[r], b.a), sum[q + 1].of[r] = fmaf(u.b, x.of[r], b.b);
			sum[q + 2].of[r] = fmaf(u.c, x.of[r], b.c), sum[q + 3].of[r] = fmaf(u.d, x.of[r], b.d);
		}
	}
#pragma unroll 4
	for (int k = 1; k < s.width; k++) {
		in += row.stride, w += OUTS;
		x = values_at<N>(in);
#pragma unroll
		for (int q = 0; q < OUTS; q += 4) {
			quad u = quad_at(w + OUTS + q);
#pragma unroll
			for (int r = 0; r < N; r++) {
				sum[q].of[r] = fmaf(u.a, x.of[r], sum[q].of[r]), sum[q + 1].of[r] = fmaf(u.b, x.of[r], sum[q + 1].of[r]);
				sum[q + 2].of[r] = fmaf(u.c, x.of[r], sum[q + 2].of[r]), sum[q + 3].of[r] = fmaf(u.d, x.of[r], sum[q + 3].of[r]);
			}
		}
	}
#pragma unroll
	for (int i = 0; i < OUTS; i++, y += row.stride, from += row.stride)
		if (o + i < s.outs || FAULT == 104) {
			if (s.keep) {
				x = values_at<N>(from);
#pragma unroll
				for (int r = 0; r < N; r++)
					sum[i].of[r] = x.of[r] - sum[i].of[r];
			}
			put(y, sum[i]);
		}
}

INLINE void activate(int act, float *y, values<1> x) { *y = activated(act, x.of[0]); }
INLINE void activate(int act, float *y, values<4> x)
{
	if (act == ACT_TANH) {
		*(quad *)y = tanh_four(quad{x.of[0], x.of[1], x.of[2], x.of[3]});
		return;
	}
#pragma unroll 1
	for (int r = 0; r < 4; r++)
		y[r] = activated(act, y[r]);
}

// gemm adds up each output's bias, then its inputs in order. Outputs come in blocks of eight, and of four at the end where no
// more are left; of four, too, where there are up to eight, or a layer that narrow were one thread's in four. Those that fill the
// last block are computed and dropped. What follows the sums is left to activations: there are more columns to share out than
// blocks.
INLINE int gemm_block_outs(const program_step &s) { return s.outs <= 8 ? 4 : 8; }
INLINE int gemm_blocks(const program_step &s) { return (s.outs + gemm_block_outs(s) - 1) / gemm_block_outs(s); }
template <int N> INLINE void gemm(const program_step &s, const float *constants, const tile_row &row, share p)
{
	int block = gemm_block_outs(s), first = block * p.first, next = block * p.of;
	float *to = row.column(s.out + first);
	const float *from = row.column(s.in2 + first);
	for (int o = first; o < s.outs; o += next, to += next * row.stride, from += next * row.stride) {
		const float *w = constants + s.constants + (size_t)o * (s.width + 1);
		if (block == 8 && s.outs - o > 4)
			gemm_block<N, 8>(s, w, row, o, to, from);
		else
			gemm_block<N, 4>(s, w, row, o, to, from);
	}
}

// activations is the rest of a gemm that has one, shared out by columns.
template <int N> INLINE void activations(const program_step &s, const tile_row &row, share p)
{
	float *y = row.column(s.out + p.first);
#pragma unroll 1
	for (int i = p.first; i < s.outs; i += p.of, y += p.of * row.stride)
		activate(s.act, y, values_at<N>(y));
}

// norm adds squares in four parts by column.
INLINE void norm(const program_step &s, const tile_row &row)
{
	const float *x = row.column(s.in);
	size_t n = row.stride;
	float a = 0.0f, b = 0.0f, c = 0.0f, d = 0.0f;
	int j = s.width;
	for (; j >= 4; j -= 4, x += 4 * n) {
		a = fmaf(x[0], x[0], a), b = fmaf(x[n], x[n], b);
		c = fmaf(x[2 * n], x[2 * n], c), d = fmaf(x[3 * n], x[3 * n], d);
	}
	for (; j > 0; j--, x += n)
		a = fmaf(*x, *x, a);
	*row.column(s.out) = sqrtf((a + b) + (c + d));
}

// reciprocal is 1/d, and 0 where d is 0.
INLINE float reciprocal(float d) { return d == 0.0f ? 0.0f : 1.0f / d; }

// A group's prototypes stand in blocks of four: half squares, then what is negative of them, column by column. Half
// squares that fill the last block are infinite: never the least.
INLINE int nearest_of(const float *block, int width, int per, const float *x, size_t stride)
{
	float least = float_of(0x7f800000);
	int at = 0;
	for (int first = 0; first < per; first += 4) {
		quad p = quad_at(block);
		block += 4;
		const float *in = x;
		for (int j = 0; j < width; j++, in += stride, block += 4) {
			quad c = quad_at(block);
			float e = *in;
			p.a = fmaf(c.a, e, p.a), p.b = fmaf(c.b, e, p.b), p.c = fmaf(c.c, e, p.c), p.d = fmaf(c.d, e, p.d);
		}
		if (p.a < least)
			least = p.a, at = first;
		if (FAULT == 105 ? p.b <= least : p.b < least)
			least = p.b, at = first + 1;
		if (p.c < least)
			least = p.c, at = first + 2;
		if (p.d < least)
			least = p.d, at = first + 3;
	}
	return at;
}

INLINE float distance(const float *x, size_t stride, const float *c, int width)
{
	float part[4] = {0.0f, 0.0f, 0.0f, 0.0f};
	int j = 0;
	for (; j + 4 <= width; j += 4, x += 4 * stride) {
#pragma unroll
		for (int i = 0; i < 4; i++) {
			float e = x[i * stride] - c[j + i];
			part[i] = fmaf(e, e, part[i]);
		}
	}
	for (; j < width; j++, x += stride) {
		float e = *x - c[j];
		part[0] = fmaf(e, e, part[0]);
	}
	return sqrtf((part[0] + part[1]) + (part[2] + part[3]));
}

// prototypes are the same rows as they were given, behind the blocks.
INLINE const float *prototypes(const program_step &s, const float *constants)
{
	return constants + s.constants + (size_t)s.groups * ((s.per + 3) / 4 * 4) * (s.width + 1);
}

// nearest leaves, where keep is set, beside the mean what split_nearest needs: in column 1+g the reciprocal of group g's
// distance, in column 1+groups+g which prototype it was.
INLINE void nearest(const program_step &s, const float *constants, const tile_row &row)
{
	const float *x = row.column(s.in), *blocks = constants + s.constants, *rows = prototypes(s, constants);
	size_t block = (size_t)((s.per + 3) / 4 * 4) * (s.width + 1);
	// Kahan's sum: there may be thousands of groups. Where it overflows the correction is NaN, and is left out.
	float sum = 0.0f, rest = 0.0f;
	for (int g = 0; g < s.groups; g++, blocks += block) {
		int at = g * s.per + nearest_of(blocks, s.width, s.per, x, row.stride);
		float d = distance(x, row.stride, rows + (size_t)at * s.width, s.width);
		if (s.keep) {
			*row.column(s.out + 1 + g) = reciprocal(d);
			*row.column(s.out + 1 + s.groups + g) = float_of(at);
		}
		d = d - rest;
		float t = sum + d;
		rest = (t - sum) - d;
		if (rest != rest)
			rest = 0.0f;
		sum = t;
	}
	*row.column(s.out) = sum / (float)s.groups;
}

INLINE void split_nearest(const program_step &s, const float *constants, const tile_row &row)
{
	const float *rows = prototypes(s, constants), *found = row.column(s.in2 + 1);
	float share = 1.0f / (float)s.groups;
	for (int j = 0; j < s.width; j++) {
		float x = *row.column(s.in + j), sum = 0.0f;
		const float *k = found;
		for (int g = 0; g < s.groups; g++, k += row.stride) {
			int at = bits_of(k[s.groups * row.stride]);
			float e = x - rows[(size_t)at * s.width + j];
			sum = fmaf(e * e, *k, sum);
		}
		*row.column(s.out + j) = FAULT == 106 ? sum : sum * share;
	}
}

// one runs a step for one row.
INLINE void one(const program_step &s, const float *constants, const tile_row &row)
{
	size_t n = row.stride;
	const float *x = row.column(s.in), *x2 = row.column(s.in2);
	float *y = row.column(s.out);
	switch (s.op) {
	case OP_DIFF:
		for (int j = 0; j < s.width; j++)
			y[j * n] = x[j * n] - x2[j * n];
		break;
	case OP_NORM:
		norm(s, row);
		break;
	case OP_NEAREST:
		nearest(s, constants, row);
		break;
	case OP_SPLIT: {
		float k = reciprocal(*x2);
		for (int j = 0; j < s.width; j++)
			y[j * n] = (x[j * n] * x[j * n]) * k;
		break;
	}
	case OP_SPLIT_NEAREST:
		split_nearest(s, constants, row);
		break;
	case OP_SCALE:
		for (int j = 0; j < s.width; j++)
			y[j * n] = s.weight * x[j * n];
		break;
	case OP_ADD:
		for (int j = 0; j < s.width; j++)
			y[j * n] = fmaf(s.weight, x[j * n], y[j * n]);
		break;
	}
}

// evaluate runs count steps over this thread's row.
INLINE void evaluate(const program_step *steps, int count, const float *constants, const tile_row &row)
{
	for (int i = 0; i < count; i++) {
		const program_step s = steps[i];
		if (s.op == OP_GEMM) {
			gemm<1>(s, constants, row, share{0, 1});
			if (s.act != ACT_LINEAR)
				activations<1>(s, row, share{0, 1});
		} else if (s.op == OP_MAP || s.op == OP_UNMAP) {
			map_columns<1>(s, constants, row, share{0, 1});
		} else {
			one(s, constants, row);
		}
	}
}

#endif
