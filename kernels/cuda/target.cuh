// What a kernel is written against: CUDA, or with LAPWING_CPU the emulator, which compiles the very same source for a CPU.
// Each .cu includes this and nothing of the system, says KERNEL(name) for each kernel, and takes shared memory by SHARED and
// DYNAMIC_SHARED. What only exists under CUDA (inline assembly, __shared__, volatile spins) stays in this file.
#pragma once

// FAULT puts a known mistake into the kernels: `if (FAULT != 101) __syncthreads();`. It is no constant in the emulator, where one
// build has all of them and CUDA_FAULT chooses; the suite must find each (emulator/faults). A device knows none.
#ifdef LAPWING_CPU
#include "emulator/cuda_cpu.h"
#define PREFETCH(p) ((void)(p))
#define FAULT (cpu::fault)
#else
#define FAULT 0

typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;

#define KERNEL(name)
#define SHARED(T, name, n) __shared__ T name[n]
#define DYNAMIC_SHARED(T, name)                                     \
    extern __shared__ __align__(16) unsigned char dynamic_shared[]; \
    T *const name = reinterpret_cast<T *>(dynamic_shared)

// Keeps loads behind this line where they are. The compiler otherwise hoists weight loads, which do not change from row to
// row, out of the row loop, and spills them: 255 registers and kilobytes of local memory in place of 100 and none.
#define KEEP_HERE() asm volatile("" ::: "memory")

// Asks for a line of device memory that will be read soon.
#define PREFETCH(p) asm volatile("prefetch.global.L2 [%0];" ::"l"(p))

// Words through which blocks wait for each other. Their order is part of the operation, so it needs no __threadfence, which
// the thread sanitizer cannot see.
static __device__ __forceinline__ unsigned add_acq_rel(unsigned *p, unsigned v) {
    unsigned before;
    asm volatile("atom.add.acq_rel.gpu.u32 %0, [%1], %2;" : "=r"(before) : "l"(p), "r"(v) : "memory");
    return before;
}
static __device__ __forceinline__ unsigned load_acquire(const unsigned *p) {
    unsigned v;
    asm volatile("ld.acquire.gpu.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}
static __device__ __forceinline__ void store_release(unsigned *p, unsigned v) {
    asm volatile("st.release.gpu.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}
// A line of device memory that will be read: on its way to the second-level cache.
static __device__ __forceinline__ void prefetch(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }
#endif

// A barrier of all blocks of a cooperative launch, on a word that only grows and starts at zero; target is gridDim.x times the
// barriers passed, this one included, and may wrap around. Every thread calls it. What was written before it by any thread is
// seen after it by all; data that was read before must be loaded again, which __ldcg does past the first-level cache.
static __device__ __forceinline__ void grid_barrier(unsigned *count, unsigned target) {
    __syncthreads();
    if (threadIdx.x == 0) {
        add_acq_rel(count, 1u);
        while ((int)(load_acquire(count) - target) < 0) {
        }
    }
    __syncthreads();
}
