#include "image.h"

#include <algorithm>
#include <regex>
#include <sstream>

#include "settings.h"

// The listing that `make ptx` makes of ptxas: lines of kernel, architecture, registers, static shared memory, spilled bytes, release of ptxas.
#ifdef LAPWING_RESOURCES
__asm__(".section .rodata\n.globl lapwing_resources\n.hidden lapwing_resources\nlapwing_resources:\n.incbin \"" LAPWING_RESOURCES "\"\n.byte 0\n.previous\n");
extern "C" const char lapwing_resources[];
#else
static const char lapwing_resources[] = "";
#endif

namespace fake {

namespace {

bool registers(Function &f) {
    std::istringstream lines(lapwing_resources);
    int nearest = 0;  // compiled code runs as the newest architecture that is not newer than the device
    for (std::string line; std::getline(lines, line);) {
        std::istringstream cells(line);
        std::string kernel, arch;
        unsigned regs, shared, spill;
        if (!(cells >> kernel >> arch >> regs >> shared >> spill) || kernel != f.name || arch.compare(0, 3, "sm_")) continue;
        const int a = atoi(arch.c_str() + 3);
        if (a > capability() || a < nearest) continue;
        // Several releases of ptxas know an architecture; the driver's may be any, so what the greediest takes must fit.
        f.registers = a > nearest ? regs : std::max(f.registers, regs);
        f.shared = a > nearest ? shared : std::max<size_t>(f.shared, shared);
        nearest = a;
    }
    return nearest > 0;
}

}  // namespace

unsigned Function::occupancy(size_t threads, size_t dynamic) const {
    const Profile &p = profile();
    const size_t warps = (threads + 31) / 32, used = shared + dynamic;
    unsigned n = std::min<size_t>(p.blocks_sm, p.threads_sm / (warps * 32));
    // Registers are given to warps in units of 256, shared memory to blocks in units of 128 (T4: 256) plus 1 KB from sm_80 on.
    if (registers) n = std::min<size_t>(n, 65536 / ((registers * 32 + 255) / 256 * 256 * warps));
    const size_t block = (used + 255) / 256 * 256 + (p.capability >= 80 ? 1024 : 0);
    if (block) n = std::min<size_t>(n, p.shared_sm / block);
    return n;
}

CUresult load(const char *image, Module &m, std::string &why) {
    const std::string ptx(image);
    std::smatch head;
    if (!std::regex_search(ptx, head, std::regex(R"(\n\.version (\d+)\.(\d+)\s+\.target sm_(\d+))"))) {
        why = "not PTX";
        return CUDA_ERROR_INVALID_PTX;
    }
    // CUDA 11.8 takes PTX 7.8, 12.2 8.2, 13.0 9.0; of 12.6 to 12.9 each takes one less.
    const int major = driver() / 1000, minor = driver() % 1000 / 10;
    const int isa = stoi(head[1]) * 10 + stoi(head[2]), newest = (major - 4) * 10 + minor - (major == 12 && minor >= 6);
    if (isa > newest) {
        why = "PTX " + head[1].str() + "." + head[2].str() + " is newer than the driver";
        return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
    }
    if (stoi(head[3]) > capability()) return CUDA_ERROR_NO_BINARY_FOR_GPU;
    static const std::regex parameter(R"(\.param (?:\.align \d+ )?\.([a-z])(\d+) [A-Za-z0-9_]+(?:\[(\d+)\])?)"), threads(R"(\.maxntid (\d+)(?:, (\d+), (\d+))?)");
    const std::string mark = ".visible .entry ";
    for (size_t at = 0; (at = ptx.find(mark, at)) != std::string::npos;) {
        const size_t open = ptx.find('(', at), close = ptx.find("\n)", open), brace = ptx.find('{', close);
        if (brace == std::string::npos) return CUDA_ERROR_INVALID_PTX;
        Function f;
        f.name = ptx.substr(at + mark.size(), open - at - mark.size());
        const std::string list = ptx.substr(open, close - open), directives = ptx.substr(close, brace - close);
        std::vector<size_t> sizes;
        for (std::sregex_iterator i(list.begin(), list.end(), parameter), end; i != end; ++i)
            sizes.push_back(stoi((*i)[2]) / 8 * ((*i)[3].matched ? stoi((*i)[3]) : 1));
        std::smatch n;
        if (std::regex_search(directives, n, threads)) f.most_threads = stoi(n[1]) * (n[2].matched ? stoi(n[2]) * stoi(n[3]) : 1);
        for (const cpu::Kernel &k : cpu::kernels())
            if (f.name == k.name) f.kernel = &k;
        if (!f.kernel) {
            why = "the PTX has a kernel " + f.name + " that is not compiled for the CPU: KERNEL(" + f.name + ") is missing, or the PTX is not of these sources";
            return CUDA_ERROR_NOT_FOUND;
        }
        if (!std::equal(sizes.begin(), sizes.end(), f.kernel->sizes, f.kernel->sizes + f.kernel->count)) {
            why = "the parameters of " + f.name + " differ between PTX and source: make ptx";
            return CUDA_ERROR_INVALID_PTX;
        }
        if (*lapwing_resources && !registers(f)) {
            why = f.name + " is not in resources.txt: make ptx";
            return CUDA_ERROR_INVALID_PTX;
        }
        m.functions[f.name] = f;
        at = brace;
    }
    return CUDA_SUCCESS;
}

}  // namespace fake
