// A libcuda.so.1 for tests: the driver calls that the host code makes, with the heap as device memory and kernels compiled for the CPU.
// It refuses what a device refuses (limits, PTX version, stale PTX) and reports what a driver forgives (leaks, stale handles).
//
// CUDA_FAKE (settings.h) asks for faults, LAUNCHES being those that still work:
//   device=t4|a10g|l4|a100|h100|b200, cc=75, sms=N, devices=N, driver=12020, memory=BYTES, reserve=BYTES (held by another process)
//   lost_after=LAUNCHES (lost_code=719), hang_after=LAUNCHES, reserve_after=LAUNCHES (the reserve is taken only then)
//   reserve_while=FILE (the reserve is held as long as there is such a file)
//   flip_after=LAUNCHES, flip_buffer=K (of the live allocations, in the order of their making), flip_word=W: one bit of a word, once
//   init=CODE: cuInit fails; order=reverse|SEED, patience=SECONDS (schedule.cpp)
#include <cuda.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <map>
#include <set>

#include "image.h"
#include "settings.h"
#include "stream.h"

using namespace fake;

namespace {

struct Allocation {
    size_t bytes;
    unsigned long number;
};

// Never destroyed: streams' threads may outlive main, as a Go program ends without exit handlers.
struct State {
    std::mutex mutex;
    std::string settings;  // what the counts below belong to
    long launches = 0;
    bool flipped = false;
    std::atomic<int> lost{0};  // sticky result; 0 is none
    bool hung = false;
    std::map<CUdeviceptr, Allocation> memory;
    std::map<void *, size_t> pinned;
    size_t used = 0;
    unsigned long allocations = 0;
    int retained = 0;
    std::set<Module *> modules;
    std::map<Stream *, std::unique_ptr<Stream>> streams;
    std::unique_ptr<Stream> standard;
    std::set<struct Event *> events;
};
State &state() {
    static State *s = new State;
    return *s;
}
struct Event {
    TicketPtr ticket;
    double at = 0;
};
thread_local CUcontext current = nullptr;

void complain(const std::string &what) { fprintf(stderr, "emulated driver: %s\n", what.c_str()); }

using Lock = std::unique_lock<std::mutex>;

// What a context held goes with it. Threads that may hang are left to the end of the process.
void forget() {
    State &s = state();
    if (!s.lost && !s.hung)
        for (auto &m : s.memory) free((void *)m.first);
    s.memory.clear();
    s.pinned.clear();
    s.used = 0;
    for (Module *m : s.modules) delete m;
    s.modules.clear();
    for (auto &i : s.streams) i.second.release();
    s.streams.clear();
    s.standard.release();
    s.events.clear();
}

// Locked, with counters that fit the settings.
Lock enter() {
    State &s = state();
    Lock lock(s.mutex);
    const char *now = getenv("CUDA_FAKE");
    if (s.settings != (now ? now : "")) {
        s.settings = now ? now : "";
        if (s.lost || s.hung) {  // nobody gives back what is of a device that does not answer
            forget();
            s.retained = 0;
        }
        s.hung = false;
        s.launches = 0;
        s.flipped = false;
        s.lost = 0;
    }
    return lock;
}
CUresult usable() {
    if (state().lost) return (CUresult)state().lost.load();
    return current ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}
size_t taken() {
    State &s = state();
    const std::string file = text("reserve_while", "");
    const bool held = s.launches >= number("reserve_after", 0) && (file.empty() || !access(file.c_str(), F_OK));
    return s.used + (held ? number("reserve", 0) : 0);
}
// Memory that lies in one allocation.
bool inside(CUdeviceptr p, size_t n) {
    auto &memory = state().memory;
    auto i = memory.upper_bound(p);
    if (i == memory.begin()) return false;
    --i;
    return p - i->first <= i->second.bytes && n <= i->second.bytes - (p - i->first);
}
bool is_pinned(const void *p, size_t n) {
    auto &pinned = state().pinned;
    auto i = pinned.upper_bound(const_cast<void *>(p));
    if (i == pinned.begin()) return false;
    --i;
    return (const char *)p + n <= (const char *)i->first + i->second;
}

// Queues work. The default stream, 0, waits for all blocking streams and they for it.
TicketPtr queue(CUstream h, std::function<void()> work) {
    State &s = state();
    if (!s.standard) s.standard = std::make_unique<Stream>(true);
    std::vector<TicketPtr> after;
    Stream *to = s.standard.get();
    if (h) {
        to = (Stream *)h;
        if (to->blocking && s.standard->tail()) after.push_back(s.standard->tail());
    } else {
        for (auto &i : s.streams)
            if (i.second->blocking && i.second->tail()) after.push_back(i.second->tail());
    }
    return to->push(std::move(after), std::move(work));
}
bool is_stream(CUstream h) { return !h || state().streams.count((Stream *)h); }

CUresult finished(Lock &lock, TicketPtr t) {
    lock.unlock();
    if (t) t->wait();
    return (CUresult)state().lost.load();
}

// Copies and fills: `early` is whether the call returns before it is done.
CUresult transfer(CUdeviceptr device, size_t n, CUstream h, bool early, std::function<void()> work) {
    Lock lock = enter();
    if (CUresult r = usable()) return r;
    if (!is_stream(h)) return CUDA_ERROR_INVALID_HANDLE;
    if (!inside(device, n)) {
        complain("a copy or fill of " + std::to_string(n) + " bytes leaves its allocation");
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (n == 0) return CUDA_SUCCESS;
    TicketPtr t = queue(h, [work] {
        if (!state().lost) work();
    });
    return early ? CUDA_SUCCESS : finished(lock, t);
}

CUresult launch(CUfunction handle, cpu::dim3 blocks, cpu::dim3 threads, unsigned dynamic, CUstream h, void **params, bool cooperative) {
    Lock lock = enter();
    State &s = state();
    if (CUresult r = usable()) return r;
    const Function *f = nullptr;
    for (Module *m : s.modules)
        for (auto &i : m->functions)
            if ((CUfunction)&i.second == handle) f = &i.second;
    if (!f || !is_stream(h)) return CUDA_ERROR_INVALID_HANDLE;
    const size_t n = threads.count(), limit = profile().shared_block;
    auto refuse = [&](const std::string &why, CUresult r) {
        complain(f->name + ": " + why);
        return r;
    };
    if (!n || n > 1024 || threads.z > 64 || !blocks.count() || blocks.x > 0x7fffffff || blocks.y > 65535 || blocks.z > 65535)
        return refuse("a block of " + std::to_string(n) + " threads, or a grid that no device takes", CUDA_ERROR_INVALID_VALUE);
    if (n > f->most_threads) return refuse(std::to_string(n) + " threads a block, compiled for " + std::to_string(f->most_threads), CUDA_ERROR_INVALID_VALUE);
    if (dynamic > f->dynamic_limit) return refuse(std::to_string(dynamic) + " bytes of dynamic shared memory, " + std::to_string(f->dynamic_limit) + " allowed", CUDA_ERROR_INVALID_VALUE);
    if (f->shared + dynamic > limit) return refuse(std::to_string(f->shared + dynamic) + " bytes of shared memory, the device has " + std::to_string(limit), CUDA_ERROR_INVALID_VALUE);
    const unsigned resident = f->occupancy(n, dynamic);
    if (resident == 0) return refuse(std::to_string(f->registers) + " registers in each of " + std::to_string(n) + " threads are more than an SM has", CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
    if (cooperative && blocks.count() > (size_t)resident * sms())
        return refuse(std::to_string(blocks.count()) + " blocks that wait for each other, " + std::to_string(resident * sms()) + " fit", CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
    s.launches++;
    const long lost = number("lost_after", -1), hang = number("hang_after", -1), flip = number("flip_after", -1);
    if (lost >= 0 && s.launches > lost) {
        // A device answers at the next call that waits.
        s.lost = number("lost_code", CUDA_ERROR_LAUNCH_FAILED);
        return CUDA_SUCCESS;
    }
    const bool hangs = hang >= 0 && s.launches > hang;
    s.hung |= hangs;
    // Arguments are read now; the caller may change them at once.
    auto args = std::make_shared<std::vector<std::vector<char>>>();
    for (size_t i = 0; i < f->kernel->count; i++) args->emplace_back((char *)params[i], (char *)params[i] + f->kernel->sizes[i]);
    const cpu::Kernel *kernel = f->kernel;
    queue(h, [=] {
        if (hangs) std::this_thread::sleep_for(std::chrono::hours(24));
        if (state().lost) return;
        std::vector<void *> p;
        for (auto &a : *args) p.push_back(a.data());
        cpu::run({kernel, blocks, threads, dynamic, cooperative, p.data()});
    });
    if (flip >= 0 && s.launches >= flip && !s.flipped) {
        std::vector<std::pair<unsigned long, CUdeviceptr>> live;
        for (auto &m : s.memory) live.push_back({m.second.number, m.first});
        std::sort(live.begin(), live.end());
        const size_t buffer = number("flip_buffer", 0), word = number("flip_word", 0);
        if (buffer < live.size() && (word + 1) * 4 <= s.memory[live[buffer].second].bytes) {
            s.flipped = true;
            unsigned *at = (unsigned *)live[buffer].second + word;
            queue(h, [at] { *at ^= 1u << 29; });  // a high bit of the exponent
        }
    }
    return CUDA_SUCCESS;
}

CUresult load_module(CUmodule *out, const void *image, char *log, size_t room) {
    Lock lock = enter();
    if (CUresult r = usable()) return r;
    auto m = std::make_unique<Module>();
    std::string why;
    const CUresult r = load((const char *)image, *m, why);
    if (!why.empty()) complain(why);
    if (log && room) snprintf(log, room, "%s", why.c_str());
    if (r) return r;
    *out = (CUmodule)m.get();
    state().modules.insert(m.release());
    return CUDA_SUCCESS;
}

// Called when the last context goes: a Go program ends without exit handlers, so there is no later moment.
CUresult leaks() {
    State &s = state();
    if (s.lost) return (CUresult)s.lost.load();
    std::string what;
    auto count = [&](size_t n, const char *of) {
        if (n) what += (what.empty() ? "" : ", ") + std::to_string(n) + " " + of;
    };
    count(s.memory.size(), "allocations");
    count(s.pinned.size(), "blocks of pinned memory");
    count(s.modules.size(), "modules");
    count(s.streams.size(), "streams");
    count(s.events.size(), "events");
    if (what.empty()) return CUDA_SUCCESS;
    complain("not given back at the end: " + what);
    return CUDA_ERROR_ILLEGAL_STATE;
}

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

extern "C" {

CUresult CUDAAPI cuInit(unsigned) {
    if (const long code = number("init", 0)) return (CUresult)code;
    return devices() ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}
CUresult CUDAAPI cuDriverGetVersion(int *v) {
    *v = driver();
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuGetErrorName(CUresult, const char **s) {
    *s = "CUDA_ERROR";
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuGetErrorString(CUresult, const char **s) {
    *s = "an error of the emulated driver";
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetCount(int *n) {
    *n = devices();
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuDeviceGet(CUdevice *d, int i) {
    if (i < 0 || i >= devices()) return CUDA_ERROR_INVALID_DEVICE;
    *d = i;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuDeviceGetName(char *s, int n, CUdevice) {
    snprintf(s, n, "%s%s", profile().name, number("mig", 0) ? " MIG 1g.5gb" : "");
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuDeviceGetUuid(CUuuid *id, CUdevice d) {
    for (int i = 0; i < 16; i++) id->bytes[i] = (char)(i + 1);
    id->bytes[15] = (char)d;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuDeviceGetUuid_v2(CUuuid *id, CUdevice d) { return cuDeviceGetUuid(id, d); }
CUresult CUDAAPI cuDeviceTotalMem_v2(size_t *n, CUdevice) {
    *n = memory();
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuDeviceGetAttribute(int *v, CUdevice_attribute a, CUdevice) {
    const Profile &p = profile();
    switch (a) {
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *v = 1024; break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: *v = p.threads_sm; break;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR: *v = p.blocks_sm; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *v = sms(); break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *v = 32; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: *v = 48 << 10; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *v = p.shared_block; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: *v = p.shared_sm; break;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR: *v = 65536; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *v = capability() / 10; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *v = capability() % 10; break;
    case CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH: *v = number("cooperative", 1); break;
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING: *v = 1; break;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: *v = 1590000; break;
    default: *v = 0;
    }
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext *c, CUdevice) {
    Lock lock = enter();
    state().retained++;
    *c = (CUcontext)&state();
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuDevicePrimaryCtxRelease_v2(CUdevice) {
    Lock lock = enter();
    State &s = state();
    if (!s.retained) return CUDA_ERROR_INVALID_CONTEXT;
    if (--s.retained) return CUDA_SUCCESS;
    TicketPtr last = s.standard && !s.lost && !s.hung ? s.standard->tail() : nullptr;
    if (last) {
        lock.unlock();
        last->wait();
        lock.lock();
    }
    const CUresult r = leaks();
    forget();
    return r;
}
CUresult CUDAAPI cuCtxSetCurrent(CUcontext c) {
    current = c;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuCtxGetCurrent(CUcontext *c) {
    *c = current;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuCtxGetDevice(CUdevice *d) {
    *d = 0;
    return current ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}
CUresult CUDAAPI cuCtxSynchronize(void) {
    Lock lock = enter();
    if (CUresult r = usable()) return r;
    std::vector<TicketPtr> tails;
    for (auto &i : state().streams) tails.push_back(i.second->tail());
    if (state().standard) tails.push_back(state().standard->tail());
    lock.unlock();
    for (auto &t : tails)
        if (t) t->wait();
    return (CUresult)state().lost.load();
}

CUresult CUDAAPI cuMemGetInfo_v2(size_t *free, size_t *total) {
    Lock lock = enter();
    if (CUresult r = usable()) return r;
    *total = memory();
    *free = memory() > taken() ? memory() - taken() : 0;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuMemAlloc_v2(CUdeviceptr *p, size_t n) {
    Lock lock = enter();
    State &s = state();
    if (CUresult r = usable()) return r;
    if (!n) return CUDA_ERROR_INVALID_VALUE;
    if (n > memory() || taken() > memory() - n) return CUDA_ERROR_OUT_OF_MEMORY;
    char *q = (char *)malloc(n);  // of the exact size: the address sanitizer sees what leaves it
    if (!q) return CUDA_ERROR_OUT_OF_MEMORY;
    memset(q, 0xff, n);
    s.memory[(CUdeviceptr)q] = {n, s.allocations++};
    s.used += n;
    *p = (CUdeviceptr)q;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuMemFree_v2(CUdeviceptr p) {
    CUresult r = cuCtxSynchronize();  // as the driver does
    if (r) return r;
    Lock lock = enter();
    State &s = state();
    auto i = s.memory.find(p);
    if (i == s.memory.end()) return CUDA_ERROR_INVALID_VALUE;
    s.used -= i->second.bytes;
    s.memory.erase(i);
    free((void *)p);
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuMemAllocHost_v2(void **p, size_t n) {
    Lock lock = enter();
    if (CUresult r = usable()) return r;
    *p = malloc(n);
    memset(*p, 0xff, n);
    state().pinned[*p] = n;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuMemHostAlloc(void **p, size_t n, unsigned) { return cuMemAllocHost_v2(p, n); }
CUresult CUDAAPI cuMemFreeHost(void *p) {
    CUresult r = cuCtxSynchronize();
    if (r) return r;
    Lock lock = enter();
    if (!state().pinned.erase(p)) return CUDA_ERROR_INVALID_VALUE;
    free(p);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemcpyHtoD_v2(CUdeviceptr d, const void *s, size_t n) {
    return transfer(d, n, nullptr, false, [=] { cpu::upload((void *)d, s, n); });
}
CUresult CUDAAPI cuMemcpyDtoH_v2(void *d, CUdeviceptr s, size_t n) {
    return transfer(s, n, nullptr, false, [=] { cpu::download(d, (void *)s, n); });
}
CUresult CUDAAPI cuMemcpyDtoD_v2(CUdeviceptr d, CUdeviceptr s, size_t n) {
    {
        Lock lock = enter();
        if (!inside(s, n)) return CUDA_ERROR_INVALID_VALUE;
    }
    return transfer(d, n, nullptr, true, [=] { memmove((void *)d, (void *)s, n); });
}
CUresult CUDAAPI cuMemcpyDtoDAsync_v2(CUdeviceptr d, CUdeviceptr s, size_t n, CUstream h) {
    {
        Lock lock = enter();
        if (!inside(s, n)) return CUDA_ERROR_INVALID_VALUE;
    }
    return transfer(d, n, h, true, [=] { memmove((void *)d, (void *)s, n); });
}
// Only pinned memory is read and written beside the host; other memory is staged before the call returns.
CUresult CUDAAPI cuMemcpyHtoDAsync_v2(CUdeviceptr d, const void *s, size_t n, CUstream h) {
    bool pinned;
    {
        Lock lock = enter();
        pinned = is_pinned(s, n);
    }
    return transfer(d, n, h, pinned, [=] { cpu::upload((void *)d, s, n); });
}
CUresult CUDAAPI cuMemcpyDtoHAsync_v2(void *d, CUdeviceptr s, size_t n, CUstream h) {
    bool pinned;
    {
        Lock lock = enter();
        pinned = is_pinned(d, n);
    }
    return transfer(s, n, h, pinned, [=] { cpu::download(d, (void *)s, n); });
}
CUresult CUDAAPI cuMemsetD8_v2(CUdeviceptr d, unsigned char v, size_t n) {
    return transfer(d, n, nullptr, true, [=] { memset((void *)d, v, n); });
}
CUresult CUDAAPI cuMemsetD8Async(CUdeviceptr d, unsigned char v, size_t n, CUstream h) {
    return transfer(d, n, h, true, [=] { memset((void *)d, v, n); });
}
CUresult CUDAAPI cuMemsetD32_v2(CUdeviceptr d, unsigned v, size_t n) {
    return transfer(d, n * 4, nullptr, true, [=] { std::fill_n((unsigned *)d, n, v); });
}
CUresult CUDAAPI cuMemsetD32Async(CUdeviceptr d, unsigned v, size_t n, CUstream h) {
    return transfer(d, n * 4, h, true, [=] { std::fill_n((unsigned *)d, n, v); });
}

CUresult CUDAAPI cuModuleLoadData(CUmodule *m, const void *image) { return load_module(m, image, nullptr, 0); }
CUresult CUDAAPI cuModuleLoadDataEx(CUmodule *m, const void *image, unsigned n, CUjit_option *options, void **values) {
    char *log = nullptr;
    size_t room = 0;
    for (unsigned i = 0; i < n; i++) {
        if (options[i] == CU_JIT_ERROR_LOG_BUFFER) log = (char *)values[i];
        if (options[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES) room = (size_t)(unsigned)(uintptr_t)values[i];
    }
    return load_module(m, image, log, room);
}
CUresult CUDAAPI cuModuleUnload(CUmodule m) {
    Lock lock = enter();
    if (CUresult r = usable()) return r;
    if (!state().modules.erase((Module *)m)) return CUDA_ERROR_INVALID_HANDLE;
    delete (Module *)m;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuModuleGetFunction(CUfunction *f, CUmodule m, const char *name) {
    Lock lock = enter();
    if (!state().modules.count((Module *)m)) return CUDA_ERROR_INVALID_HANDLE;
    auto &functions = ((Module *)m)->functions;
    auto i = functions.find(name);
    if (i == functions.end()) return CUDA_ERROR_NOT_FOUND;
    *f = (CUfunction)&i->second;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuFuncSetAttribute(CUfunction f, CUfunction_attribute a, int v) {
    Lock lock = enter();
    Function *fn = (Function *)f;
    if (a != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_SUCCESS;
    if (v < 0 || v + fn->shared > (size_t)profile().shared_block) return CUDA_ERROR_INVALID_VALUE;
    fn->dynamic_limit = v;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuFuncGetAttribute(int *v, CUfunction_attribute a, CUfunction f) {
    const Function *fn = (const Function *)f;
    switch (a) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *v = fn->most_threads; break;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: *v = fn->shared; break;
    case CU_FUNC_ATTRIBUTE_NUM_REGS: *v = fn->registers; break;
    default: *v = 0;
    }
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, CUfunction f, int threads, size_t dynamic) {
    *n = ((const Function *)f)->occupancy(threads, dynamic);
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, CUfunction f, int threads, size_t dynamic, unsigned) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessor(n, f, threads, dynamic);
}
CUresult CUDAAPI cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned dynamic, CUstream h, void **p, void **) {
    return launch(f, {gx, gy, gz}, {bx, by, bz}, dynamic, h, p, false);
}
CUresult CUDAAPI cuLaunchCooperativeKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned dynamic, CUstream h, void **p) {
    if (!number("cooperative", 1)) return CUDA_ERROR_NOT_SUPPORTED;
    return launch(f, {gx, gy, gz}, {bx, by, bz}, dynamic, h, p, true);
}

CUresult CUDAAPI cuStreamCreate(CUstream *h, unsigned flags) {
    Lock lock = enter();
    if (CUresult r = usable()) return r;
    auto s = std::make_unique<Stream>(!(flags & CU_STREAM_NON_BLOCKING));
    *h = (CUstream)s.get();
    state().streams[s.get()] = std::move(s);
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuStreamDestroy_v2(CUstream h) {
    Lock lock = enter();
    if (CUresult r = usable()) return r;
    auto i = state().streams.find((Stream *)h);
    if (i == state().streams.end()) return CUDA_ERROR_INVALID_HANDLE;
    auto s = std::move(i->second);
    state().streams.erase(i);
    lock.unlock();
    s.reset();
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuStreamSynchronize(CUstream h) {
    Lock lock = enter();
    if (CUresult r = usable()) return r;
    if (!is_stream(h)) return CUDA_ERROR_INVALID_HANDLE;
    if (!h) return finished(lock, state().standard ? state().standard->tail() : nullptr);
    return finished(lock, ((Stream *)h)->tail());
}
CUresult CUDAAPI cuStreamQuery(CUstream h) {
    Lock lock = enter();
    if (CUresult r = usable()) return r;
    if (!is_stream(h)) return CUDA_ERROR_INVALID_HANDLE;
    TicketPtr t = h ? ((Stream *)h)->tail() : state().standard ? state().standard->tail() : nullptr;
    return !t || t->ready() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}
CUresult CUDAAPI cuStreamWaitEvent(CUstream h, CUevent e, unsigned) {
    Lock lock = enter();
    if (!is_stream(h) || !state().events.count((Event *)e)) return CUDA_ERROR_INVALID_HANDLE;
    TicketPtr t = ((Event *)e)->ticket;
    if (t) queue(h, [t] { t->wait(); });
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventCreate(CUevent *e, unsigned) {
    Lock lock = enter();
    auto *made = new Event;
    state().events.insert(made);
    *e = (CUevent)made;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuEventDestroy_v2(CUevent e) {
    Lock lock = enter();
    TicketPtr t = state().events.count((Event *)e) ? ((Event *)e)->ticket : nullptr;
    if (!state().events.erase((Event *)e)) return CUDA_ERROR_INVALID_HANDLE;
    lock.unlock();
    if (t) t->wait();
    delete (Event *)e;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuEventRecord(CUevent h, CUstream stream) {
    Lock lock = enter();
    if (CUresult r = usable()) return r;
    if (!is_stream(stream) || !state().events.count((Event *)h)) return CUDA_ERROR_INVALID_HANDLE;
    Event *e = (Event *)h;
    e->ticket = queue(stream, [e] { e->at = seconds(); });
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuEventSynchronize(CUevent h) {
    Lock lock = enter();
    if (CUresult r = usable()) return r;
    if (!state().events.count((Event *)h)) return CUDA_ERROR_INVALID_HANDLE;
    return finished(lock, ((Event *)h)->ticket);
}
CUresult CUDAAPI cuEventQuery(CUevent h) {
    Lock lock = enter();
    if (CUresult r = usable()) return r;
    if (!state().events.count((Event *)h)) return CUDA_ERROR_INVALID_HANDLE;
    TicketPtr t = ((Event *)h)->ticket;
    return !t || t->ready() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}
CUresult CUDAAPI cuEventElapsedTime(float *ms, CUevent a, CUevent b) {
    *ms = (float)((((Event *)b)->at - ((Event *)a)->at) * 1e3);
    return CUDA_SUCCESS;
}

}  // extern "C"
