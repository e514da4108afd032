// The optimizer: gradients of leaves are added up, and parameters stepped.
#ifndef LAPWING_TRAIN_UPDATE_CUH
#define LAPWING_TRAIN_UPDATE_CUH

#include "train.cuh"

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

#endif
