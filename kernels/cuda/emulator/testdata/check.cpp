// Runs the kernels of sample.cu and compares them with what they must give. Exit status 1: a wrong result.
#include <cstdio>
#include <memory>

#include "emulator/cuda_cpu.h"

static const cpu::Kernel *kernel(const char *name) {
    for (const cpu::Kernel &k : cpu::kernels())
        if (!strcmp(k.name, name)) return &k;
    fprintf(stderr, "no kernel %s\n", name);
    exit(2);
}

static int wrong = 0;
template <class T> static void expect(const char *what, size_t i, T have, T want) {
    if (have == want) return;
    wrong++;
    fprintf(stderr, "%s %zu: have %g, want %g\n", what, i, (double)have, (double)want);
}

int main() {
    const unsigned width = 64, blocks = 5;
    int n = width * blocks - 10;
    {
        std::unique_ptr<float[]> x(new float[n]), out(new float[blocks]());
        for (int i = 0; i < n; i++) x[i] = (float)(i % 17);
        float *px = x.get(), *pout = out.get();
        void *args[] = {&px, &pout, &n};
        cpu::run({kernel("sample_sum"), {blocks}, {width}, width * sizeof(float), false, args});
        for (unsigned b = 0; b < blocks; b++) {
            float want = 0;
            for (unsigned i = b * width; i < (b + 1) * width && i < (unsigned)n; i++) want += x[i];
            expect("sum of block", b, out[b], want);
        }
    }
    {
        int rounds = 40;
        std::unique_ptr<float[]> slots(new float[3 * blocks]()), out(new float[blocks]());
        std::unique_ptr<unsigned[]> count(new unsigned[1]());
        float *pslots = slots.get(), *pout = out.get();
        unsigned *pcount = count.get();
        void *args[] = {&pslots, &pcount, &pout, &rounds};
        cpu::run({kernel("sample_rounds"), {blocks}, {width}, 0, true, args});
        float want = 1;
        for (int r = 0; r < rounds; r++) {
            float sum = 0;
            for (unsigned b = 0; b < blocks; b++) {
                float mine = 0;
                for (int lane = 0; lane < 32; lane++) mine += want * (b + 1) / 32.f;
                sum += mine;
            }
            want = sum / blocks;
        }
        for (unsigned b = 0; b < blocks; b++) expect("state of block", b, out[b] > want * 0.9999f && out[b] < want * 1.0001f, true);
    }
    {
        std::unique_ptr<unsigned[]> out(new unsigned[96]()), total(new unsigned[2]());
        unsigned *pout = out.get(), *ptotal = total.get();
        void *args[] = {&pout, &ptotal};
        cpu::run({kernel("sample_lanes"), {1}, {96}, 0, false, args});
        for (unsigned t = 0; t < 96; t++) expect("lanes of thread", t, out[t], 127u);
        expect("total", 0, total[0], 96u * 95 / 2);
        expect("largest", 0, total[1], 95u);
    }
    return wrong ? 1 : 0;
}
