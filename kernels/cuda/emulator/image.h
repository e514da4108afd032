// A module as the driver reads it: PTX, each entry of which must match the kernel of that name that is compiled for the CPU.
#pragma once
#include <cuda.h>

#include <map>
#include <string>
#include <vector>

#include "cuda_cpu.h"

namespace fake {

struct Function {
    std::string name;
    const cpu::Kernel *kernel = nullptr;
    unsigned most_threads = 1024;
    size_t shared = 0, dynamic_limit = 48 << 10;  // bytes: static; dynamic that may be asked for
    unsigned registers = 0;                       // a thread, on the architecture emulated
    // Blocks of this function that an SM holds at once.
    unsigned occupancy(size_t threads, size_t dynamic) const;
};

struct Module {
    std::map<std::string, Function> functions;
};

// Returns success and a module, or what a driver would; `why` is its log.
CUresult load(const char *ptx, Module &m, std::string &why);

}  // namespace fake
