// The training step of one level, for a block of rows. It follows score_body.h, whose maps it takes.
//
// Values stand unit by unit, the block's rows side by side: a vector holds one unit of several rows. Weights are
// broadcast from where the optimizer left them, so that nothing is packed anew after a step. A block is filled up to
// a multiple of 16 rows with copies of its last one, whose gradients are 0.
//
// All levels give the same bits: a sum over rows is one of 16 lanes, lane i taking the rows i, i+16, …, however many of
// them a vector holds, and the lanes are added up in one order.
#include <math.h>

#include "train.h"

#define PARTS (16 / LANES)

#if defined(LEVEL_AVX2)
#define TALL 6 // outputs of a product's tile, by two vectors of rows
#define WIDE 2 // inputs of a gradient's tile, by 4 outputs
#else
#define TALL 8
#define WIDE 4
#endif
#define TILE (4 * WIDE)
#define PANEL 32 // inputs that a gradient's tiles go over while they are in the first-level cache

// sums leaves the sum of each of TILE lots of 16 lanes in s: i + (i+8), then i + (i+4), i + (i+2), i + (i+1).
#if defined(LEVEL_AVX512)

INLINE v halves(v a, v b, v c, v d)
{
	v ab = vadd(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
	v cd = vadd(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
	return vadd(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
}

INLINE v pairs(v a, v b) { return vadd(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); }

INLINE void sums(v a[PARTS][TILE], float *s)
{
	v q[4];
	for (int i = 0; i < 4; i++)
		q[i] = halves(a[0][i], a[0][4 + i], a[0][8 + i], a[0][12 + i]);
	__m512d lo = _mm512_castps_pd(pairs(q[0], q[1])), hi = _mm512_castps_pd(pairs(q[2], q[3]));
	vstore(s, vadd(_mm512_castpd_ps(_mm512_unpacklo_pd(lo, hi)), _mm512_castpd_ps(_mm512_unpackhi_pd(lo, hi))));
}

#elif defined(LEVEL_AVX2)

INLINE v pairs(v a, v b) { return vadd(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)); }

INLINE void sums(v a[PARTS][TILE], float *s)
{
	v q[4];
	for (int i = 0; i < 4; i++) {
		v x = vadd(a[0][i], a[1][i]), y = vadd(a[0][4 + i], a[1][4 + i]);
		q[i] = vadd(_mm256_permute2f128_ps(x, y, 0x20), _mm256_permute2f128_ps(x, y, 0x31));
	}
	__m256d lo = _mm256_castps_pd(pairs(q[0], q[1])), hi = _mm256_castps_pd(pairs(q[2], q[3]));
	vstore(s, vadd(_mm256_castpd_ps(_mm256_unpacklo_pd(lo, hi)), _mm256_castpd_ps(_mm256_unpackhi_pd(lo, hi))));
}

#else

INLINE v pairs(v a, v b) { return vadd(vzip1q_f32(a, b), vzip2q_f32(a, b)); }

INLINE void sums(v a[PARTS][TILE], float *s)
{
	for (int i = 0; i < TILE; i += 4) {
		v q[4];
		for (int k = 0; k < 4; k++)
			q[k] = vadd(vadd(a[0][i + k], a[2][i + k]), vadd(a[1][i + k], a[3][i + k]));
		float64x2_t lo = vreinterpretq_f64_f32(pairs(q[0], q[1])), hi = vreinterpretq_f64_f32(pairs(q[2], q[3]));
		vstore(s + i, vadd(vreinterpretq_f32_f64(vzip1q_f64(lo, hi)), vreinterpretq_f32_f64(vzip2q_f64(lo, hi))));
	}
}

#endif

// product sets, or adds to, y[t] = b[t] + Σ over k of w[t·ts + k·ks]·x[k], for T outputs and N vectors of rows.
INLINE void product(const int T, const int N, float *y, const float *x, const float *w, const float *b, int64_t ts, int64_t ks,
	int64_t depth, int64_t stride, int add)
{
	v a[TALL][2];
	for (int t = 0; t < T; t++)
		for (int n = 0; n < N; n++)
			a[t][n] = add ? vload(y + t * stride + n * LANES) : b ? vset(b[t]) : vzero();
	for (int64_t k = 0; k < depth; k++, x += stride, w += ks) {
		v xs[2];
		for (int n = 0; n < N; n++)
			xs[n] = vload(x + n * LANES);
		for (int t = 0; t < T; t++) {
			v wt = vset(w[t * ts]);
			for (int n = 0; n < N; n++)
				a[t][n] = vfma(wt, xs[n], a[t][n]);
		}
	}
	for (int t = 0; t < T; t++)
		for (int n = 0; n < N; n++)
			vstore(y + t * stride + n * LANES, a[t][n]);
}

INLINE void product_rows(const int T, float *y, const float *x, const float *w, const float *b, int64_t ts, int64_t ks, int64_t depth,
	int64_t stride, int rows, int add)
{
	int r = 0;
	for (; r + 2 * LANES <= rows; r += 2 * LANES)
		product(T, 2, y + r, x + r, w, b, ts, ks, depth, stride, add);
	if (r < rows)
		product(T, 1, y + r, x + r, w, b, ts, ks, depth, stride, add);
}

// multiply is product for any number of outputs, in tiles as even as can be.
static void multiply(float *y, const float *x, const float *w, const float *b, int64_t ts, int64_t ks, int depth, int out,
	int64_t stride, int rows, int add)
{
	for (int tiles = (out + TALL - 1) / TALL; tiles > 0; tiles--) {
		int tall = (out + tiles - 1) / tiles;
		switch (tall) {
#define CASE(T)                                                                  \
	case T:                                                                  \
		product_rows(T, y, x, w, b, ts, ks, depth, stride, rows, add);   \
		break;
			CASE(1)
			CASE(2)
			CASE(3)
			CASE(4)
			CASE(5)
			CASE(6)
#if TALL > 6
			CASE(7)
			CASE(8)
#endif
#undef CASE
		}
		out -= tall;
		y += tall * stride;
		w += tall * ts;
		if (b)
			b += tall;
	}
}

// outer sets, or adds to, g[r][c] = Σ over rows of dy[r]·x[c], for R outputs and C inputs.
INLINE void outer(const int R, const int C, float *g, int64_t in, const float *dy, const float *x, int64_t stride, int rows, int add)
{
	v a[PARTS][TILE];
	for (int p = 0; p < PARTS; p++) {
		v sum[TILE];
		for (int i = 0; i < TILE; i++)
			sum[i] = vzero();
		for (int at = p * LANES; at < rows; at += 16) {
			v xs[WIDE];
			for (int c = 0; c < C; c++)
				xs[c] = vload(x + c * stride + at);
			for (int r = 0; r < R; r++) {
				v d = vload(dy + r * stride + at);
				for (int c = 0; c < C; c++)
					sum[r * WIDE + c] = vfma(d, xs[c], sum[r * WIDE + c]);
			}
		}
		for (int i = 0; i < TILE; i++)
			a[p][i] = sum[i];
	}
	float s[TILE];
	sums(a, s);
	for (int r = 0; r < R; r++)
		for (int c = 0; c < C; c++)
			g[r * in + c] = add ? g[r * in + c] + s[r * WIDE + c] : s[r * WIDE + c];
}

static void weight_gradient(float *g, const float *dy, const float *x, int in, int out, int64_t stride, int rows, int add)
{
	for (int panel = 0; panel < in; panel += PANEL) {
		int width = in - panel < PANEL ? in - panel : PANEL, o = 0;
		for (int tall = (out + 3) / 4; tall > 0; tall--) {
			int R = (out - o + tall - 1) / tall, k = panel;
			for (int wide = (width + WIDE - 1) / WIDE; wide > 0; wide--) {
				int C = (panel + width - k + wide - 1) / wide;
				switch (R * 8 + C) {
#define CASE(R, C)                                                                                                     \
	case R * 8 + C:                                                                                                \
		outer(R, C, g + (int64_t)o * in + k, in, dy + o * stride, x + k * stride, stride, rows, add);          \
		break;
					CASE(1, 1)
					CASE(1, 2)
					CASE(2, 1)
					CASE(2, 2)
					CASE(3, 1)
					CASE(3, 2)
					CASE(4, 1)
					CASE(4, 2)
#if WIDE > 2
					CASE(1, 3)
					CASE(1, 4)
					CASE(2, 3)
					CASE(2, 4)
					CASE(3, 3)
					CASE(3, 4)
					CASE(4, 3)
					CASE(4, 4)
#endif
#undef CASE
				}
				k += C;
			}
			o += R;
		}
	}
}

INLINE v activated(const int act, v x)
{
	switch (act) {
	case ACT_RELU:
		return vpick(vlt(x, vzero()), vzero(), x);
	case ACT_TANH:
		return vtanh(x);
	case ACT_SIGMOID:
		return vsigmoid(x);
	case ACT_LEAKY_RELU:
		return vleaky(x);
	case ACT_ELU:
		return velu(x);
	}
	return x;
}

INLINE void train_activate(const int act, float *y, float *slope, int out, int64_t stride, int rows)
{
	for (int o = 0; o < out; o++, y += stride, slope += stride)
		for (int r = 0; r < rows; r += LANES) {
			v x = vload(y + r);
			if (act == ACT_GELU) {
				v d;
				x = vgelu(x, &d);
				vstore(slope + r, d);
			} else
				x = activated(act, x);
			vstore(y + r, x);
		}
}

// slope_at is the derivative of an activation where its result is y; gelu's was kept.
INLINE v slope_at(const int act, v y, const float *slope)
{
	vm above = vlt(vzero(), y);
	switch (act) {
	case ACT_RELU:
		return vpick(above, vset(1), vzero());
	case ACT_TANH:
		return vfnma(y, y, vset(1));
	case ACT_SIGMOID:
		return vmul(y, vsub(vset(1), y));
	case ACT_LEAKY_RELU:
		return vpick(above, vset(1), vset(0.01f));
	case ACT_ELU:
		return vpick(above, vset(1), vadd(y, vset(1)));
	}
	return vload(slope);
}

// differentiate takes dy through the activation and sums it for the biases.
INLINE void differentiate(const int act, float *bias, float *dy, const float *y, const float *slope, int out, int64_t stride,
	int rows, int add)
{
	for (int o = 0; o < out; o += TILE) {
		v a[PARTS][TILE];
		int some = out - o < TILE ? out - o : TILE;
		for (int i = 0; i < TILE; i++)
			for (int p = 0; p < PARTS; p++) {
				v sum = vzero();
				for (int r = p * LANES; i < some && r < rows; r += 16) {
					int64_t at = (o + i) * stride + r;
					v d = vload(dy + at);
					if (act != ACT_LINEAR) {
						d = vmul(d, slope_at(act, vload(y + at), slope + at));
						vstore(dy + at, d);
					}
					sum = vadd(sum, d);
				}
				a[p][i] = sum;
			}
		float s[TILE];
		sums(a, s);
		for (int i = 0; i < some; i++)
			bias[o + i] = add ? bias[o + i] + s[i] : s[i];
	}
}

// residuals leaves the gradient of the prediction, 0 from row n on, and returns the summed loss. Up to fusedRows/16
// squares are added in float32, their sums in float64; where a square overflows, all is added again in float64.
static double residuals(const lapwing_training *p, float *tile, int n, int rows, float scale)
{
	int64_t stride = p->stride;
	const float *y = tile + p->prediction * stride, *t = tile + p->target * stride;
	float *d = tile + p->gradient * stride;
	v delta = vset(p->delta), below = vset(-p->delta), by = vset(p->huber ? scale : 2 * scale);
	double lanes[16] = {0}, sum = 0;
	for (int u = 0; u < p->width; u++, y += stride, t += stride, d += stride) {
		float part[16];
		for (int k = 0; k < PARTS; k++) {
			v a = vzero();
			for (int r = k * LANES; r < rows; r += 16) {
				v e = vsub(vload(y + r), vload(t + r));
				if (r + LANES > n) {
					vstore(d + r, vzero());
					if (r >= n)
						continue;
					vstore_first(d + r, e, n - r);
					e = vload(d + r);
				}
				v q = e;
				if (p->huber) {
					q = vmax(below, vmin(delta, e));
					a = vfma(q, vfnma(vset(0.5f), q, e), a);
				} else
					a = vfma(e, e, a);
				vstore(d + r, vmul(q, by));
			}
			vstore(part + k * LANES, a);
		}
		for (int i = 0; i < 16; i++)
			lanes[i] += part[i];
	}
	for (int i = 0; i < 16; i++)
		sum += lanes[i];
	if (isfinite(sum))
		return sum;
	sum = 0;
	y = tile + p->prediction * stride, t = tile + p->target * stride;
	for (int u = 0; u < p->width; u++, y += stride, t += stride)
		for (int r = 0; r < n; r++) {
			float e = y[r] - t[r], q = e;
			if (p->huber && q > p->delta)
				q = p->delta;
			if (p->huber && q < -p->delta)
				q = -p->delta;
			sum += p->huber ? q * ((double)e - 0.5 * q) : (double)e * e;
		}
	return sum;
}

// combine sets, or adds, weight times x.
static void combine(float *y, const float *x, float weight, int width, int64_t stride, int rows, int add)
{
	for (int u = 0; u < width; u++, y += stride, x += stride)
		for (int r = 0; r < rows; r += LANES) {
			v t = vmul(vset(weight), vload(x + r));
			vstore(y + r, add ? vadd(vload(y + r), t) : t);
		}
}

#define EACH_ACTIVATION(CASE) \
	CASE(ACT_LINEAR) CASE(ACT_RELU) CASE(ACT_TANH) CASE(ACT_SIGMOID) CASE(ACT_LEAKY_RELU) CASE(ACT_ELU) CASE(ACT_GELU)

static void train_product(const lapwing_training_op *o, const float *w, float *tile, int64_t stride, int rows)
{
	float *y = tile + o->y * stride;
	multiply(y, tile + o->x * stride, w + o->w, w + o->b, o->in, 1, o->in, o->out, stride, rows, 0);
	switch (o->act) {
#define CASE(ACT)                                                                            \
	case ACT:                                                                            \
		if (ACT != ACT_LINEAR)                                                        \
			train_activate(ACT, y, tile + o->slope * stride, o->out, stride, rows);   \
		break;
		EACH_ACTIVATION(CASE)
#undef CASE
	}
}

static void train_back(const lapwing_training_op *o, const float *w, float *tile, float *gradient, int64_t stride, int rows, int add)
{
	float *dy = tile + o->dy * stride;
	const float *y = tile + o->y * stride, *slope = tile + o->slope * stride;
	switch (o->act) {
#define CASE(ACT)                                                                                     \
	case ACT:                                                                                     \
		differentiate(ACT, gradient + o->b, dy, y, slope, o->out, stride, rows, add);         \
		break;
		EACH_ACTIVATION(CASE)
#undef CASE
	}
	weight_gradient(gradient + o->w, dy, tile + o->x * stride, o->in, o->out, stride, rows, add);
	if (o->dx >= 0)
		multiply(tile + o->dx * stride, dy, w + o->w, 0, 1, o->in, o->out, o->in, stride, rows, o->add);
}

// take reads a row-major value of the block, four columns of LANES rows at a time, and maps it where columns are given.
static void take(float *y, const float *from, int64_t width, int64_t between, int n, int64_t stride, int rows, const lapwing_column *columns,
	const float *constants)
{
	for (int r = 0; r < rows; r += LANES) {
		const float *row = from + r * between;
		for (int64_t j = 0; j < width;) {
			v c[4];
			if (r + LANES <= n && width >= 4) {
				j = j < width - 4 ? j : width - 4;
				vcolumns(c, row + j, between);
			} else {
				float few[LANES * 4] = {0};
				for (int k = 0; k < LANES; k++) {
					const float *at = from + (r + k < n ? r + k : n - 1) * between + j;
					for (int i = 0; i < 4 && j + i < width; i++)
						few[k * 4 + i] = at[i];
				}
				vcolumns(c, few, 4);
			}
			for (int i = 0; i < 4 && j < width; i++, j++)
				vstore(y + j * stride + r, columns ? map(columns + j, constants, c[i]) : c[i]);
		}
	}
}

// lapwing_train evaluates a block of n rows and returns the summed loss; where gradient is not null it is set to, or
// has added, that of the loss times scale.
double LEVEL(lapwing_train)(TRAIN_ARGUMENTS)
{
	int64_t stride = p->stride;
	int block = (n + 15) / 16 * 16;
	const lapwing_training_op *o = ops, *turn = ops + p->forward, *end = turn + p->backward;
	for (; o < turn; o++)
		switch (o->kind) {
		case TRAIN_LOAD:
			take(tile + o->y * stride, rows, o->out, o->out, n, stride, block, o->column < 0 ? 0 : columns + o->column, constants);
			break;
		case TRAIN_COMBINE:
			combine(tile + o->y * stride, tile + o->x * stride, o->weight, o->out, stride, block, o->add);
			break;
		case TRAIN_PRODUCT:
			train_product(o, w, tile, stride, block);
		}
	double loss = residuals(p, tile, n, block, scale);
	for (; gradient && o < end; o++)
		if (o->kind == TRAIN_COMBINE)
			combine(tile + o->y * stride, tile + o->x * stride, o->weight, o->out, stride, block, o->add);
		else
			train_back(o, w, tile, gradient, stride, block, add);
	return loss;
}

// lapwing_adjust adds the shards' gradients in order and makes the optimizer's step on n parameters, a multiple of 16.
void LEVEL(lapwing_adjust)(ADJUST_ARGUMENTS)
{
	const v beta1 = vset(0.9f), beta2 = vset(0.999f), rest1 = vset(1 - 0.9f), rest2 = vset(1 - 0.999f);
	for (int64_t i = 0; i < n; i += LANES) {
		v g = vload(shards + i);
		for (int k = 1; k < u->shards; k++)
			g = vadd(g, vload(shards + k * u->between + i));
		if (u->sgd) {
			vstore(w + i, vfnma(vset(u->rate), g, vload(w + i)));
			continue;
		}
		v a = vfma(beta1, vload(m + i), vmul(rest1, g));
		v b = vfma(beta2, vload(s + i), vmul(rest2, vmul(g, g)));
		vstore(m + i, a);
		vstore(s + i, b);
		v root = vadd(vsqrt(vmul(b, vset(u->correction2))), vset(1e-8f));
		vstore(w + i, vsub(vload(w + i), vdiv(vmul(vset(u->rate), vmul(a, vset(u->correction1))), root)));
	}
}

// lapwing_import brings n rows of a row-major value into a block. Where n is no multiple of 16 they are its last.
void LEVEL(lapwing_import)(IMPORT_ARGUMENTS) { take(to, from, width, between, n, stride, (n + 15) / 16 * 16, 0, 0); }
