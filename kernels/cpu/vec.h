// Vectors of float32 in one vocabulary for three instruction sets. A file that includes it is compiled once for
// each level: score_avx2.c and its sisters define LEVEL_AVX2, LEVEL_AVX512 or LEVEL_NEON, include this file, then
// the code that uses it, then vec_end.h.
//
// All levels give the same bits: every operation here is correctly rounded by IEEE 754, a product and a sum are
// fused where the code says so and nowhere else (cgo passes -std=c11, in which compilers fuse nothing themselves),
// and no estimate of a reciprocal is used, since each processor has its own.
//
// No include guard: one program has all levels, but one translation unit has one. Everything is static, and only
// functions made with LEVEL() have names that the linker sees.
#include <stddef.h>
#include <stdint.h>

#define JOINED_(a, b) a##_##b
#define JOINED(a, b) JOINED_(a, b)
#define LEVEL(name) JOINED(name, LEVEL_NAME)

#if defined(LEVEL_AVX512)
#define LEVEL_NAME avx512
#elif defined(LEVEL_AVX2)
#define LEVEL_NAME avx2
#elif defined(LEVEL_NEON)
#define LEVEL_NAME neon
#endif

#if defined(LEVEL_AVX512) || defined(LEVEL_AVX2)
#include <immintrin.h>
#else
#include <arm_neon.h>
#endif

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif
#if defined(LEVEL_AVX512)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma,avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,fma,avx2")
#endif
#elif defined(LEVEL_AVX2)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#endif

#define INLINE static inline __attribute__((always_inline, unused))

// v is LANES floats, vi as many int32, vm a mask of lanes.
//
// vmin(c, x) and vmax(c, x) give x where x is NaN; with c NaN they differ between levels, so c is a constant.
// Comparisons are false where either side is NaN.
#if defined(LEVEL_AVX512)

#define LANES 16
typedef __m512 v;
typedef __m512i vi;
typedef __mmask16 vm;

INLINE v vload(const float *p) { return _mm512_loadu_ps(p); }
INLINE void vstore(float *p, v a) { _mm512_storeu_ps(p, a); }
// The first n lanes, n <= LANES; others read as 0 and stay unwritten.
INLINE v vload_first(const float *p, size_t n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
INLINE void vstore_first(float *p, v a, size_t n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a); }
INLINE v vset(float x) { return _mm512_set1_ps(x); }
INLINE v vzero(void) { return _mm512_setzero_ps(); }
INLINE v vadd(v a, v b) { return _mm512_add_ps(a, b); }
INLINE v vsub(v a, v b) { return _mm512_sub_ps(a, b); }
INLINE v vmul(v a, v b) { return _mm512_mul_ps(a, b); }
INLINE v vdiv(v a, v b) { return _mm512_div_ps(a, b); }
INLINE v vsqrt(v a) { return _mm512_sqrt_ps(a); }
INLINE v vfma(v a, v b, v c) { return _mm512_fmadd_ps(a, b, c); }   // a·b + c
INLINE v vfnma(v a, v b, v c) { return _mm512_fnmadd_ps(a, b, c); } // c − a·b
INLINE v vmin(v c, v x) { return _mm512_min_ps(c, x); }
INLINE v vmax(v c, v x) { return _mm512_max_ps(c, x); }
INLINE vm vlt(v a, v b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
INLINE vm vle(v a, v b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
INLINE vm veq(v a, v b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
INLINE vm vnan(v a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
INLINE int vany(vm m) { return m != 0; }
INLINE v vpick(vm m, v yes, v no) { return _mm512_mask_blend_ps(m, no, yes); }
INLINE vi vipick(vm m, vi yes, vi no) { return _mm512_mask_blend_epi32(m, no, yes); }
INLINE vi vbits(v a) { return _mm512_castps_si512(a); }
INLINE v vfloat(vi a) { return _mm512_castsi512_ps(a); }
INLINE vi viset(int32_t x) { return _mm512_set1_epi32(x); }
INLINE vi viload(const int32_t *p) { return _mm512_loadu_si512(p); }
INLINE void vistore(int32_t *p, vi a) { _mm512_storeu_si512(p, a); }
INLINE vi viadd(vi a, vi b) { return _mm512_add_epi32(a, b); }
INLINE vi visub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
INLINE vi viand(vi a, vi b) { return _mm512_and_si512(a, b); }
INLINE vi vior(vi a, vi b) { return _mm512_or_si512(a, b); }
INLINE vi vixor(vi a, vi b) { return _mm512_xor_si512(a, b); }
#define vishl(a, n) _mm512_slli_epi32(a, n)
#define vishr(a, n) _mm512_srai_epi32(a, n)
INLINE v vconvert(vi a) { return _mm512_cvtepi32_ps(a); }
INLINE vi vicount(vi n, vm m) { return _mm512_mask_add_epi32(n, m, n, _mm512_set1_epi32(1)); } // n+1 where m
INLINE v vgather(const float *p, vi at) { return _mm512_i32gather_ps(at, p, 4); }

#elif defined(LEVEL_AVX2)

#define LANES 8
typedef __m256 v;
typedef __m256i vi;
typedef __m256 vm;

INLINE __m256i vfirst(size_t n)
{
	return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE v vload(const float *p) { return _mm256_loadu_ps(p); }
INLINE void vstore(float *p, v a) { _mm256_storeu_ps(p, a); }
INLINE v vload_first(const float *p, size_t n) { return _mm256_maskload_ps(p, vfirst(n)); }
INLINE void vstore_first(float *p, v a, size_t n) { _mm256_maskstore_ps(p, vfirst(n), a); }
INLINE v vset(float x) { return _mm256_set1_ps(x); }
INLINE v vzero(void) { return _mm256_setzero_ps(); }
INLINE v vadd(v a, v b) { return _mm256_add_ps(a, b); }
INLINE v vsub(v a, v b) { return _mm256_sub_ps(a, b); }
INLINE v vmul(v a, v b) { return _mm256_mul_ps(a, b); }
INLINE v vdiv(v a, v b) { return _mm256_div_ps(a, b); }
INLINE v vsqrt(v a) { return _mm256_sqrt_ps(a); }
INLINE v vfma(v a, v b, v c) { return _mm256_fmadd_ps(a, b, c); }
INLINE v vfnma(v a, v b, v c) { return _mm256_fnmadd_ps(a, b, c); }
INLINE v vmin(v c, v x) { return _mm256_min_ps(c, x); }
INLINE v vmax(v c, v x) { return _mm256_max_ps(c, x); }
INLINE vm vlt(v a, v b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
INLINE vm vle(v a, v b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
INLINE vm veq(v a, v b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
INLINE vm vnan(v a) { return _mm256_cmp_ps(a, a, _CMP_UNORD_Q); }
INLINE int vany(vm m) { return _mm256_movemask_ps(m) != 0; }
INLINE v vpick(vm m, v yes, v no) { return _mm256_blendv_ps(no, yes, m); }
INLINE vi vipick(vm m, vi yes, vi no)
{
	return _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(no), _mm256_castsi256_ps(yes), m));
}
INLINE vi vbits(v a) { return _mm256_castps_si256(a); }
INLINE v vfloat(vi a) { return _mm256_castsi256_ps(a); }
INLINE vi viset(int32_t x) { return _mm256_set1_epi32(x); }
INLINE vi viload(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE void vistore(int32_t *p, vi a) { _mm256_storeu_si256((__m256i *)p, a); }
INLINE vi viadd(vi a, vi b) { return _mm256_add_epi32(a, b); }
INLINE vi visub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
INLINE vi viand(vi a, vi b) { return _mm256_and_si256(a, b); }
INLINE vi vior(vi a, vi b) { return _mm256_or_si256(a, b); }
INLINE vi vixor(vi a, vi b) { return _mm256_xor_si256(a, b); }
#define vishl(a, n) _mm256_slli_epi32(a, n)
#define vishr(a, n) _mm256_srai_epi32(a, n)
INLINE v vconvert(vi a) { return _mm256_cvtepi32_ps(a); }
INLINE vi vicount(vi n, vm m) { return _mm256_sub_epi32(n, _mm256_castps_si256(m)); }
INLINE v vgather(const float *p, vi at) { return _mm256_i32gather_ps(p, at, 4); }

#else

#define LANES 4
typedef float32x4_t v;
typedef int32x4_t vi;
typedef uint32x4_t vm;

INLINE v vload(const float *p) { return vld1q_f32(p); }
INLINE void vstore(float *p, v a) { vst1q_f32(p, a); }
INLINE v vload_first(const float *p, size_t n)
{
	float f[4] = {0, 0, 0, 0};
	for (size_t i = 0; i < n; i++)
		f[i] = p[i];
	return vld1q_f32(f);
}
INLINE void vstore_first(float *p, v a, size_t n)
{
	float f[4];
	vst1q_f32(f, a);
	for (size_t i = 0; i < n; i++)
		p[i] = f[i];
}
INLINE v vset(float x) { return vdupq_n_f32(x); }
INLINE v vzero(void) { return vdupq_n_f32(0); }
INLINE v vadd(v a, v b) { return vaddq_f32(a, b); }
INLINE v vsub(v a, v b) { return vsubq_f32(a, b); }
INLINE v vmul(v a, v b) { return vmulq_f32(a, b); }
INLINE v vdiv(v a, v b) { return vdivq_f32(a, b); }
INLINE v vsqrt(v a) { return vsqrtq_f32(a); }
INLINE v vfma(v a, v b, v c) { return vfmaq_f32(c, a, b); }
INLINE v vfnma(v a, v b, v c) { return vfmsq_f32(c, a, b); }
// Not vminq: it has another sign of zero than x86's where both are zero.
INLINE v vmin(v c, v x) { return vbslq_f32(vcltq_f32(c, x), c, x); }
INLINE v vmax(v c, v x) { return vbslq_f32(vcgtq_f32(c, x), c, x); }
INLINE vm vlt(v a, v b) { return vcltq_f32(a, b); }
INLINE vm vle(v a, v b) { return vcleq_f32(a, b); }
INLINE vm veq(v a, v b) { return vceqq_f32(a, b); }
INLINE vm vnan(v a) { return vmvnq_u32(vceqq_f32(a, a)); }
INLINE int vany(vm m) { return vmaxvq_u32(m) != 0; }
INLINE v vpick(vm m, v yes, v no) { return vbslq_f32(m, yes, no); }
INLINE vi vipick(vm m, vi yes, vi no) { return vbslq_s32(m, yes, no); }
INLINE vi vbits(v a) { return vreinterpretq_s32_f32(a); }
INLINE v vfloat(vi a) { return vreinterpretq_f32_s32(a); }
INLINE vi viset(int32_t x) { return vdupq_n_s32(x); }
INLINE vi viload(const int32_t *p) { return vld1q_s32(p); }
INLINE void vistore(int32_t *p, vi a) { vst1q_s32(p, a); }
INLINE vi viadd(vi a, vi b) { return vaddq_s32(a, b); }
INLINE vi visub(vi a, vi b) { return vsubq_s32(a, b); }
INLINE vi viand(vi a, vi b) { return vandq_s32(a, b); }
INLINE vi vior(vi a, vi b) { return vorrq_s32(a, b); }
INLINE vi vixor(vi a, vi b) { return veorq_s32(a, b); }
#define vishl(a, n) vshlq_n_s32(a, n)
#define vishr(a, n) vshrq_n_s32(a, n)
INLINE v vconvert(vi a) { return vcvtq_f32_s32(a); }
INLINE vi vicount(vi n, vm m) { return vsubq_s32(n, vreinterpretq_s32_u32(m)); }
INLINE v vgather(const float *p, vi at)
{
	float f[4] = {p[vgetq_lane_s32(at, 0)], p[vgetq_lane_s32(at, 1)], p[vgetq_lane_s32(at, 2)], p[vgetq_lane_s32(at, 3)]};
	return vld1q_f32(f);
}

#endif

// vlookup is table[at], size entries of which the first is at 64-byte alignment, size 8, 16, 32 or 64; at < size.
#if defined(LEVEL_AVX512)
INLINE v vlookup(const float *table, int size, vi at)
{
	if (size == 8)
		return _mm512_permutexvar_ps(at, _mm512_castps256_ps512(_mm256_loadu_ps(table)));
	if (size == 16)
		return _mm512_permutexvar_ps(at, _mm512_loadu_ps(table));
	v low = _mm512_permutex2var_ps(_mm512_loadu_ps(table), at, _mm512_loadu_ps(table + 16));
	if (size == 32)
		return low;
	v high = _mm512_permutex2var_ps(_mm512_loadu_ps(table + 32), at, _mm512_loadu_ps(table + 48));
	return _mm512_mask_blend_ps(_mm512_test_epi32_mask(at, _mm512_set1_epi32(32)), low, high);
}
#elif defined(LEVEL_AVX2)
INLINE v vlookup(const float *table, int size, vi at)
{
	v low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), at);
	if (size == 8)
		return low;
	if (size == 16) {
		v high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), at);
		return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(at, 28)));
	}
	return vgather(table, at);
}
#else
INLINE v vlookup(const float *table, int size, vi at)
{
	(void)size;
	return vgather(table, at);
}
#endif

// vcolumns takes four columns of LANES rows, row r at p + r·stride, into one vector a column; vrows puts them back.
#if defined(LEVEL_AVX512)
INLINE v vrows4_(const float *p, size_t stride)
{
	v z = _mm512_castps128_ps512(_mm_loadu_ps(p));
	z = _mm512_mask_broadcast_f32x4(z, 0x00f0, _mm_loadu_ps(p + 4 * stride));
	z = _mm512_mask_broadcast_f32x4(z, 0x0f00, _mm_loadu_ps(p + 8 * stride));
	return _mm512_mask_broadcast_f32x4(z, 0xf000, _mm_loadu_ps(p + 12 * stride));
}
INLINE void vtranspose_(v c[4])
{
	v t0 = _mm512_unpacklo_ps(c[0], c[1]), t1 = _mm512_unpackhi_ps(c[0], c[1]);
	v t2 = _mm512_unpacklo_ps(c[2], c[3]), t3 = _mm512_unpackhi_ps(c[2], c[3]);
	c[0] = _mm512_shuffle_ps(t0, t2, 0x44), c[1] = _mm512_shuffle_ps(t0, t2, 0xee);
	c[2] = _mm512_shuffle_ps(t1, t3, 0x44), c[3] = _mm512_shuffle_ps(t1, t3, 0xee);
}
INLINE void vcolumns(v c[4], const float *p, size_t stride)
{
	c[0] = vrows4_(p, stride), c[1] = vrows4_(p + stride, stride);
	c[2] = vrows4_(p + 2 * stride, stride), c[3] = vrows4_(p + 3 * stride, stride);
	vtranspose_(c);
}
INLINE void vrows(v c[4], float *p, size_t stride)
{
	vtranspose_(c);
	for (int i = 0; i < 4; i++) {
		_mm_storeu_ps(p + i * stride, _mm512_castps512_ps128(c[i]));
		_mm_storeu_ps(p + (4 + i) * stride, _mm512_extractf32x4_ps(c[i], 1));
		_mm_storeu_ps(p + (8 + i) * stride, _mm512_extractf32x4_ps(c[i], 2));
		_mm_storeu_ps(p + (12 + i) * stride, _mm512_extractf32x4_ps(c[i], 3));
	}
}
#elif defined(LEVEL_AVX2)
INLINE void vtranspose_(v c[4])
{
	v t0 = _mm256_unpacklo_ps(c[0], c[1]), t1 = _mm256_unpackhi_ps(c[0], c[1]);
	v t2 = _mm256_unpacklo_ps(c[2], c[3]), t3 = _mm256_unpackhi_ps(c[2], c[3]);
	c[0] = _mm256_shuffle_ps(t0, t2, 0x44), c[1] = _mm256_shuffle_ps(t0, t2, 0xee);
	c[2] = _mm256_shuffle_ps(t1, t3, 0x44), c[3] = _mm256_shuffle_ps(t1, t3, 0xee);
}
INLINE void vcolumns(v c[4], const float *p, size_t stride)
{
	for (int i = 0; i < 4; i++, p += stride)
		c[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + 4 * stride), 1);
	vtranspose_(c);
}
INLINE void vrows(v c[4], float *p, size_t stride)
{
	vtranspose_(c);
	for (int i = 0; i < 4; i++, p += stride) {
		_mm_storeu_ps(p, _mm256_castps256_ps128(c[i]));
		_mm_storeu_ps(p + 4 * stride, _mm256_extractf128_ps(c[i], 1));
	}
}
#else
INLINE void vtranspose_(v c[4])
{
	float32x4x2_t a = vtrnq_f32(c[0], c[1]), b = vtrnq_f32(c[2], c[3]);
	c[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
	c[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
	c[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
	c[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}
INLINE void vcolumns(v c[4], const float *p, size_t stride)
{
	for (int i = 0; i < 4; i++)
		c[i] = vload(p + i * stride);
	vtranspose_(c);
}
INLINE void vrows(v c[4], float *p, size_t stride)
{
	vtranspose_(c);
	for (int i = 0; i < 4; i++)
		vstore(p + i * stride, c[i]);
}
#endif

// vneg and vabs work on the sign bit: NaN keeps its payload.
INLINE v vneg(v a) { return vfloat(vixor(vbits(a), viset(INT32_MIN))); }
INLINE v vabs(v a) { return vfloat(viand(vbits(a), viset(INT32_MAX))); }
// vsigned gives |a| the sign of s.
INLINE v vsigned(v a, v s) { return vfloat(vior(viand(vbits(a), viset(INT32_MAX)), viand(vbits(s), viset(INT32_MIN)))); }

// vtanh(x) = 2t/(1 + t²) with t = tanh(x/2) = z·P(z²)/Q(z²), z = x/2: with n = z·P that is 2nQ/(Q² + n²), one
// division. Where tanh is near 1, errors of t hardly matter, and what is left is the rounding of the last few
// operations; the quotient alone would be off by 6 units there. P and Q are a fit of least maximum error of tanh over
// 0 to 8.5 (8.9e-9 before rounding), all coefficients positive. Beyond, tanh is 1 to within 1e-7. The last step keeps
// the rounding from passing 1: 1 − y² must not be negative.
//
// Both are scaled alike: a rounding costs least where the number is close below a power of two, and with this scale most
// of those on the way to results near ½, where the bound is narrowest, are. Found by trial over all float32: 5.0 units
// without it, 3.5 with it.
#define TANH_SCALE 1.8
INLINE v vtanh_parts_(v z, v *q)
{
	v u = vmul(z, z);
	v p = vfma(vset((float)(TANH_SCALE * 1.8190758665398445e-3)), u, vset((float)(TANH_SCALE * 1.189875380824133e-1)));
	*q = vfma(vset((float)(TANH_SCALE * 7.79401412665484e-5)), u, vset((float)(TANH_SCALE * 1.926009247016434e-2)));
	p = vfma(p, u, vset((float)TANH_SCALE));
	*q = vfma(*q, u, vset((float)(TANH_SCALE * 4.523206345200253e-1)));
	*q = vfma(*q, u, vset((float)TANH_SCALE));
	return vmul(z, p);
}
INLINE v vtanh(v x)
{
	v q, n = vtanh_parts_(vmul(vset(0.5f), vmax(vset(-9.0f), vmin(vset(9.0f), x))), &q);
	v y = vdiv(vmul(vadd(n, n), q), vfma(n, n, vmul(q, q)));
	return vmax(vset(-1.0f), vmin(vset(1.0f), y));
}

// vsigmoid of −|x| is ½ − ½·tanh(|x|/2) = (Q − n)²/2(Q² + n²), with tanh(|x|/4) = n/Q; of |x| it is what that lacks
// of 1. Subtracted after the division, what tanh is off by would stand in a result that is much smaller. 1e-7 absolute,
// not relative, for very negative x.
INLINE v vsigmoid(v x)
{
	v q, n = vtanh_parts_(vmul(vset(0.25f), vmin(vset(18.0f), vabs(x))), &q), a = vsub(q, n);
	v y = vdiv(vmul(vmul(vset(0.5f), a), a), vfma(n, n, vmul(q, q)));
	return vpick(vlt(x, vzero()), y, vsub(vset(1.0f), y));
}

// vleaky is x, and a hundredth of it below 0. The constant is kernels.LeakySlope.
INLINE v vleaky(v x) { return vpick(vlt(x, vzero()), vmul(vset(0.01f), x), x); }

// velu is x, and below 0 eˣ − 1 = 2t/(1 − t) with t = tanh(x/2): where x is near 0 nothing cancels.
INLINE v velu(v x)
{
	v t = vtanh(vmul(vset(0.5f), x));
	return vpick(vlt(x, vzero()), vdiv(vadd(t, t), vsub(vset(1.0f), t)), x);
}

// vexp(x) = 2ⁿ·exp(r), r = x − n·ln 2 within ±ln(2)/2. Results below 2^-126 are 0.
INLINE v vexp(v x)
{
	const float magic = 12582912.0f; // 1.5·2²³: adding it rounds to a whole number in the low bits
	vm over = vlt(vset(88.72284f), x), under = vlt(x, vset(-87.33655f));
	v n = vfma(x, vset(1.44269504f), vset(magic));
	vi e = vbits(n);
	n = vsub(n, vset(magic));
	v r = vfnma(n, vset(0.693145751953125f), x); // ln 2 in two parts
	r = vfnma(n, vset(1.42860677e-6f), r);
	v p = vset(1.98756912e-4f);
	p = vfma(p, r, vset(1.39819994e-3f));
	p = vfma(p, r, vset(8.33345205e-3f));
	p = vfma(p, r, vset(4.16657962e-2f));
	p = vfma(p, r, vset(1.66666657e-1f));
	p = vfma(p, r, vset(0.5f));
	p = vadd(vfma(p, vmul(r, r), r), vset(1.0f));
	// n reaches 128, which is no exponent of float32: half of it is applied first.
	vi bias = visub(e, viset(0x4b400000)), half = vishr(bias, 1);
	p = vmul(p, vfloat(vishl(viadd(half, viset(127)), 23)));
	p = vmul(p, vfloat(vishl(viadd(visub(bias, half), viset(127)), 23)));
	p = vpick(over, vset(__builtin_inff()), p);
	return vpick(under, vzero(), vpick(vnan(x), x, p));
}

// vgelu is x·g and its derivative, g = ½ + ½·tanh(u) = 1/(1 + e⁻²ᵘ), u = √(2/π)·x·(1 + 0.044715·x²): the second form
// keeps g's relative accuracy where it is small and |x| large. The constants are those of kernels.
INLINE v vgelu(v x, v *slope)
{
	v one = vset(1.0f), square = vmul(x, x);
	v u = vmul(vmul(vset(2 * 0.7978845608f), x), vfma(vset(0.044715f), square, one));
	vm open = vlt(vset(18.0f), u), shut = vlt(u, vset(-88.0f)); // where infinity times 0 would be NaN
	v g = vdiv(one, vadd(one, vexp(vneg(u))));
	v du = vmul(vset(2 * 0.7978845608f), vfma(vset(3 * 0.044715f), square, one));
	v d = vfma(vmul(vmul(g, vsub(one, g)), x), du, g);
	*slope = vpick(open, one, vpick(shut, vzero(), d));
	return vpick(open, x, vpick(shut, vzero(), vmul(x, g)));
}

// vlog is the natural logarithm of x >= 2^-126; NaN stays NaN.
INLINE v vlog(v x)
{
	vi bits = visub(vbits(x), viset(0x3f3504f3)); // √½: the fraction lies in [√½, √2)
	v n = vconvert(vishr(bits, 23));
	v m = vfloat(viadd(viand(bits, viset(0x7fffff)), viset(0x3f3504f3)));
	v f = vsub(m, vset(1.0f)), z = vmul(f, f);
	v p = vset(7.0376836292e-2f);
	p = vfma(p, f, vset(-1.1514610310e-1f));
	p = vfma(p, f, vset(1.1676998740e-1f));
	p = vfma(p, f, vset(-1.2420140846e-1f));
	p = vfma(p, f, vset(1.4249322787e-1f));
	p = vfma(p, f, vset(-1.6668057665e-1f));
	p = vfma(p, f, vset(2.0000714765e-1f));
	p = vfma(p, f, vset(-2.4999993993e-1f));
	p = vfma(p, f, vset(3.3333331174e-1f));
	v y = vmul(vmul(p, f), z);
	y = vfma(n, vset(-2.12194440e-4f), y);
	y = vfnma(vset(0.5f), z, y);
	y = vfma(n, vset(0.693359375f), vadd(f, y));
	return vpick(vlt(x, vset(__builtin_inff())), y, x); // infinite and NaN as they are
}
