package stream

/*
#include <malloc.h>

static void lapwing_few_arenas(void) {
#ifdef M_ARENA_MAX
	mallopt(M_ARENA_MAX, 2);
#endif
}

static void lapwing_trim(void) {
#ifdef __GLIBC__
	malloc_trim(0);
#endif
}
*/
import "C"

// FewArenas keeps the C library from giving each of librdkafka's threads a heap of its own, each of which grows to its thread's
// highest need and is never given back: with two history readers that is 60 MiB. Threads then wait for each other now and then,
// so it is for processes whose memory matters more than their last records a second. Call it before the first client is made.
func FewArenas() { C.lapwing_few_arenas() }

// giveBack returns freed C memory to the system. A history read leaves some 50 MiB of it.
func giveBack() { C.lapwing_trim() }
