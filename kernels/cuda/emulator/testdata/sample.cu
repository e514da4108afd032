// Kernels that use what the emulator offers, with one mistake of each kind that it must find: FAULT 1 to 9.
#include "target.cuh"

constexpr int width = 64;

static __device__ __forceinline__ float warp_sum(float v) {
    for (int d = 16; d > 0; d >>= 1) v += __shfl_xor_sync(~0u, v, d);
    return v;
}

// out[block] is the sum of the block's slice, by warps, then over the warps.
extern "C" __global__ void __launch_bounds__(width) sample_sum(const float *__restrict__ x, float *__restrict__ out, int n) {
    SHARED(float, part, width / 32);
    SHARED(float, copy, width);
    DYNAMIC_SHARED(float, scratch);
    const int t = threadIdx.x, i = blockIdx.x * width + t;
    float v = i < n + (FAULT == 3) ? x[i] : 0.f;  // 3: past the end of device memory
    scratch[t + (FAULT == 4)] = v;                 // 4: past the end of dynamic shared memory
    copy[FAULT == 2 ? t + 1 : t] = v;              // 2: past the end of shared memory
    v = warp_sum(v);
    if ((t & 31) == 0) part[t >> 5] = v;
    __syncwarp();
    // 1: none comes, the results stay right here, and not on a device. 5: not all come.
    if (FAULT == 5 ? t < 40 : FAULT != 1) __syncthreads();
    __syncwarp();
    if (t == 0) {
        float sum = 0.f;
        for (int w = 0; w < width / 32; w++) sum += part[w];
        out[blockIdx.x] = sum + scratch[width - 1] - copy[width - 1];
    }
}

// Each round every block adds its share into its own slot, and after the barrier all blocks sum all slots in the same order.
// Three sets of slots in turn, so that one barrier a round is enough.
extern "C" __global__ void __launch_bounds__(width) sample_rounds(float *__restrict__ slots, unsigned *__restrict__ count, float *__restrict__ out, int rounds) {
    SHARED(float, state, 1);
    const int t = threadIdx.x, blocks = gridDim.x;
    if (t == 0) state[0] = 1.f;
    __syncthreads();
    for (int r = 0; r < rounds; r++) {
        float *set = slots + r % (FAULT == 6 ? 1 : 3) * blocks;  // 6: a slot is written while another block may still read it
        float mine = warp_sum(t < 32 ? state[0] * (blockIdx.x + 1) / 32.f : 0.f);
        if (t == 0) set[FAULT == 8 ? 0 : blockIdx.x] = mine;  // 8: the wrong slot
        if (FAULT == 7 && blockIdx.x == 0 && r == rounds - 1) break;  // 7: a block that the others wait for has left
        if (FAULT == 9) {
            if (t == 0) {  // 9: the word is right, what it should publish has no order
                atomicAdd(count, 1u);
                while ((int)(load_acquire(count) - (r + 1) * gridDim.x) < 0) {
                }
            }
            __syncthreads();
        } else {
            grid_barrier(count, (r + 1) * gridDim.x);
        }
        if (t == 0) {
            float sum = 0.f;
            for (int b = 0; b < blocks; b++) sum += __ldcg(set + b);
            state[0] = sum / blocks;
        }
        __syncthreads();
    }
    if (t == 0) out[blockIdx.x] = state[0];
}

// Votes, shuffles in each direction, and integer atomics.
extern "C" __global__ void sample_lanes(unsigned *__restrict__ out, unsigned *__restrict__ total) {
    const unsigned t = threadIdx.x, lane = t & 31;
    unsigned r = 0;
    r += __ballot_sync(~0u, lane % 3 == 0) == 0x49249249u;
    r += (unsigned)(__any_sync(~0u, lane == 5) && !__any_sync(~0u, 0) && __all_sync(~0u, 1) && !__all_sync(~0u, lane != 5)) << 1;
    r += (unsigned)(__shfl_down_sync(~0u, t, 1) == (lane == 31 ? t : t + 1)) << 2;
    r += (unsigned)(__shfl_up_sync(~0u, t, 1) == (lane == 0 ? t : t - 1)) << 3;
    r += (unsigned)(__shfl_sync(~0u, t, 7) == (t & ~31u) + 7) << 4;
    r += (unsigned)(__syncthreads_count(t % 2 == 0) == (int)blockDim.x / 2) << 5;
    r += (unsigned)(__syncthreads_or(t == 3) && !__syncthreads_or(0) && __syncthreads_and(1) && !__syncthreads_and(t != 3)) << 6;
    atomicAdd(total, t);
    atomicMax(total + 1, t);
    out[t] = r;
}

KERNEL(sample_sum)
KERNEL(sample_rounds)
KERNEL(sample_lanes)
