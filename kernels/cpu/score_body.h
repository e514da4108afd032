// The scoring interpreter of one level. Rows stand across lanes, weights are broadcast; every step runs over a tile
// of rows whose values stay in the first-level cache, column by column, rows of a column together. A row is one
// lane from its loading to its result, and no operation looks across lanes: its bits cannot depend on its neighbours.
#include "score.h"

#define REPEAT1(M) M(0)
#define REPEAT2(M) REPEAT1(M) M(1)
#define REPEAT3(M) REPEAT2(M) M(2)
#define REPEAT4(M) REPEAT3(M) M(3)
#define REPEAT5(M) REPEAT4(M) M(4)
#define REPEAT6(M) REPEAT5(M) M(5)
#define REPEAT7(M) REPEAT6(M) M(6)
#define REPEAT8(M) REPEAT7(M) M(7)
#define REPEAT9(M) REPEAT8(M) M(8)
#define REPEAT10(M) REPEAT9(M) M(9)
#define REPEAT11(M) REPEAT10(M) M(10)
#define REPEAT12(M) REPEAT11(M) M(11)
#define REPEAT13(M) REPEAT12(M) M(12)
#define REPEAT14(M) REPEAT13(M) M(13)

#if defined(LEVEL_AVX512)
#define OUTPUTS OUTPUTS_AVX512
#elif defined(LEVEL_AVX2)
#define OUTPUTS OUTPUTS_AVX2
#else
#define OUTPUTS OUTPUTS_NEON
#endif

// What a step sees of the tile: a column's rows lie together, columns are stride apart.
typedef struct {
	const lapwing_column *columns;
	const float *constants;
	float *tile;
	size_t stride; // rows of the tile, a multiple of LANES
	size_t n;      // rows in use
	const float *rows;
	size_t width;
	float *out[3];
} frame;

// A block of a gemm: up to OUTPUTS outputs times one or two vectors of rows, all sums in registers. w holds the
// block's weights input by input. Every output sums its bias, then inputs in order, however it is blocked.
typedef void gemm_block(const float *w, const float *b, const float *x, size_t inputs, float *y, size_t stride);

#define INIT1(o) v a##o = vset(b[o]);
#define STEP1(o) a##o = vfma(vset(w[o]), x0, a##o);
#define DONE1(o) vstore(y + o * stride, a##o);
#define INIT2(o) v a##o = vset(b[o]), c##o = a##o;
#define STEP2(o)                      \
	{                             \
		v k = vset(w[o]);     \
		a##o = vfma(k, x0, a##o); \
		c##o = vfma(k, x1, c##o); \
	}
#define DONE2(o) vstore(y + o * stride, a##o), vstore(y + o * stride + LANES, c##o);

#define GEMM(O)                                                                                                    \
	static void gemm1_##O(const float *w, const float *b, const float *x, size_t inputs, float *y, size_t stride) \
	{                                                                                                          \
		REPEAT##O(INIT1) for (; inputs > 0; inputs--, w += O, x += stride)                                 \
		{                                                                                                  \
			v x0 = vload(x);                                                                           \
			REPEAT##O(STEP1)                                                                           \
		}                                                                                                  \
		REPEAT##O(DONE1)                                                                                   \
	}                                                                                                          \
	static void gemm2_##O(const float *w, const float *b, const float *x, size_t inputs, float *y, size_t stride) \
	{                                                                                                          \
		REPEAT##O(INIT2) for (; inputs > 0; inputs--, w += O, x += stride)                                 \
		{                                                                                                  \
			v x0 = vload(x), x1 = vload(x + LANES);                                                    \
			REPEAT##O(STEP2)                                                                           \
		}                                                                                                  \
		REPEAT##O(DONE2)                                                                                   \
	}

GEMM(1) GEMM(2) GEMM(3) GEMM(4) GEMM(5) GEMM(6)
#if OUTPUTS > 6
GEMM(7) GEMM(8) GEMM(9) GEMM(10) GEMM(11) GEMM(12)
#endif
#if OUTPUTS > 12
GEMM(13) GEMM(14)
#endif

static gemm_block *const gemm_blocks[2][OUTPUTS + 1] = {
	{0, gemm1_1, gemm1_2, gemm1_3, gemm1_4, gemm1_5, gemm1_6,
#if OUTPUTS > 6
	 gemm1_7, gemm1_8, gemm1_9, gemm1_10, gemm1_11, gemm1_12,
#endif
#if OUTPUTS > 12
	 gemm1_13, gemm1_14,
#endif
	},
	{0, gemm2_1, gemm2_2, gemm2_3, gemm2_4, gemm2_5, gemm2_6,
#if OUTPUTS > 6
	 gemm2_7, gemm2_8, gemm2_9, gemm2_10, gemm2_11, gemm2_12,
#endif
#if OUTPUTS > 12
	 gemm2_13, gemm2_14,
#endif
	},
};

// y[0 … count) = act of itself, count a multiple of LANES.
static void activate(int act, float *y, size_t count)
{
	switch (act) {
	case ACT_RELU:
		for (size_t i = 0; i < count; i += LANES)
			vstore(y + i, vmax(vzero(), vload(y + i)));
		break;
	case ACT_TANH:
		for (size_t i = 0; i < count; i += LANES)
			vstore(y + i, vtanh(vload(y + i)));
		break;
	case ACT_SIGMOID:
		for (size_t i = 0; i < count; i += LANES)
			vstore(y + i, vsigmoid(vload(y + i)));
		break;
	case ACT_LEAKY_RELU:
		for (size_t i = 0; i < count; i += LANES)
			vstore(y + i, vleaky(vload(y + i)));
		break;
	case ACT_ELU:
		for (size_t i = 0; i < count; i += LANES)
			vstore(y + i, velu(vload(y + i)));
		break;
	case ACT_GELU:
		for (size_t i = 0; i < count; i += LANES) {
			v slope;
			vstore(y + i, vgelu(vload(y + i), &slope));
		}
		break;
	}
}

static void gemm(const lapwing_step *s, const frame *f)
{
	size_t outs = (size_t)s->outs, inputs = (size_t)s->width, stride = f->stride;
	size_t blocks = (outs + OUTPUTS - 1) / OUTPUTS, least = outs / blocks, larger = outs % blocks;
	const float *x = f->tile + (size_t)s->in * stride, *b = f->constants + s->constant, *w = b + outs;
	float *y = f->tile + (size_t)s->out * stride;
	for (size_t i = 0; i < blocks; i++) {
		size_t o = least + (i < larger), r = 0;
		for (; r + 2 * LANES <= stride; r += 2 * LANES)
			gemm_blocks[1][o](w, b, x + r, inputs, y + r, stride);
		if (r < stride)
			gemm_blocks[0][o](w, b, x + r, inputs, y + r, stride);
		activate(s->act, y, o * stride);
		w += o * inputs, b += o, y += o * stride;
	}
}

// knots gives the value of a piecewise-linear function at x: the last knot not right of x, 0 if there is none.
// Product and sum are rounded apart, as kernels.Curve does it: fused, the end of one piece could pass the
// beginning of the next.
INLINE v knots(const lapwing_column *c, const float *table, v x)
{
	vi at = viset(0);
	int size = c->table;
	for (int half = size / 2; half > 0; half /= 2) {
		vi to = viadd(at, viset(half));
		at = vipick(vle(vlookup(table, size, to), x), to, at);
	}
	v d = vsub(x, vlookup(table, size, at)), slope = vlookup(table + 2 * size, size, at);
	slope = vpick(vlt(d, vzero()), vset(c->before), slope);
	return vadd(vlookup(table + size, size, at), vmul(slope, d));
}

INLINE v curve(const lapwing_column *c, const float *constants, v x)
{
	if (c->table)
		return knots(c, constants + c->constant, x);
	v d = vsub(x, vset(c->x)), slope = vset(c->slope);
	if (c->flags & COLUMN_BENT)
		slope = vpick(vlt(d, vzero()), vset(c->before), slope);
	return vadd(vset(c->base), vmul(slope, d));
}

INLINE v map(const lapwing_column *c, const float *constants, v x)
{
	x = vpick(vnan(x), vset(c->impute), x);
	if (c->flags & COLUMN_LOG)
		x = vsigned(vlog(vadd(vset(1.0f), vabs(x))), x);
	if (c->flags & COLUMN_CLIP)
		x = vmin(vset(c->hi), vmax(vset(c->lo), x));
	return curve(c, constants, x);
}

INLINE v unmap(const lapwing_column *c, const float *constants, v x)
{
	v y = curve(c, constants, x);
	if (c->flags & COLUMN_LOG)
		y = vsigned(vsub(vexp(vabs(y)), vset(1.0f)), y);
	return y;
}

// load reads four columns of LANES rows at a time. Where fewer than four columns are left, the last ones are read
// again with their neighbours; what neither rows nor columns fill goes through a buffer.
static void load(const lapwing_step *s, const frame *f)
{
	size_t width = f->width, stride = f->stride;
	const lapwing_column *columns = s->column < 0 ? 0 : f->columns + s->column;
	float *y = f->tile + (size_t)s->out * stride;
	for (size_t r = 0; r < stride; r += LANES) {
		const float *row = f->rows + r * width;
		size_t have = f->n - r < LANES ? f->n - r : LANES;
		for (size_t j = 0; j < width;) {
			v c[4];
			if (have == LANES && width >= 4) {
				j = j < width - 4 ? j : width - 4;
				vcolumns(c, row + j, width);
			} else {
				float few[LANES * 4] = {0};
				for (size_t k = 0; k < have; k++)
					for (size_t i = 0; i < 4 && j + i < width; i++)
						few[k * 4 + i] = row[k * width + j + i];
				vcolumns(c, few, 4);
			}
			for (size_t i = 0; i < 4 && j < width; i++, j++)
				vstore(y + j * stride + r, columns ? map(columns + j, f->constants, c[i]) : c[i]);
		}
	}
}

static void store(const lapwing_step *s, const frame *f)
{
	size_t width = (size_t)s->width, stride = f->stride;
	const float *x = f->tile + (size_t)s->in * stride;
	float *to = f->out[s->out];
	if (width == 1) {
		size_t r = 0;
		for (; r + LANES <= f->n; r += LANES)
			vstore(to + r, vload(x + r));
		if (r < f->n)
			vstore_first(to + r, vload(x + r), f->n - r);
		return;
	}
	for (size_t r = 0; r < f->n; r += LANES) {
		float *row = to + r * width;
		size_t have = f->n - r < LANES ? f->n - r : LANES;
		for (size_t j = 0; j < width; j += 4) {
			v c[4];
			if (have == LANES && width >= 4) {
				j = j < width - 4 ? j : width - 4;
				for (size_t i = 0; i < 4; i++)
					c[i] = vload(x + (j + i) * stride + r);
				vrows(c, row + j, width);
				continue;
			}
			float few[LANES * 4];
			for (size_t i = 0; i < 4; i++)
				c[i] = j + i < width ? vload(x + (j + i) * stride + r) : vzero();
			vrows(c, few, 4);
			for (size_t k = 0; k < have; k++)
				for (size_t i = 0; i < 4 && j + i < width; i++)
					row[k * width + j + i] = few[k * 4 + i];
		}
	}
}

static void map_columns(const lapwing_step *s, const frame *f)
{
	const float *x = f->tile + (size_t)s->in * f->stride;
	float *y = f->tile + (size_t)s->out * f->stride;
	for (int32_t j = 0; j < s->width; j++, x += f->stride, y += f->stride) {
		const lapwing_column *c = f->columns + s->column + j;
		if (s->op == OP_UNMAP)
			for (size_t r = 0; r < f->stride; r += LANES)
				vstore(y + r, unmap(c, f->constants, vload(x + r)));
		else
			for (size_t r = 0; r < f->stride; r += LANES)
				vstore(y + r, map(c, f->constants, vload(x + r)));
	}
}

// sum of squares in four parts by column, as the portable path sums.
static void norm(const lapwing_step *s, const frame *f)
{
	size_t stride = f->stride, width = (size_t)s->width;
	const float *x = f->tile + (size_t)s->in * stride;
	float *y = f->tile + (size_t)s->out * stride;
	for (size_t r = 0; r < stride; r += LANES) {
		v a = vzero(), b = a, c = a, d = a;
		const float *p = x + r;
		size_t j = width;
		for (; j >= 4; j -= 4, p += 4 * stride) {
			v e = vload(p), g = vload(p + stride), h = vload(p + 2 * stride), i = vload(p + 3 * stride);
			a = vfma(e, e, a), b = vfma(g, g, b), c = vfma(h, h, c), d = vfma(i, i, d);
		}
		for (; j > 0; j--, p += stride) {
			v e = vload(p);
			a = vfma(e, e, a);
		}
		vstore(y + r, vsqrt(vadd(vadd(a, b), vadd(c, d))));
	}
}

// reciprocal is 1/d, and 0 where d is 0. A norm that is not 0 is above 1e-23, so nothing overflows.
INLINE v reciprocal(v d) { return vpick(veq(d, vzero()), vzero(), vdiv(vset(1.0f), d)); }

static void split(const lapwing_step *s, const frame *f)
{
	size_t stride = f->stride;
	for (size_t r = 0; r < stride; r += LANES) {
		const float *x = f->tile + (size_t)s->in * stride + r;
		float *y = f->tile + (size_t)s->out * stride + r;
		v k = reciprocal(vload(f->tile + (size_t)s->in2 * stride + r));
		for (int32_t j = 0; j < s->width; j++, x += stride, y += stride) {
			v e = vload(x);
			vstore(y, vmul(vmul(e, e), k));
		}
	}
}

// A block of a group's prototypes: −x·c + ‖c‖²/2 for each, in registers, then the least and which it is. w holds
// −c, h the half squares. least and at go on from block to block.
typedef void nearest_block(const float *w, const float *h, const float *x, size_t inputs, size_t stride, int first, v *least, vi *at);

#define LEAST1(o)                                           \
	{                                                   \
		vm m = vlt(a##o, least[0]);                 \
		least[0] = vpick(m, a##o, least[0]);        \
		at[0] = vipick(m, viset(first + o), at[0]); \
	}
#define LEAST2(o)                                             \
	{                                                     \
		vi k = viset(first + o);                      \
		vm m = vlt(a##o, l0), q = vlt(c##o, l1);      \
		l0 = vpick(m, a##o, l0), l1 = vpick(q, c##o, l1); \
		i0 = vipick(m, k, i0), i1 = vipick(q, k, i1); \
	}

#define NEAREST(O)                                                                                                     \
	static void nearest1_##O(const float *w, const float *b, const float *x, size_t inputs, size_t stride, int first, \
				 v *least, vi *at)                                                                     \
	{                                                                                                              \
		REPEAT##O(INIT1) for (; inputs > 0; inputs--, w += O, x += stride)                                     \
		{                                                                                                      \
			v x0 = vload(x);                                                                               \
			REPEAT##O(STEP1)                                                                               \
		}                                                                                                      \
		REPEAT##O(LEAST1)                                                                                      \
	}                                                                                                              \
	static void nearest2_##O(const float *w, const float *b, const float *x, size_t inputs, size_t stride, int first, \
				 v *least, vi *at)                                                                     \
	{                                                                                                              \
		REPEAT##O(INIT2) for (; inputs > 0; inputs--, w += O, x += stride)                                     \
		{                                                                                                      \
			v x0 = vload(x), x1 = vload(x + LANES);                                                        \
			REPEAT##O(STEP2)                                                                               \
		}                                                                                                      \
		v l0 = least[0], l1 = least[1];                                                                        \
		vi i0 = at[0], i1 = at[1];                                                                             \
		REPEAT##O(LEAST2) least[0] = l0, least[1] = l1, at[0] = i0, at[1] = i1;                                \
	}

NEAREST(1) NEAREST(2) NEAREST(3) NEAREST(4) NEAREST(5) NEAREST(6)
#if OUTPUTS > 6
NEAREST(7) NEAREST(8) NEAREST(9) NEAREST(10) NEAREST(11) NEAREST(12)
#endif
#if OUTPUTS > 12
NEAREST(13) NEAREST(14)
#endif

static nearest_block *const nearest_blocks[2][OUTPUTS + 1] = {
	{0, nearest1_1, nearest1_2, nearest1_3, nearest1_4, nearest1_5, nearest1_6,
#if OUTPUTS > 6
	 nearest1_7, nearest1_8, nearest1_9, nearest1_10, nearest1_11, nearest1_12,
#endif
#if OUTPUTS > 12
	 nearest1_13, nearest1_14,
#endif
	},
	{0, nearest2_1, nearest2_2, nearest2_3, nearest2_4, nearest2_5, nearest2_6,
#if OUTPUTS > 6
	 nearest2_7, nearest2_8, nearest2_9, nearest2_10, nearest2_11, nearest2_12,
#endif
#if OUTPUTS > 12
	 nearest2_13, nearest2_14,
#endif
	},
};

// prototype gives column j of prototype at of a group: a table of per entries a column, or, where there is none,
// memory.
INLINE v prototype(const float *group, int table, int per, size_t j, vi at)
{
	if (table)
		return vlookup(group + j * (size_t)table, table, at);
	return vgather(group + j * (size_t)per, at);
}

// The constants of a nearest: for each group its half squares and its negated prototypes in blocks; then for each
// group a table a column.
INLINE size_t table_size(const lapwing_step *s) { return (size_t)(s->table ? s->table : s->per); }
INLINE const float *nearest_tables(const lapwing_step *s, const float *constants)
{
	size_t size = (size_t)s->groups * (size_t)s->per * (size_t)(s->width + 1);
	return constants + s->constant + ((size + 15) & ~(size_t)15);
}

// nearest leaves beside the mean what split_nearest needs: column 1+g holds the distance of group g, column
// 1+groups+g which prototype it was.
static void nearest(const lapwing_step *s, const frame *f)
{
	size_t stride = f->stride, width = (size_t)s->width, per = (size_t)s->per, groups = (size_t)s->groups;
	size_t blocks = (per + OUTPUTS - 1) / OUTPUTS, smaller = per / blocks, larger = per % blocks;
	const float *x = f->tile + (size_t)s->in * stride, *w = f->constants + s->constant;
	const float *tables = nearest_tables(s, f->constants);
	float *mean = f->tile + (size_t)s->out * stride;
	for (size_t g = 0; g < groups; g++, w += per * (width + 1), tables += width * table_size(s)) {
		float *distance = mean + (1 + g) * stride;
		float *which = mean + (1 + groups + g) * stride;
		for (size_t r = 0; r < stride; r += 2 * LANES) {
			int two = r + 2 * LANES <= stride;
			v least[2] = {vset(__builtin_inff()), vset(__builtin_inff())};
			vi at[2] = {viset(0), viset(0)};
			const float *block = w;
			for (size_t i = 0, first = 0; i < blocks; i++) {
				size_t o = smaller + (i < larger);
				nearest_blocks[two][o](block + o, block, x + r, width, stride, (int)first, least, at);
				block += o * (width + 1), first += o;
			}
			for (int k = 0; k <= two; k++) {
				v part[4] = {vzero(), vzero(), vzero(), vzero()};
				const float *p = x + r + (size_t)k * LANES;
				size_t j = 0;
				for (; j + 4 <= width; j += 4, p += 4 * stride) {
					v e0 = vsub(vload(p), prototype(tables, s->table, s->per, j, at[k]));
					v e1 = vsub(vload(p + stride), prototype(tables, s->table, s->per, j + 1, at[k]));
					v e2 = vsub(vload(p + 2 * stride), prototype(tables, s->table, s->per, j + 2, at[k]));
					v e3 = vsub(vload(p + 3 * stride), prototype(tables, s->table, s->per, j + 3, at[k]));
					part[0] = vfma(e0, e0, part[0]), part[1] = vfma(e1, e1, part[1]);
					part[2] = vfma(e2, e2, part[2]), part[3] = vfma(e3, e3, part[3]);
				}
				for (; j < width; j++, p += stride) {
					v e = vsub(vload(p), prototype(tables, s->table, s->per, j, at[k]));
					part[0] = vfma(e, e, part[0]);
				}
				v sum = vadd(vadd(part[0], part[1]), vadd(part[2], part[3]));
				vstore(distance + r + (size_t)k * LANES, vsqrt(sum));
				vistore((int32_t *)(void *)(which + r + (size_t)k * LANES), at[k]);
			}
		}
	}
	// Kahan's sum: there may be thousands of groups. Where it overflows the correction is NaN, and is left out.
	v share = vset((float)groups);
	for (size_t r = 0; r < stride; r += LANES) {
		v sum = vzero(), lost = vzero();
		for (size_t g = 1; g <= groups; g++) {
			v d = vsub(vload(mean + g * stride + r), lost), t = vadd(sum, d);
			lost = vsub(vsub(t, sum), d);
			lost = vpick(vnan(lost), vzero(), lost);
			sum = t;
		}
		vstore(mean + r, vdiv(sum, share));
	}
}

static void split_nearest(const lapwing_step *s, const frame *f)
{
	size_t stride = f->stride, width = (size_t)s->width, groups = (size_t)s->groups, size = table_size(s);
	const float *x = f->tile + (size_t)s->in * stride, *mean = f->tile + (size_t)s->in2 * stride;
	const float *tables = nearest_tables(s, f->constants);
	float *y = f->tile + (size_t)s->out * stride;
	v share = vset(1.0f / (float)groups);
	for (size_t r = 0; r < stride; r += LANES) {
		for (size_t j = 0; j < width; j += 4) {
			size_t have = width - j < 4 ? width - j : 4;
			v sum[4] = {vzero(), vzero(), vzero(), vzero()}, c[4];
			for (size_t i = 0; i < have; i++)
				c[i] = vload(x + (j + i) * stride + r);
			for (size_t g = 0; g < groups; g++) {
				const float *d = mean + (1 + g) * stride + r;
				v k = reciprocal(vload(d));
				vi at = viload((const int32_t *)(const void *)(d + groups * stride));
				const float *table = tables + g * width * size;
				for (size_t i = 0; i < have; i++) {
					v e = vsub(c[i], prototype(table, s->table, s->per, j + i, at));
					sum[i] = vfma(vmul(e, e), k, sum[i]);
				}
			}
			for (size_t i = 0; i < have; i++)
				vstore(y + (j + i) * stride + r, vmul(sum[i], share));
		}
	}
}

static void run(const lapwing_step *s, const frame *f)
{
	size_t count = (size_t)s->width * f->stride;
	const float *x = f->tile + (size_t)s->in * f->stride, *x2 = f->tile + (size_t)s->in2 * f->stride;
	float *y = f->tile + (size_t)s->out * f->stride;
	v k = vset(s->weight);
	switch (s->op) {
	case OP_LOAD:
		load(s, f);
		break;
	case OP_MAP:
	case OP_UNMAP:
		map_columns(s, f);
		break;
	case OP_GEMM:
		gemm(s, f);
		break;
	case OP_DIFF:
		for (size_t i = 0; i < count; i += LANES)
			vstore(y + i, vsub(vload(x + i), vload(x2 + i)));
		break;
	case OP_NORM:
		norm(s, f);
		break;
	case OP_NEAREST:
		nearest(s, f);
		break;
	case OP_SPLIT:
		split(s, f);
		break;
	case OP_SPLIT_NEAREST:
		split_nearest(s, f);
		break;
	case OP_SCALE:
		for (size_t i = 0; i < count; i += LANES)
			vstore(y + i, vmul(k, vload(x + i)));
		break;
	case OP_ADD:
		for (size_t i = 0; i < count; i += LANES)
			vstore(y + i, vfma(k, vload(x + i), vload(y + i)));
		break;
	case OP_STORE:
		store(s, f);
		break;
	}
}

// In row_body.h: one step of a lone row. A block's outputs have to fit in a vector: not in NEON's four lanes, of which a
// lone row leaves only three idle.
#define LONE_ROWS (OUTPUTS <= LANES)
#if LONE_ROWS
static void run_row(const lapwing_step *s, const frame *f);

// row_fits tells whether a lone row's look-ups stay within what an index of a gather can name.
static int row_fits(const lapwing_step *steps, int64_t count)
{
	for (int64_t i = 0; i < count; i++)
		if (steps[i].table + steps[i].per > 0 && (int64_t)steps[i].width * (int64_t)table_size(steps + i) > INT32_MAX / LANES)
			return 0;
	return 1;
}
#endif

void LEVEL(lapwing_score)(SCORE_ARGUMENTS)
{
	frame f = {columns, constants, tile, 0, 0, rows, (size_t)width, {score, reconstruction, contributions}};
	for (size_t at = 0; at < (size_t)n; at += (size_t)tile_rows) {
		size_t left = (size_t)n - at;
		f.n = left < (size_t)tile_rows ? left : (size_t)tile_rows;
		f.stride = (f.n + LANES - 1) / LANES * LANES;
		f.rows = rows + at * f.width;
		f.out[0] = score ? score + at : 0;
		f.out[1] = reconstruction ? reconstruction + at * f.width : 0;
		f.out[2] = contributions ? contributions + at * f.width : 0;
#if LONE_ROWS
		if (f.n == 1 && row_fits(steps, count)) {
			f.stride = 1;
			for (int64_t i = 0; i < count; i++)
				run_row(steps + i, &f);
			continue;
		}
#endif
		for (int64_t i = 0; i < count; i++)
			run(steps + i, &f);
	}
}

void LEVEL(lapwing_apply)(int fn, const float *x, float *y, int64_t n)
{
	for (int64_t i = 0; i < n; i += LANES) {
		size_t k = n - i < LANES ? (size_t)(n - i) : LANES;
		v a = vload_first(x + i, k);
		switch (fn) {
		case FN_TANH:
			a = vtanh(a);
			break;
		case FN_SIGMOID:
			a = vsigmoid(a);
			break;
		case FN_EXP:
			a = vexp(a);
			break;
		case FN_LOG:
			a = vlog(a);
			break;
		case FN_ELU:
			a = velu(a);
			break;
		case FN_GELU: {
			v slope;
			a = vgelu(a, &slope);
			break;
		}
		}
		vstore_first(y + i, a, k);
	}
}

double LEVEL(lapwing_peak)(int64_t n, float *sink)
{
	// Fewer than two products of 16 chains at a time is what no processor of these levels can do.
#define CHAIN_BEGIN(o) v a##o = vset((float)o);
#define CHAIN_NEXT(o) a##o = vfma(a##o, x, y);
#define CHAIN_END(o) y = vadd(y, a##o);
	v x = vload_first(sink, 1), y = x;
	REPEAT12(CHAIN_BEGIN)
	for (int64_t i = 0; i < n; i++) {
		REPEAT12(CHAIN_NEXT)
	}
	REPEAT12(CHAIN_END)
	vstore_first(sink, y, 1);
	return 12.0 * (double)n * LANES;
}
