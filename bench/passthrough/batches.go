package passthrough

/*
#include <stdlib.h>
#include "batches.h"
*/
import "C"

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"slices"
	"strings"
	"unsafe"
)

// batches runs the loop in C, one thread, so that what is counted is librdkafka alone.
func batches(ctx context.Context, o Options) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	reader, writer := o.settings()
	r, w, in, out := (*C.char)(C.CBytes([]byte(join(reader)))), (*C.char)(C.CBytes([]byte(join(writer)))), C.CString(o.In), C.CString(o.Out)
	stop := (*C.int)(C.calloc(1, C.sizeof_int))
	for _, p := range []unsafe.Pointer{unsafe.Pointer(r), unsafe.Pointer(w), unsafe.Pointer(in), unsafe.Pointer(out), unsafe.Pointer(stop)} {
		defer C.free(p)
	}
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-ctx.Done():
			C.lapwing_pass_stop(stop)
		case <-done:
		}
	}()
	var fault [512]C.char
	transactions := C.int(0)
	if o.ExactlyOnce {
		transactions = 1
	}
	rc := C.lapwing_pass(r, w, in, out, transactions, C.int(o.Commit.Milliseconds()), stop, &fault[0], C.size_t(len(fault)))
	close(done)
	<-ended
	if rc != 0 {
		return errors.New(C.GoString(&fault[0]))
	}
	return ctx.Err()
}

// join writes settings as C reads them: names and values in turn, each ended by a zero, and one zero more.
func join(m map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		b.WriteString(k + "\x00" + m[k] + "\x00")
	}
	return b.String() + "\x00"
}
