// Gradients of a leaf's rows by weights and biases, which go to its slot.
#ifndef LAPWING_TRAIN_GRADIENT_CUH
#define LAPWING_TRAIN_GRADIENT_CUH

#include "train.cuh"

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

#endif
