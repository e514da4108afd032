// CUDA_FAKE: what the emulated device is and when it fails, as key=value,key=value. It is read at each call, so that a test can change
// it while the process runs; what was counted begins anew when it changes.
#pragma once
#include <cstdlib>
#include <cstring>
#include <string>

namespace fake {

// Device limits of the GPUs that clouds rent out, from NVIDIA's data sheets and the compute capability table of the CUDA C++ Programming Guide.
struct Profile {
    const char *key, *name;
    int capability, sms, shared_block, shared_sm, threads_sm, blocks_sm;
    size_t memory;
};
inline constexpr Profile profiles[] = {
    {"t4", "Emulated Tesla T4", 75, 40, 64 << 10, 64 << 10, 1024, 16, 15ull << 30},
    {"a100", "Emulated A100", 80, 108, 163 << 10, 164 << 10, 2048, 32, 40ull << 30},
    {"a10g", "Emulated A10G", 86, 80, 99 << 10, 100 << 10, 1536, 16, 22ull << 30},
    {"l4", "Emulated L4", 89, 58, 99 << 10, 100 << 10, 1536, 24, 22ull << 30},
    {"h100", "Emulated H100", 90, 132, 227 << 10, 228 << 10, 2048, 32, 80ull << 30},
    {"b200", "Emulated B200", 100, 148, 227 << 10, 228 << 10, 2048, 32, 180ull << 30},
};

inline std::string text(const char *key, const char *otherwise) {
    const char *p = getenv("CUDA_FAKE");
    const size_t n = strlen(key);
    while (p && *p) {
        const char *end = strchrnul(p, ',');
        if (!strncmp(p, key, n) && p[n] == '=') return std::string(p + n + 1, end);
        p = *end ? end + 1 : end;
    }
    return otherwise;
}
inline long number(const char *key, long otherwise) {
    std::string s = text(key, "");
    return s.empty() ? otherwise : atol(s.c_str());
}
inline const Profile &profile() {
    const std::string key = text("device", "t4");
    for (const Profile &p : profiles)
        if (key == p.key) return p;
    return profiles[0];
}
inline int capability() { return number("cc", profile().capability); }
inline int sms() { return number("sms", profile().sms); }
// The host's memory stands in for the device's, so a device has no more than a gibibyte unless it is asked for.
inline size_t memory() { return number("memory", 1l << 30); }
inline int driver() { return number("driver", 12020); }
inline int devices() {
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    const long n = number("devices", 1);
    return visible && (!*visible || !strcmp(visible, "-1")) ? 0 : n;
}

}  // namespace fake
