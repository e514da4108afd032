// What every kernel begins with: CUDA's words where there is no CUDA, and the functions of one variable.
//
// The functions are those of kernels/cpu/vec.h, operation by operation, so that a row has the same bits on every GPU and
// on every processor with vector instructions. Every operation is correctly rounded by IEEE 754; products and sums are
// fused where fmaf stands and nowhere else (--fmad=false, -ffp-contract=off), and no .approx instruction is used.
#ifndef LAPWING_MATH_CUH
#define LAPWING_MATH_CUH

#include "target.cuh"

#define INLINE static __device__ __forceinline__

INLINE int bits_of(float x)
{
	int b;
	memcpy(&b, &x, sizeof b);
	return b;
}
INLINE float float_of(int b)
{
	float x;
	memcpy(&x, &b, sizeof x);
	return x;
}

// at_most and at_least give x where x is NaN, as no instruction of the GPU does.
INLINE float at_most(float limit, float x) { return limit < x ? limit : x; }
INLINE float at_least(float limit, float x) { return limit > x ? limit : x; }
INLINE float magnitude(float x) { return float_of(bits_of(x) & 0x7fffffff); }
// with_sign gives a magnitude the sign of s.
INLINE float with_sign(float a, float s) { return float_of((bits_of(a) & 0x7fffffff) | (bits_of(s) & (int)0x80000000)); }

// tanh(z) = n/q. The fit, its scale and its bounds are explained in vec.h.
#define TANH_SCALE 1.8
INLINE float tanh_parts(float z, float *q)
{
	float u = z * z;
	float p = fmaf((float)(TANH_SCALE * 1.8190758665398445e-3), u, (float)(TANH_SCALE * 1.189875380824133e-1));
	float d = fmaf((float)(TANH_SCALE * 7.79401412665484e-5), u, (float)(TANH_SCALE * 1.926009247016434e-2));
	p = fmaf(p, u, (float)TANH_SCALE);
	d = fmaf(d, u, (float)(TANH_SCALE * 4.523206345200253e-1));
	*q = fmaf(d, u, (float)TANH_SCALE);
	return z * p;
}

INLINE float tanh_of(float x)
{
	float q, n = tanh_parts(0.5f * at_least(-9.0f, at_most(9.0f, x)), &q);
	float y = ((n + n) * q) / fmaf(n, n, q * q);
	return at_least(-1.0f, at_most(1.0f, y));
}

// Four values beside each other: read and written by one instruction each.
struct __attribute__((aligned(16))) quad {
	float a, b, c, d;
};
INLINE quad quad_at(const float *p) { return *(const quad *)p; }

// tanh_four has tanh_of's bits without its division, whose slow path is a call and keeps what stands around it apart: four
// chains are then under way at once. The reciprocal of q² + n² begins as a number of the negative exponent, off by 6 % at
// most, which one step makes 0.2 % and one of third order 2⁻²⁷; the quotient is then corrected once. That this gives the
// quotient as IEEE rounds it holds for every float32 from 2⁻⁹⁰ on, by trial of all; below, what is left of a product could
// be too small a number. At 9 and beyond the quotient is 1, and nowhere more.
#define TANH_LEAST 8.077936e-28f // 2⁻⁹⁰
INLINE float tanh_fast(float x)
{
	// tanh_parts of x/2, whose halves and quarters are in its constants: exact.
	float z = at_most(9.0f, fabsf(x)), u = z * z;
	float p = fmaf((float)(TANH_SCALE * 1.8190758665398445e-3) / 32, u, (float)(TANH_SCALE * 1.189875380824133e-1) / 8);
	float q = fmaf((float)(TANH_SCALE * 7.79401412665484e-5) / 64, u, (float)(TANH_SCALE * 1.926009247016434e-2) / 16);
	p = fmaf(p, u, (float)TANH_SCALE / 2);
	q = fmaf(q, u, (float)(TANH_SCALE * 4.523206345200253e-1) / 4);
	q = fmaf(q, u, (float)TANH_SCALE);
	float n = z * p;
	float over = (n + n) * q, under = fmaf(n, n, q * q);
	float r = float_of((int)(0x7ef311c7u - (unsigned)bits_of(under)));
	r = r * fmaf(-under, r, 2.001f);
	float e = fmaf(-under, r, 1.0f);
	r = fmaf(fmaf(e, e, e), r, r);
	float y = over * r;
	y = fmaf(fmaf(-under, y, over), r, y);
	return float_of(bits_of(y) | (bits_of(x) & (int)0x80000000));
}
INLINE quad tanh_four(quad x)
{
	if (fminf(fminf(fabsf(x.a), fabsf(x.b)), fminf(fabsf(x.c), fabsf(x.d))) < (FAULT == 108 ? 0.0f : TANH_LEAST))
		return quad{tanh_of(x.a), tanh_of(x.b), tanh_of(x.c), tanh_of(x.d)};
	return quad{tanh_fast(x.a), tanh_fast(x.b), tanh_fast(x.c), tanh_fast(x.d)};
}

INLINE float sigmoid_of(float x)
{
	float q, n = tanh_parts(0.25f * at_most(18.0f, magnitude(x)), &q), a = q - n;
	float y = ((0.5f * a) * a) / fmaf(n, n, q * q);
	return x < 0.0f ? y : 1.0f - y;
}

INLINE float leaky_of(float x) { return x < 0.0f ? 0.01f * x : x; }

INLINE float elu_of(float x)
{
	float t = tanh_of(0.5f * x);
	return x < 0.0f ? (t + t) / (1.0f - t) : x;
}

// exp_of gives 0 below 2^-126.
INLINE float exp_of(float x)
{
	const float magic = 12582912.0f; // 1.5·2²³: adding it rounds to a whole number in the low bits
	float n = fmaf(x, 1.44269504f, magic);
	int exponent = (int)((unsigned)bits_of(n) - 0x4b400000u);
	n = n - magic;
	float r = fmaf(-n, 0.693145751953125f, x); // ln 2 in two parts
	r = fmaf(-n, 1.42860677e-6f, r);
	float p = 1.98756912e-4f;
	p = fmaf(p, r, 1.39819994e-3f);
	p = fmaf(p, r, 8.33345205e-3f);
	p = fmaf(p, r, 4.16657962e-2f);
	p = fmaf(p, r, 1.66666657e-1f);
	p = fmaf(p, r, 0.5f);
	p = fmaf(p, r * r, r) + 1.0f;
	// n reaches 128, which is no exponent of float32: half of it is applied first.
	int half = exponent >> 1;
	p = p * float_of((int)((unsigned)(half + 127) << 23));
	p = p * float_of((int)((unsigned)(exponent - half + 127) << 23));
	if (88.72284f < x)
		p = float_of(0x7f800000);
	if (x != x)
		p = x;
	return x < -87.33655f ? 0.0f : p;
}

// gelu_of leaves the derivative in slope.
INLINE float gelu_of(float x, float *slope)
{
	float square = x * x;
	float u = ((float)(2 * 0.7978845608f) * x) * fmaf(0.044715f, square, 1.0f);
	bool open = 18.0f < u, shut = u < -88.0f; // where infinity times 0 would be NaN
	float g = 1.0f / (1.0f + exp_of(-u));
	float du = (float)(2 * 0.7978845608f) * fmaf(3 * 0.044715f, square, 1.0f);
	float d = fmaf((g * (1.0f - g)) * x, du, g);
	*slope = open ? 1.0f : shut ? 0.0f : d;
	return open ? x : shut ? 0.0f : x * g;
}

// log_of is the natural logarithm of x >= 2^-126; NaN stays NaN.
INLINE float log_of(float x)
{
	int b = (int)((unsigned)bits_of(x) - 0x3f3504f3u); // √½: the fraction lies in [√½, √2)
	float n = (float)(b >> 23);
	float m = float_of((b & 0x7fffff) + 0x3f3504f3);
	float f = m - 1.0f, z = f * f;
	float p = 7.0376836292e-2f;
	p = fmaf(p, f, -1.1514610310e-1f);
	p = fmaf(p, f, 1.1676998740e-1f);
	p = fmaf(p, f, -1.2420140846e-1f);
	p = fmaf(p, f, 1.4249322787e-1f);
	p = fmaf(p, f, -1.6668057665e-1f);
	p = fmaf(p, f, 2.0000714765e-1f);
	p = fmaf(p, f, -2.4999993993e-1f);
	p = fmaf(p, f, 3.3333331174e-1f);
	float y = (p * f) * z;
	y = fmaf(n, -2.12194440e-4f, y);
	y = fmaf(-0.5f, z, y);
	y = fmaf(n, 0.693359375f, f + y);
	return x < float_of(0x7f800000) ? y : x; // infinite and NaN as they are
}

// As kernels.Activation counts them.
enum { ACT_LINEAR, ACT_RELU, ACT_TANH, ACT_SIGMOID, ACT_LEAKY_RELU, ACT_ELU, ACT_GELU };

INLINE float activated(int act, float x)
{
	float slope;
	switch (act) {
	case ACT_RELU:
		return at_least(0.0f, x);
	case ACT_TANH:
		return tanh_of(x);
	case ACT_SIGMOID:
		return sigmoid_of(x);
	case ACT_LEAKY_RELU:
		return leaky_of(x);
	case ACT_ELU:
		return elu_of(x);
	case ACT_GELU:
		return gelu_of(x, &slope);
	}
	return x;
}

#endif
