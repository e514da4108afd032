// CUDA's execution model on a CPU: what kernels/cuda/*.cu use of the language, for g++. target.cuh includes it; schedule.cpp runs it.
//
// A CUDA thread is a fiber; it runs until a barrier, a shuffle or a spin, so a run can be repeated. Blocks of a cooperative
// launch all live at once. CUDA_FAKE=order=reverse or order=SEED changes the order in which the threads of a block run.
//   -fsanitize=address,undefined  finds accesses outside device and shared memory: each is a heap allocation of the exact size.
//   -fsanitize=thread             finds races between CUDA threads: to the sanitizer each fiber is a thread. Kernels are compiled
//                                 with it, the scheduler without, which then tells it what a barrier orders.
// Fresh shared memory is all ones, which is NaN. What is missing here (float atomics, inline assembly) kernels must not use.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

namespace cpu {

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    size_t count() const { return (size_t)x * y * z; }
};

// Where the running thread is. The scheduler sets it at each switch.
struct Position {
    dim3 thread, block, threads, blocks;
    unsigned lane = 0;  // in its warp
};
extern __thread const Position *position __attribute__((tls_model("initial-exec")));
extern const int fault;  // the mistake that kernels make, 0 for none: CUDA_FAULT when the library was loaded

struct Place {
    const char *file;
    int line;
};

int block_barrier(Place where, int vote);                         // returns the sum of the votes of all threads of the block
unsigned warp_barrier(unsigned mask, Place where, bool vote);     // returns the lanes that voted
uint64_t shuffle(unsigned mask, uint64_t v, unsigned from, Place where);
void spin();
void *shared(size_t bytes, const void *key);
void *dynamic_shared();

// A kernel by its name, called with the driver's array of pointers to arguments.
struct Kernel {
    const char *name;
    void (*call)(void **);
    size_t count;
    const size_t *sizes;
};
inline std::vector<Kernel> &kernels() {
    static std::vector<Kernel> all;
    return all;
}
template <auto F> struct Registration;
template <class... A, void (*F)(A...)> struct Registration<F> {
    static constexpr size_t sizes[] = {sizeof(A)..., 0};
    template <size_t... I> static void spread(void **p, std::index_sequence<I...>) { F(*static_cast<std::remove_reference_t<A> *>(p[I])...); }
    static void call(void **p) { spread(p, std::index_sequence_for<A...>{}); }
    explicit Registration(const char *name) { kernels().push_back({name, call, sizeof...(A), sizes}); }
};

struct Launch {
    const Kernel *kernel;
    dim3 blocks, threads;
    size_t dynamic = 0;  // bytes of shared memory a block
    bool cooperative = false;
    void **args = nullptr;
};
void run(const Launch &);  // returns when the last thread has ended

// memcpy between the host and a device. Only the device's side is shown to the thread sanitizer: it does not know what orders
// the accesses of Go, to which the host's side belongs.
void upload(void *device, const void *host, size_t n);
void download(void *host, const void *device, size_t n);

template <class T> T shuffled(unsigned mask, T v, unsigned from, Place where) {
    static_assert(sizeof(T) <= 8);
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof v);
    bits = shuffle(mask, bits, from, where);
    memcpy(&v, &bits, sizeof v);
    return v;
}
template <class To, class From> To bits(From v) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &v, sizeof to);
    return to;
}

}  // namespace cpu

#define KERNEL(name) static const cpu::Registration<name> lapwing_registration_##name(#name);
#define __global__
#define __device__
#define __host__
#define __restrict__ __restrict
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define SHARED(T, name, n)              \
    static const char lapwing_key_##name = 0; \
    T(&name)[n] = *static_cast<T(*)[n]>(cpu::shared(sizeof(T) * (n), &lapwing_key_##name))
#define DYNAMIC_SHARED(T, name) T *const name = static_cast<T *>(cpu::dynamic_shared())
#define KEEP_HERE() ((void)0)
#define threadIdx (cpu::position->thread)
#define blockIdx (cpu::position->block)
#define blockDim (cpu::position->threads)
#define gridDim (cpu::position->blocks)
constexpr int warpSize = 32;

// As default arguments these are the place of the call.
#define LAPWING_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define LAPWING_AT (cpu::Place{file, line})
static inline void __syncthreads(LAPWING_HERE) { cpu::block_barrier(LAPWING_AT, 0); }
static inline int __syncthreads_count(int v, LAPWING_HERE) { return cpu::block_barrier(LAPWING_AT, v != 0); }
static inline int __syncthreads_or(int v, LAPWING_HERE) { return cpu::block_barrier(LAPWING_AT, v != 0) != 0; }
static inline int __syncthreads_and(int v, LAPWING_HERE) { return cpu::block_barrier(LAPWING_AT, v == 0) == 0; }
static inline void __syncwarp(unsigned mask = ~0u, LAPWING_HERE) { cpu::warp_barrier(mask, LAPWING_AT, false); }
static inline unsigned __ballot_sync(unsigned mask, int v, LAPWING_HERE) { return cpu::warp_barrier(mask, LAPWING_AT, v != 0); }
static inline int __any_sync(unsigned mask, int v, LAPWING_HERE) { return cpu::warp_barrier(mask, LAPWING_AT, v != 0) != 0; }
static inline int __all_sync(unsigned mask, int v, LAPWING_HERE) { return cpu::warp_barrier(mask, LAPWING_AT, v == 0) == 0; }
template <class T> T __shfl_sync(unsigned mask, T v, unsigned lane, int = 32, LAPWING_HERE) { return cpu::shuffled(mask, v, lane & 31, LAPWING_AT); }
template <class T> T __shfl_xor_sync(unsigned mask, T v, unsigned d, int = 32, LAPWING_HERE) { return cpu::shuffled(mask, v, cpu::position->lane ^ d, LAPWING_AT); }
template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned d, int = 32, LAPWING_HERE) {
    return cpu::shuffled(mask, v, cpu::position->lane + d, LAPWING_AT);
}
template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned d, int = 32, LAPWING_HERE) {
    return cpu::shuffled(mask, v, cpu::position->lane < d ? cpu::position->lane : cpu::position->lane - d, LAPWING_AT);
}
static inline void prefetch(const void *) {}
static inline void __threadfence() {}
static inline void __threadfence_block() {}

// The same type for the value as for what is pointed to, as in CUDA, so that a literal of another type is converted.
template <class T> using lapwing_same = std::enable_if_t<std::is_integral_v<T>, T>;
template <class T> T atomicAdd(T *p, lapwing_same<T> v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
template <class T> T atomicExch(T *p, lapwing_same<T> v) { return __atomic_exchange_n(p, v, __ATOMIC_RELAXED); }
template <class T> T atomicOr(T *p, lapwing_same<T> v) { return __atomic_fetch_or(p, v, __ATOMIC_RELAXED); }
template <class T> T atomicAnd(T *p, lapwing_same<T> v) { return __atomic_fetch_and(p, v, __ATOMIC_RELAXED); }
template <class T> T atomicCAS(T *p, lapwing_same<T> expected, lapwing_same<T> v) {
    __atomic_compare_exchange_n(p, &expected, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}
template <class T> T atomicMax(T *p, lapwing_same<T> v) {
    T before = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (before < v && !__atomic_compare_exchange_n(p, &before, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return before;
}
template <class T> T atomicMin(T *p, lapwing_same<T> v) {
    T before = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (v < before && !__atomic_compare_exchange_n(p, &before, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return before;
}
static inline unsigned add_acq_rel(unsigned *p, unsigned v) { return __atomic_fetch_add(p, v, __ATOMIC_ACQ_REL); }
static inline unsigned load_acquire(const unsigned *p) {
    cpu::spin();
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}
static inline void store_release(unsigned *p, unsigned v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }

template <class T> T __ldg(const T *p) { return *p; }
template <class T> T __ldcg(const T *p) { return *p; }
template <class T> T __ldcs(const T *p) { return *p; }
template <class T> void __stcg(T *p, T v) { *p = v; }
template <class T> void __stcs(T *p, T v) { *p = v; }

// Arithmetic that rounds once and is never contracted: compile with -ffp-contract=off.
static inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
static inline float __frcp_rn(float a) { return 1.f / a; }
static inline int __float_as_int(float v) { return cpu::bits<int>(v); }
static inline unsigned __float_as_uint(float v) { return cpu::bits<unsigned>(v); }
static inline float __int_as_float(int v) { return cpu::bits<float>(v); }
static inline float __uint_as_float(unsigned v) { return cpu::bits<float>(v); }
// Conversions saturate, and NaN becomes zero, as on a device; in C++ both are undefined.
static inline int __float2int_rn(float v) {
    if (!(v == v)) return 0;
    float r = __builtin_rintf(v);
    return r >= 2147483648.f ? INT32_MAX : r < -2147483648.f ? INT32_MIN : (int)r;
}
static inline int __float2int_rz(float v) {
    if (!(v == v)) return 0;
    return v >= 2147483648.f ? INT32_MAX : v < -2147483648.f ? INT32_MIN : (int)v;
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline uint64_t __umul64hi(uint64_t a, uint64_t b) { return (uint64_t)((unsigned __int128)a * b >> 64); }
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
static inline int __ffs(int v) { return __builtin_ffs(v); }

#define LAPWING_MINMAX(T)                                      \
    static inline T min(T a, T b) { return b < a ? b : a; }    \
    static inline T max(T a, T b) { return a < b ? b : a; }
LAPWING_MINMAX(int)
LAPWING_MINMAX(unsigned)
LAPWING_MINMAX(long)
LAPWING_MINMAX(unsigned long)
LAPWING_MINMAX(long long)
LAPWING_MINMAX(unsigned long long)
#undef LAPWING_MINMAX
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
using std::isinf;
using std::isnan;

#define LAPWING_VECTOR(T, name)                                                                        \
    struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                                 \
    struct alignas(4 * sizeof(T)) name##4 { T x, y, z, w; };                                           \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                  \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
LAPWING_VECTOR(float, float)
LAPWING_VECTOR(int, int)
LAPWING_VECTOR(unsigned, uint)
#undef LAPWING_VECTOR
typedef cpu::dim3 dim3;
