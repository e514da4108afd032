// A lone row: lanes over outputs, columns or groups instead of rows, so that it does not pay for a whole vector of rows.
// Every value gets the same operations in the same order as in score_body.h, so a row has the same bits in any batch;
// the compliance suite compares them. The tile is one contiguous row (stride 1). Lanes past the end of a value compute
// what nobody reads; only stores are cut. Reads may pass a value's end: constants and tiles have a vector to spare.

#if LONE_ROWS

// SPAN runs over count floats, a vector at a time: i is where, k how many lanes count.
#define SPAN(count) \
	for (size_t i = 0, k; i < (count) && (k = (count) - i < LANES ? (count) - i : LANES); i += LANES)

INLINE void put(float *p, v a, size_t k)
{
	if (k == LANES)
		vstore(p, a);
	else
		vstore_first(p, a, k);
}

INLINE float lane(v a)
{
	float f[LANES];
	vstore(f, a);
	return f[0];
}

INLINE float row_curve(const lapwing_column *c, const float *constants, float x)
{
	if (!c->table) {
		float d = x - c->x, slope = d < 0 && c->flags & COLUMN_BENT ? c->before : c->slope;
		float y = slope * d;
		return c->base + y;
	}
	const float *table = constants + c->constant;
	int size = c->table, at = 0;
	for (int half = size / 2; half > 0; half /= 2)
		at = table[at + half] <= x ? at + half : at;
	float d = x - table[at], slope = d < 0 ? c->before : table[2 * size + at];
	float y = slope * d;
	return table[size + at] + y;
}

static void row_map(const lapwing_step *s, const frame *f, const float *x, float *y)
{
	for (int32_t j = 0; j < s->width; j++) {
		const lapwing_column *c = f->columns + s->column + j;
		float a = x[j];
		if (s->op == OP_UNMAP) {
			a = row_curve(c, f->constants, a);
			if (c->flags & COLUMN_LOG) {
				v b = vset(a);
				a = lane(vsigned(vsub(vexp(vabs(b)), vset(1.0f)), b));
			}
		} else {
			a = a != a ? c->impute : a;
			if (c->flags & COLUMN_LOG) {
				v b = vset(a);
				a = lane(vsigned(vlog(vadd(vset(1.0f), vabs(b))), b));
			}
			if (c->flags & COLUMN_CLIP) {
				a = c->lo > a ? c->lo : a;
				a = c->hi < a ? c->hi : a;
			}
			a = row_curve(c, f->constants, a);
		}
		y[j] = a;
	}
}

static void row_activate(int act, float *y, size_t count)
{
	SPAN(count)
	{
		v a = vload(y + i);
		switch (act) {
		case ACT_RELU:
			a = vmax(vzero(), a);
			break;
		case ACT_TANH:
			a = vtanh(a);
			break;
		case ACT_SIGMOID:
			a = vsigmoid(a);
			break;
		case ACT_LEAKY_RELU:
			a = vleaky(a);
			break;
		case ACT_ELU:
			a = velu(a);
			break;
		case ACT_GELU: {
			v slope;
			a = vgelu(a, &slope);
			break;
		}
		}
		put(y + i, a, k);
	}
}

// Several blocks at a time: one block's sums wait for each other, and a multiply-add takes four cycles.
#define ROW_BEGIN(i) \
	const float *w##i = w + (i < larger ? (size_t)i * (size + 1) : (size_t)i * size + larger) * inputs; \
	size_t o##i = size + (i < larger);                                                                  \
	v a##i = vload(b + (i < larger ? (size_t)i * (size + 1) : (size_t)i * size + larger));
#define ROW_STEP(i) a##i = vfma(vload(w##i), x0, a##i), w##i += o##i;
#define ROW_END(i) vstore_first(y, a##i, o##i), y += o##i;
#define ROW_GEMM(G)                                                                                              \
	static void row_gemm_##G(const float *w, const float *b, const float *x, size_t inputs, float *y, size_t size, \
				 size_t larger)                                                                  \
	{                                                                                                        \
		REPEAT##G(ROW_BEGIN) for (size_t k = 0; k < inputs; k++)                                         \
		{                                                                                                \
			v x0 = vset(x[k]);                                                                       \
			REPEAT##G(ROW_STEP)                                                                      \
		}                                                                                                \
		REPEAT##G(ROW_END)                                                                               \
	}
ROW_GEMM(1) ROW_GEMM(2) ROW_GEMM(3) ROW_GEMM(4) ROW_GEMM(5)

typedef void row_gemm_block(const float *w, const float *b, const float *x, size_t inputs, float *y, size_t size, size_t larger);

static void row_gemm(const lapwing_step *s, const frame *f)
{
	static row_gemm_block *const by[] = {0, row_gemm_1, row_gemm_2, row_gemm_3, row_gemm_4, row_gemm_5};
	size_t outs = (size_t)s->outs, inputs = (size_t)s->width;
	size_t blocks = (outs + OUTPUTS - 1) / OUTPUTS, size = outs / blocks, larger = outs % blocks;
	const float *b = f->constants + s->constant, *w = b + outs;
	float *y = f->tile + s->out;
	while (blocks > 0) {
		size_t g = blocks < 5 ? blocks : blocks < 10 ? (blocks + 1) / 2 : 5;
		size_t big = larger < g ? larger : g, did = g * size + big;
		by[g](w, b, f->tile + s->in, inputs, y, size, big);
		w += did * inputs, b += did, y += did;
		blocks -= g, larger -= big;
	}
	row_activate(s->act, f->tile + s->out, outs);
}

static void row_norm(const lapwing_step *s, const frame *f)
{
	const float *x = f->tile + s->in;
	size_t j = (size_t)s->width;
	v sum = vzero();
	for (; j >= 4; j -= 4, x += 4) {
		v e = vload_first(x, 4);
		sum = vfma(e, e, sum);
	}
	for (; j > 0; j--, x++) {
		v e = vload_first(x, 1); // 0 in the other parts
		sum = vfma(e, e, sum);
	}
	float p[LANES];
	vstore(p, sum);
	float low = p[0] + p[1], high = p[2] + p[3];
	f->tile[s->out] = lane(vsqrt(vset(low + high)));
}

#define ROW_NEAREST_BEGIN(i) v a##i = vload(w + i * per * (width + 1) + from);
#define ROW_NEAREST_STEP(i) a##i = vfma(vload(w + i * per * (width + 1) + at), x0, a##i);
#define ROW_NEAREST_END(i)                                              \
	{                                                               \
		vstore(sums, a##i);                                     \
		for (size_t p = 0; p < o; p++)                          \
			if (sums[p] < least[i])                         \
				least[i] = sums[p], which[i] = (int32_t)(first + p); \
	}
#define ROW_NEAREST(G)                                                                                          \
	static void row_nearest_##G(const float *w, const float *x, size_t per, size_t width, size_t smaller,  \
				    size_t larger, size_t blocks, int32_t *which)                               \
	{                                                                                                       \
		float least[G], sums[LANES];                                                                    \
		for (int i = 0; i < G; i++)                                                                     \
			least[i] = __builtin_inff(), which[i] = 0;                                              \
		for (size_t n = 0, from = 0, first = 0; n < blocks; n++) {                                      \
			size_t o = smaller + (n < larger), at = from + o;                                       \
			REPEAT##G(ROW_NEAREST_BEGIN) for (size_t k = 0; k < width; k++, at += o)                \
			{                                                                                       \
				v x0 = vset(x[k]);                                                              \
				REPEAT##G(ROW_NEAREST_STEP)                                                     \
			}                                                                                       \
			REPEAT##G(ROW_NEAREST_END) from += o * (width + 1), first += o;                         \
		}                                                                                               \
	}
ROW_NEAREST(1) ROW_NEAREST(8)

// The groups' distances have a group in each lane. Programs whose tables are too large for an
// index do not come here: row_fits sees to it.
static void row_nearest(const lapwing_step *s, const frame *f)
{
	size_t width = (size_t)s->width, per = (size_t)s->per, groups = (size_t)s->groups, size = table_size(s);
	size_t blocks = (per + OUTPUTS - 1) / OUTPUTS, smaller = per / blocks, larger = per % blocks;
	const float *x = f->tile + s->in, *w = f->constants + s->constant, *tables = nearest_tables(s, f->constants);
	float *mean = f->tile + s->out, *distance = mean + 1;
	int32_t *which = (int32_t *)(void *)(distance + groups);
	for (size_t g = 0; g < groups;) {
		size_t n = groups - g < 8 ? 1 : 8;
		(n == 8 ? row_nearest_8 : row_nearest_1)(w, x, per, width, smaller, larger, blocks, which + g);
		g += n, w += n * per * (width + 1);
	}
	int32_t places[LANES];
	for (size_t i = 0; i < LANES; i++)
		places[i] = (int32_t)(i * width * size);
	SPAN(groups)
	{
		int32_t few[LANES] = {0}; // lanes past the last group look at the first, which is always there
		for (size_t p = 0; p < k; p++)
			few[p] = places[p] + which[i + p];
		vi at = viload(few);
		const float *table = tables + i * width * size;
		v part[4] = {vzero(), vzero(), vzero(), vzero()};
		size_t j = 0;
		for (; j + 4 <= width; j += 4, table += 4 * size) {
			v e0 = vsub(vset(x[j]), vgather(table, at)), e1 = vsub(vset(x[j + 1]), vgather(table + size, at));
			v e2 = vsub(vset(x[j + 2]), vgather(table + 2 * size, at)), e3 = vsub(vset(x[j + 3]), vgather(table + 3 * size, at));
			part[0] = vfma(e0, e0, part[0]), part[1] = vfma(e1, e1, part[1]);
			part[2] = vfma(e2, e2, part[2]), part[3] = vfma(e3, e3, part[3]);
		}
		for (; j < width; j++, table += size) {
			v e = vsub(vset(x[j]), vgather(table, at));
			part[0] = vfma(e, e, part[0]);
		}
		put(distance + i, vsqrt(vadd(vadd(part[0], part[1]), vadd(part[2], part[3]))), k);
	}
	float sum = 0, lost = 0; // as in nearest
	for (size_t g = 0; g < groups; g++) {
		float d = distance[g] - lost, t = sum + d, high = t - sum;
		lost = high - d;
		lost = lost != lost ? 0 : lost;
		sum = t;
	}
	mean[0] = sum / (float)groups;
}

static void row_split_nearest(const lapwing_step *s, const frame *f)
{
	size_t width = (size_t)s->width, groups = (size_t)s->groups, size = table_size(s);
	const float *x = f->tile + s->in, *distance = f->tile + s->in2 + 1;
	const int32_t *which = (const int32_t *)(const void *)(distance + groups);
	const float *tables = nearest_tables(s, f->constants);
	float *y = f->tile + s->out;
	int32_t places[LANES];
	SPAN(width)
	{
		for (size_t p = 0; p < LANES; p++)
			places[p] = p < k ? (int32_t)(p * size) : 0;
		vi columns = viload(places);
		v sum = vzero(), c = vload(x + i);
		for (size_t g = 0; g < groups; g++) {
			const float *table = tables + (g * width + i) * size;
			v e = vsub(c, vgather(table + which[g], columns));
			sum = vfma(vmul(e, e), reciprocal(vset(distance[g])), sum);
		}
		put(y + i, vmul(sum, vset(1.0f / (float)groups)), k);
	}
}

static void run_row(const lapwing_step *s, const frame *f)
{
	size_t width = (size_t)s->width;
	const float *x = f->tile + s->in, *x2 = f->tile + s->in2;
	float *y = f->tile + s->out;
	switch (s->op) {
	case OP_LOAD:
		if (s->column < 0)
			__builtin_memcpy(y, f->rows, width * sizeof *y);
		else
			row_map(s, f, f->rows, y);
		break;
	case OP_MAP:
	case OP_UNMAP:
		row_map(s, f, x, y);
		break;
	case OP_GEMM:
		row_gemm(s, f);
		break;
	case OP_DIFF:
		SPAN(width)
		put(y + i, vsub(vload(x + i), vload(x2 + i)), k);
		break;
	case OP_NORM:
		row_norm(s, f);
		break;
	case OP_NEAREST:
		row_nearest(s, f);
		break;
	case OP_SPLIT: {
		v r = reciprocal(vset(*x2));
		SPAN(width)
		{
			v e = vload(x + i);
			put(y + i, vmul(vmul(e, e), r), k);
		}
		break;
	}
	case OP_SPLIT_NEAREST:
		row_split_nearest(s, f);
		break;
	case OP_SCALE:
		SPAN(width)
		put(y + i, vmul(vset(s->weight), vload(x + i)), k);
		break;
	case OP_ADD:
		SPAN(width)
		put(y + i, vfma(vset(s->weight), vload(x + i), vload(y + i)), k);
		break;
	case OP_STORE:
		__builtin_memcpy(f->out[s->out], x, width * sizeof *x);
		break;
	}
}

#endif
