//go:build gpu

// The CUDA driver API, bound when it is first used. Each function is a jump through a pointer, so that arguments and results pass
// untouched, whatever they are; cuInit fills the pointers.
//
// gorgonia.org/cu calls cuInit when its package is initialised and ends the process on an error. So this cuInit always succeeds:
// what went wrong is kept for lapwing_driver_open, and is what every other function returns.
#if defined(__has_include)
#if !__has_include(<cuda.h>)
#error "cuda.h of CUDA 11 or 12 is missing, which a build with -tags gpu needs: run make gpu, which fetches it, or set CGO_CFLAGS=-I<folder of cuda.h>"
#endif
#endif
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>

enum { SUCCESS = 0, NOT_INITIALIZED = 3, NO_DEVICE = 100, NOT_FOUND = 500 };

static int status = NOT_INITIALIZED;
static char reason[512] = "it was not opened";

static int unopened(void) { return status; }
static int absent(void) { return NOT_FOUND; }  // the driver is older than the function

#if defined(__x86_64__)
#define JUMP(slot) "jmp *" slot "(%rip)\n"
#elif defined(__aarch64__)
#define JUMP(slot) "adrp x16, " slot "\nldr x16, [x16, #:lo12:" slot "]\nbr x16\n"  // x16 is the scratch register of the calling convention
#else
#error "the gpu build is for linux on amd64 and arm64"
#endif

#define X(name)                                                                                     \
    __attribute__((visibility("hidden"), used)) void *lapwing_slot_##name = (void *)unopened;       \
    __asm__(".text\n.globl " #name "\n.hidden " #name "\n.type " #name ", %function\n" #name ":\n" \
            JUMP("lapwing_slot_" #name) ".size " #name ", .-" #name "\n");
#include "symbols.h"
#undef X

static const struct { const char *name; void **slot; } table[] = {
#define X(name) {#name, &lapwing_slot_##name},
#include "symbols.h"
#undef X
};

static void open_driver(void) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        status = NO_DEVICE;
        const char *why = dlerror();
        snprintf(reason, sizeof reason, "%s", why ? why : "libcuda.so.1 cannot be opened");
        return;
    }
    int (*init)(unsigned) = (int (*)(unsigned))dlsym(library, "cuInit");
    status = init ? init(0) : NOT_FOUND;
    if (status != SUCCESS) {
        snprintf(reason, sizeof reason, init ? "libcuda.so.1 is there, but cuInit failed" : "libcuda.so.1 is there, but has no cuInit");
        return;
    }
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        void *found = dlsym(library, table[i].name);
        *table[i].slot = found ? found : (void *)absent;
    }
    reason[0] = 0;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;

__attribute__((visibility("hidden"))) int cuInit(unsigned flags) {
    (void)flags;
    pthread_once(&once, open_driver);
    return SUCCESS;
}

int lapwing_driver_open(void) {
    cuInit(0);
    return status;
}

const char *lapwing_driver_reason(void) { return reason; }
