// The scheduler behind cuda_cpu.h: blocks on OS threads, their CUDA threads as fibers.
//
// A worker owns its blocks from start to end and gives each in turn one pass, in which every thread that can go on does, until its
// next barrier or spin. Blocks of a cooperative launch are dealt out beforehand, so that all live at once, however many there are.
#include "cuda_cpu.h"
#include "settings.h"

#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(LAPWING_TSAN)  // and not __SANITIZE_THREAD__: this file is compiled without the sanitizer that it talks to
extern "C" {
void *__tsan_get_current_fiber();
void *__tsan_create_fiber(unsigned);
void __tsan_destroy_fiber(void *);
void __tsan_switch_to_fiber(void *, unsigned);
void __tsan_acquire(void *);
void __tsan_release(void *);
void __tsan_read_range(void *, unsigned long);
void __tsan_write_range(void *, unsigned long);
}
#endif

// Stores the callee-saved registers on the stack, the stack pointer in *from, and goes on where `to` was left.
extern "C" void lapwing_switch(void **from, void *to);
#if defined(__x86_64__)
__asm__(R"(
.text
.hidden lapwing_switch
.globl lapwing_switch
.type lapwing_switch, @function
lapwing_switch:
  push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
  ret
.size lapwing_switch, .-lapwing_switch
)");
#else
#error "the emulator switches stacks on amd64 only: build there, or run make test-gpu on a machine with a GPU"
#endif

namespace cpu {

__thread const Position *position __attribute__((tls_model("initial-exec"))) = nullptr;
// Not of CUDA_FAKE, which tests change while they run.
const int fault = getenv("CUDA_FAULT") ? atoi(getenv("CUDA_FAULT")) : 0;

namespace {

constexpr size_t stack_bytes = 256 << 10;  // mapped when touched

struct Warp {
    uint64_t value[32];
    unsigned arrived = 0, generation = 0, live = 0, votes[2] = {0, 0};
    Place where{};
};

struct Fiber {
    Position at;
    Warp *warp = nullptr;
    unsigned linear = 0;
    void *sp = nullptr, *stack = nullptr, *fake = nullptr, *sanitizer = nullptr;
    bool done = false;
    const unsigned *waits_on = nullptr;  // not runnable while this is waits_for
    unsigned waits_for = 0;
    Place where{};
};

struct Block {
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::vector<unsigned> turns;
    unsigned arrived = 0, generation = 0, live = 0;
    int votes[2] = {0, 0};
    Place where{};
    bool progress = false, spinning = false;
    std::unique_ptr<char[]> dynamic;
    std::vector<std::pair<const void *, std::unique_ptr<char[]>>> statics;
    char *stacks = nullptr;
    uint32_t seed = 0;
    char begun = 0;  // what the sanitizer knows the start of the block's threads by
};

// The threads that the sanitizer knows, of one worker. To make one costs more than what it does, so they serve block after block,
// and launch after launch of the stream that they belong to: those are in order anyway.
struct Known {
    std::vector<void *> idle;
    ~Known() {
#if defined(LAPWING_TSAN)
        for (void *f : idle) __tsan_destroy_fiber(f);
#endif
    }
    void *take() {
#if defined(LAPWING_TSAN)
        if (idle.empty()) return __tsan_create_fiber(0);
        void *f = idle.back();
        idle.pop_back();
        return f;
#else
        return nullptr;
#endif
    }
    void give(void *f) {
        if (f) idle.push_back(f);
    }
};

// What the OS thread is doing.
struct Worker {
    const Launch *launch = nullptr;
    Block *block = nullptr;
    Fiber *fiber = nullptr;
    Known *known = nullptr;
    void *sp = nullptr, *fake = nullptr, *sanitizer = nullptr;
    const void *stack = nullptr;
    size_t stack_size = 0;
};
thread_local Worker here;

void acquire(void *p) {
#if defined(LAPWING_TSAN)
    __tsan_acquire(p);
#endif
    (void)p;
}
void release(void *p) {
#if defined(LAPWING_TSAN)
    __tsan_release(p);
#endif
    (void)p;
}

[[noreturn]] void fail(const char *what) {
    const dim3 &b = here.fiber->at.block;
    fprintf(stderr, "emulator: %s: kernel %s, block (%u,%u,%u)\n", what, here.launch->kernel->name, b.x, b.y, b.z);
    const char *file = nullptr;
    int line = 0;
    for (Fiber &f : here.block->fibers) {
        if (f.done || (f.where.file == file && f.where.line == line)) continue;  // one line for neighbours that wait together
        file = f.where.file;
        line = f.where.line;
        fprintf(stderr, "  thread %u and on: %s:%d\n", f.linear, file ? file : "not yet at a barrier", line);
    }
    abort();
}

// Gives the OS thread back to the worker. `last` tells the address sanitizer that this stack is done with.
void leave(bool last = false) {
    Fiber *f = here.fiber;
#if defined(LAPWING_TSAN)
    __tsan_switch_to_fiber(here.sanitizer, 1);  // 1: a switch orders nothing
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(last ? nullptr : &f->fake, here.stack, here.stack_size);
#endif
    lapwing_switch(&f->sp, here.sp);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(f->fake, &here.stack, &here.stack_size);
#endif
    (void)last;
}

void enter(Fiber &f) {
    here.fiber = &f;
    position = &f.at;
#if defined(LAPWING_TSAN)
    __tsan_switch_to_fiber(f.sanitizer, 1);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&here.fake, f.stack, stack_bytes);
#endif
    lapwing_switch(&here.sp, f.sp);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(here.fake, nullptr, nullptr);
#endif
}

void open_barrier(Block &b) {
    b.arrived = 0;
    b.generation++;
    b.votes[b.generation & 1] = 0;  // the other one holds the result until all have read it
}
void open_barrier(Warp &w) {
    w.arrived = 0;
    w.generation++;
    w.votes[w.generation & 1] = 0;
}

void body() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &here.stack, &here.stack_size);
#endif
    Block &b = *here.block;
    acquire(&b.begun);
    here.launch->kernel->call(here.launch->args);
    Fiber &f = *here.fiber;
    release(&b);  // what the thread wrote is seen by whoever waits for the launch
    f.done = b.progress = true;
    // A barrier waits for the threads that have not ended.
    if (--b.live > 0 && b.arrived == b.live) open_barrier(b);
    if (--f.warp->live > 0 && f.warp->arrived == f.warp->live) open_barrier(*f.warp);
    leave(true);
    abort();
}

void wait(const unsigned &generation, unsigned value) {
    Fiber &f = *here.fiber;
    f.waits_on = &generation;
    f.waits_for = value;
    leave();
    f.waits_on = nullptr;
}

// Written word by word: the thread sanitizer intercepts memset and would take it for an access of this thread.
std::unique_ptr<char[]> fresh(size_t bytes) {
    std::unique_ptr<char[]> p(new char[std::max<size_t>(bytes, 1)]);
    for (size_t i = 0; i < bytes; i++) {
        p[i] = (char)0xff;
        __asm__ volatile("" ::: "memory");
    }
    return p;
}

// Stacks are kept: mapping them anew costs a fault a thread.
struct Stacks {
    std::mutex mutex;
    std::vector<std::pair<char *, size_t>> idle;
    void give(char *p, size_t n) {
        std::lock_guard lock(mutex);
        idle.push_back({p, n});
    }
    char *take(size_t n) {
        std::lock_guard lock(mutex);
        for (auto i = idle.begin(); i != idle.end(); ++i) {
            if (i->second != n) continue;
            char *p = i->first;
            idle.erase(i);
            return p;
        }
        void *p = mmap(nullptr, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) {
            perror("emulator: stacks");
            abort();
        }
        return (char *)p;
    }
};
Stacks stacks;

void start(Block &b, const Launch &l, unsigned index, uint32_t seed) {
    const unsigned n = l.threads.count();
    b.live = n;
    b.seed = seed;
    b.fibers.resize(n);
    b.warps.resize((n + 31) / 32);
    b.turns.resize(n);
    b.dynamic = fresh(l.dynamic);
    b.stacks = stacks.take(n * stack_bytes);
    for (unsigned i = 0; i < n; i++) {
        Fiber &f = b.fibers[i];
        b.turns[i] = i;
        f.linear = i;
        f.warp = &b.warps[i / 32];
        f.warp->live++;
        f.at.thread = {i % l.threads.x, i / l.threads.x % l.threads.y, i / (l.threads.x * l.threads.y)};
        f.at.block = {index % l.blocks.x, index / l.blocks.x % l.blocks.y, index / (l.blocks.x * l.blocks.y)};
        f.at.threads = l.threads;
        f.at.blocks = l.blocks;
        f.at.lane = i % 32;
        f.stack = b.stacks + i * stack_bytes;
        void **sp = (void **)((char *)f.stack + stack_bytes);
        *--sp = nullptr;  // so that body() finds the stack aligned as after a call
        *--sp = (void *)body;
        for (int r = 0; r < 6; r++) *--sp = nullptr;
        f.sp = sp;
        f.sanitizer = here.known->take();
    }
    release(&b.begun);
}

void finish(Block &b) {
    acquire(&b);
    for (Fiber &f : b.fibers) here.known->give(f.sanitizer);
    stacks.give(b.stacks, b.fibers.size() * stack_bytes);
}

// Lets each thread of the block that can go on do so, once. order: 0 forward, -1 reverse, else shuffled.
void pass(Block &b, int order) {
    here.block = &b;
    b.progress = b.spinning = false;
    const unsigned n = b.fibers.size();
    if (order > 0) {
        for (unsigned i = n - 1; i > 0; i--) {
            b.seed = b.seed * 1664525u + 1013904223u;
            std::swap(b.turns[i], b.turns[(b.seed >> 8) % (i + 1)]);
        }
    }
    for (unsigned k = 0; k < n; k++) {
        Fiber &f = b.fibers[b.turns[order < 0 ? n - 1 - k : k]];
        if (f.done || (f.waits_on && *f.waits_on == f.waits_for)) continue;
        enter(f);
    }
    if (b.live && !b.progress && !b.spinning) {
        for (Fiber &f : b.fibers) {
            if (!f.done) here.fiber = &f;
        }
        fail("deadlock, threads of a block wait at barriers that the others never reach");
    }
}

using Clock = std::chrono::steady_clock;

// Shared by the workers of a launch.
struct Run {
    const Launch &launch;
    unsigned blocks, workers;
    int order;
    std::chrono::seconds patience;
    Known *known;  // one a worker
    std::atomic<unsigned> next{0};
    std::atomic<Clock::rep> beat{0};  // when some thread last passed a barrier or ended
};

void work(Run &r, unsigned worker) {
    here = Worker{};
    here.launch = &r.launch;
    here.known = r.known + worker;
#if defined(LAPWING_TSAN)
    here.sanitizer = __tsan_get_current_fiber();
#endif
    auto seed = [&](unsigned i) { return (uint32_t)r.order * 2654435761u + i; };
    if (!r.launch.cooperative) {
        for (unsigned i; (i = r.next++) < r.blocks;) {
            Block b;
            start(b, r.launch, i, seed(i));
            unsigned idle = 0;
            while (b.live) {
                pass(b, r.order);
                // Blocks of an ordinary launch may run one after the other: one that waits for another hangs on a device, now and then.
                if (!b.progress && ++idle > 100000) fail("a block waits for another one, in a launch that is not cooperative");
                if (b.progress) idle = 0;
            }
            finish(b);
        }
        position = nullptr;
        return;
    }
    std::vector<std::unique_ptr<Block>> mine;
    for (unsigned i = worker; i < r.blocks; i += r.workers) {
        mine.push_back(std::make_unique<Block>());
        start(*mine.back(), r.launch, i, seed(i));
    }
    for (size_t left = mine.size(), idle = 0; left > 0;) {
        bool progress = false;
        left = 0;
        for (auto &b : mine) {
            if (!b->live) continue;
            pass(*b, r.order);
            progress |= b->progress;
            left += b->live > 0;
        }
        if (progress) {
            idle = 0;
            r.beat.store(Clock::now().time_since_epoch().count(), std::memory_order_relaxed);
        } else if (left && ++idle % 64 == 0) {
            sched_yield();
            if (Clock::now().time_since_epoch() - Clock::duration(r.beat.load(std::memory_order_relaxed)) > r.patience)
                fail("blocks wait for each other and none goes on");
        }
    }
    for (auto &b : mine) finish(*b);
    position = nullptr;
}

}  // namespace

int block_barrier(Place where, int vote) {
    Block &b = *here.block;
    Fiber &f = *here.fiber;
    const unsigned g = b.generation;
    f.where = where;
    // Threads that meet at different barriers meet on a device too, which hides the mistake there.
    if (b.arrived == 0) b.where = where;
    else if (b.where.line != where.line || strcmp(b.where.file, where.file) != 0) fail("threads of a block meet at different barriers");
    release(&b.generation);
    b.progress = true;
    b.votes[g & 1] += vote;
    if (++b.arrived == b.live) open_barrier(b);
    else wait(b.generation, g);
    acquire(&b.generation);
    return b.votes[g & 1];
}

unsigned warp_barrier(unsigned mask, Place where, bool vote) {
    Warp &w = *here.fiber->warp;
    const unsigned g = w.generation;
    here.fiber->where = where;
    if (mask != ~0u) fail("a warp operation without all lanes is not emulated");
    if (w.arrived == 0) w.where = where;
    else if (w.where.line != where.line || strcmp(w.where.file, where.file) != 0) fail("lanes of a warp meet at different operations");
    release(&w.generation);
    here.block->progress = true;
    if (vote) w.votes[g & 1] |= 1u << here.fiber->at.lane;
    if (++w.arrived == w.live) open_barrier(w);
    else wait(w.generation, g);
    acquire(&w.generation);
    return w.votes[g & 1];
}

uint64_t shuffle(unsigned mask, uint64_t v, unsigned from, Place where) {
    Warp &w = *here.fiber->warp;
    w.value[here.fiber->at.lane] = v;
    warp_barrier(mask, where, false);
    const unsigned first = here.fiber->linear & ~31u;
    if (from < 32 && first + from < here.block->fibers.size()) v = w.value[from];
    warp_barrier(mask, where, false);  // nobody overwrites a value before all have read it
    return v;
}

void spin() {
    here.block->spinning = true;
    leave();
}

void *shared(size_t bytes, const void *key) {
    Block &b = *here.block;
    for (auto &s : b.statics) {
        if (s.first != key) continue;
        acquire(s.second.get());  // to the sanitizer the allocation is a write by the first thread that came here
        return s.second.get();
    }
    b.statics.emplace_back(key, fresh(bytes));
    void *p = b.statics.back().second.get();
    release(p);
    return p;
}

// Not memcpy, which the sanitizer intercepts.
static void copy(void *to, const void *from, size_t n) { __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory"); }

void upload(void *device, const void *host, size_t n) {
#if defined(LAPWING_TSAN)
    __tsan_write_range(device, n);
    copy(device, host, n);
#else
    (void)copy;
    memcpy(device, host, n);
#endif
}

void download(void *host, const void *device, size_t n) {
#if defined(LAPWING_TSAN)
    __tsan_read_range(const_cast<void *>(device), n);
    copy(host, device, n);
#else
    memcpy(host, device, n);
#endif
}

void *dynamic_shared() { return here.block->dynamic.get(); }

void run(const Launch &l) {
    const std::string order = fake::text("order", "0");
    const unsigned most = std::max(1u, std::thread::hardware_concurrency());
    static thread_local std::unique_ptr<Known[]> known(new Known[most]);
    Run r{l, (unsigned)l.blocks.count(), 1, order == "reverse" ? -1 : atoi(order.c_str()), std::chrono::seconds(fake::number("patience", 20)), known.get()};
    r.workers = std::min(r.blocks, most);
    r.beat = Clock::now().time_since_epoch().count();
    std::vector<std::thread> others;
    for (unsigned k = 1; k < r.workers; k++) others.emplace_back(work, std::ref(r), k);
    work(r, 0);
    for (auto &t : others) t.join();
}

}  // namespace cpu
