package main

// #cgo linux LDFLAGS: -ldl
// #include <dlfcn.h>
// #include <stdlib.h>
// #include <string.h>
//
// // compile gives 0, NVRTC's status, or -1 where the library is none; *text is the PTX, or what went wrong, and malloc'd.
// static int compile(const char *library, const char *source, const char *name, int n, const char **options, char **text) {
// 	void *l = dlopen(library, RTLD_NOW), *p = NULL;
// 	*text = NULL;
// 	if (!l) {
// 		*text = strdup(dlerror());
// 		return -1;
// 	}
// 	int (*create)(void **, const char *, const char *, int, const char *const *, const char *const *) = dlsym(l, "nvrtcCreateProgram");
// 	int (*run)(void *, int, const char *const *) = dlsym(l, "nvrtcCompileProgram");
// 	int (*log_size)(void *, size_t *) = dlsym(l, "nvrtcGetProgramLogSize"), (*log)(void *, char *) = dlsym(l, "nvrtcGetProgramLog");
// 	int (*ptx_size)(void *, size_t *) = dlsym(l, "nvrtcGetPTXSize"), (*ptx)(void *, char *) = dlsym(l, "nvrtcGetPTX");
// 	int (*destroy)(void **) = dlsym(l, "nvrtcDestroyProgram");
// 	if (!create || !run || !log_size || !log || !ptx_size || !ptx || !destroy) {
// 		*text = strdup("it lacks a function of NVRTC");
// 		return -1;
// 	}
// 	int r = create(&p, source, name, 0, NULL, NULL);
// 	if (r)
// 		return r;
// 	r = run(p, n, options);
// 	size_t size = 0;
// 	if ((r ? log_size : ptx_size)(p, &size) == 0 && size > 0 && (*text = calloc(size + 1, 1)))
// 		(r ? log : ptx)(p, *text);
// 	destroy(&p);
// 	return r;
// }
import "C"

import (
	"fmt"
	"sync"
	"unsafe"
)

// inNVRTC lets one goroutine at a time into the library: 13.5 once read address 0 when two made their first calls at once.
var inNVRTC sync.Mutex

// nvrtc compiles a source. The library is opened here and not linked: this command builds where there is no CUDA. The name
// goes into nothing but messages, as long as it holds no folder.
func nvrtc(library, name, source string, options []string) (string, error) {
	text := func(s string) *C.char { return C.CString(s) }
	// C memory of C strings: Go's may not hold pointers of its own while C reads it.
	list := (*[16]*C.char)(C.calloc(16, C.size_t(unsafe.Sizeof(uintptr(0)))))
	defer C.free(unsafe.Pointer(list))
	for i, o := range options {
		list[i] = text(o)
		defer C.free(unsafe.Pointer(list[i]))
	}
	l, s, n := text(library), text(source), text(name)
	defer C.free(unsafe.Pointer(l))
	defer C.free(unsafe.Pointer(s))
	defer C.free(unsafe.Pointer(n))
	var result *C.char
	inNVRTC.Lock()
	status := C.compile(l, s, n, C.int(len(options)), (**C.char)(unsafe.Pointer(list)), &result)
	inNVRTC.Unlock()
	defer C.free(unsafe.Pointer(result))
	if status != 0 {
		return "", fmt.Errorf("%s does not compile with %s: status %d\n%s", name, library, int(status), C.GoString(result))
	}
	return C.GoString(result), nil
}
