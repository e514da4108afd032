// Losses: of groups, with the gradient of the prediction, and of a step.
#ifndef LAPWING_TRAIN_LOSS_CUH
#define LAPWING_TRAIN_LOSS_CUH

#include "train_values.cuh"

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

#endif
