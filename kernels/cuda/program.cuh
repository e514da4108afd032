// A Program as kernels read it, and its evaluation by one thread for ROWS rows, one if it is not said. encode.go writes what
// is read here.
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
struct program_step {
	int op, act;
	int in, in2, out;
	int width, outs;
	int groups, per, keep; // keep is subtract of a gemm
	float weight;
	int constants; // first constant
};

// A value stands in the tile column by column: element j of this thread's first row lies at row[(value + j)·stride], its other
// rows `next` words further each.
struct tile_row {
	float *at;
	size_t stride, next = 0;
	__device__ __forceinline__ float *column(int c) const { return at + (size_t)c * stride; }
	__device__ __forceinline__ tile_row other(int r) const { return tile_row{at + (size_t)r * next, stride, next}; }
};
// Constants are read four at a time: one instruction for four.
struct __attribute__((aligned(16))) quad {
	float a, b, c, d;
};
INLINE quad quad_at(const float *p) { return *(const quad *)p; }

// The column of a map: 12 words. Tables of knots, bases and slopes, entries each, lie at table.
enum { COLUMN_FLAGS, COLUMN_IMPUTE, COLUMN_LO, COLUMN_HI, COLUMN_X, COLUMN_BASE, COLUMN_SLOPE, COLUMN_BEFORE, COLUMN_ENTRIES, COLUMN_TABLE, COLUMN_WORDS = 12 };
enum { FLAG_LOG = 1, FLAG_CLIP = 2, FLAG_BENT = 4 };

// curve is the piecewise-linear function. Product and sum are rounded apart, as kernels.Curve does it.
INLINE float curve(const float *column, const float *constants, float x)
{
	int entries = bits_of(column[COLUMN_ENTRIES]);
	if (entries == 0) {
		float d = x - column[COLUMN_X], slope = column[COLUMN_SLOPE];
		if ((bits_of(column[COLUMN_FLAGS]) & FLAG_BENT) && d < 0.0f)
			slope = column[COLUMN_BEFORE];
		return column[COLUMN_BASE] + slope * d;
	}
	// The last knot not right of x; entries that fill the table are NaN, which nothing lies right of.
	const float *table = constants + bits_of(column[COLUMN_TABLE]);
	int at = 0;
	for (int half = entries / 2; half > 0; half /= 2)
		if (table[at + half] <= x)
			at += half;
	float d = x - table[at], slope = table[2 * entries + at];
	if (d < 0.0f)
		slope = column[COLUMN_BEFORE];
	return table[entries + at] + slope * d;
}

INLINE void map_columns(const program_step &s, const float *constants, const tile_row &row)
{
	const float *x = row.column(s.in);
	float *y = row.column(s.out);
	const float *column = constants + s.constants;
	for (int j = 0; j < s.width; j++, x += row.stride, y += row.stride, column += COLUMN_WORDS) {
		int flags = bits_of(column[COLUMN_FLAGS]);
		float v = *x;
		if (s.op == OP_MAP) {
			if (v != v)
				v = column[COLUMN_IMPUTE];
			if (flags & FLAG_LOG)
				v = with_sign(log_of(1.0f + magnitude(v)), v);
			if (flags & FLAG_CLIP)
				v = at_most(column[COLUMN_HI], at_least(column[COLUMN_LO], v));
			*y = curve(column, constants, v);
		} else {
			v = curve(column, constants, v);
			if (flags & FLAG_LOG)
				v = with_sign(exp_of(magnitude(v)) - 1.0f, v);
			*y = v;
		}
	}
}

// A block of a gemm: N outputs of ROWS rows, all sums in registers. w holds N biases, then N weights for each input.
template <int ROWS, int N>
INLINE const float *gemm_block(const program_step &s, const float *w, const tile_row &row, int o)
{
	float sum[ROWS][N];
#pragma unroll
	for (int q = 0; q < N; q += 4) {
		quad b = quad_at(w + q);
#pragma unroll
		for (int r = 0; r < ROWS; r++)
			sum[r][q] = b.a, sum[r][q + 1] = b.b, sum[r][q + 2] = b.c, sum[r][q + 3] = b.d;
	}
	w += N;
	const float *in = row.column(s.in);
	for (int k = 0; k < s.width; k++, in += row.stride, w += N) {
		float x[ROWS];
#pragma unroll
		for (int r = 0; r < ROWS; r++)
			x[r] = in[r * row.next];
#pragma unroll
		for (int q = 0; q < N; q += 4) {
			quad u = quad_at(w + q);
#pragma unroll
			for (int r = 0; r < ROWS; r++) {
				sum[r][q] = fmaf(u.a, x[r], sum[r][q]), sum[r][q + 1] = fmaf(u.b, x[r], sum[r][q + 1]);
				sum[r][q + 2] = fmaf(u.c, x[r], sum[r][q + 2]), sum[r][q + 3] = fmaf(u.d, x[r], sum[r][q + 3]);
			}
		}
	}
	float *y = row.column(s.out + o);
	const float *from = row.column(s.in2 + o);
#pragma unroll
	for (int i = 0; i < N; i++)
		if (o + i < s.outs || FAULT == 104)
#pragma unroll
			for (int r = 0; r < ROWS; r++) {
				size_t at = i * row.stride + r * row.next;
				y[at] = s.keep ? from[at] - sum[r][i] : sum[r][i];
			}
	return w;
}

// gemm adds up each output's bias, then its inputs in order. Outputs come in blocks of eight while more than four are left, then
// of four. Those that fill the last block are computed and dropped.
template <int ROWS>
INLINE void gemm(const program_step &s, const float *constants, const tile_row &row)
{
	const float *w = constants + s.constants;
	int o = 0;
	for (; s.outs - o > 4; o += 8)
		w = gemm_block<ROWS, 8>(s, w, row, o);
	for (; o < s.outs; o += 4)
		w = gemm_block<ROWS, 4>(s, w, row, o);
	if (s.act == ACT_LINEAR)
		return;
	for (int r = 0; r < ROWS; r++) {
		float *y = row.other(r).column(s.out);
		for (o = 0; o < s.outs; o++, y += row.stride)
			*y = activated(s.act, *y);
	}
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

// one runs a step that takes its rows one after another.
INLINE void one(const program_step &s, const float *constants, const tile_row &row)
{
	size_t n = row.stride;
	const float *x = row.column(s.in), *x2 = row.column(s.in2);
	float *y = row.column(s.out);
	switch (s.op) {
	case OP_MAP:
	case OP_UNMAP:
		map_columns(s, constants, row);
		break;
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

// evaluate runs count steps over this thread's rows. What lies in a row that is none is computed too, and stored nowhere.
template <int ROWS = 1>
INLINE void evaluate(const program_step *steps, int count, const float *constants, const tile_row &row)
{
	for (int i = 0; i < count; i++) {
		const program_step s = steps[i];
		if (s.op == OP_GEMM) {
			gemm<ROWS>(s, constants, row);
			continue;
		}
#pragma unroll 1
		for (int r = 0; r < ROWS; r++)
			one(s, constants, row.other(r));
	}
}

#endif
