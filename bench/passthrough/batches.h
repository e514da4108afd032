#ifndef LAPWING_PASS_H
#define LAPWING_PASS_H

#include <stddef.h>

// Passes records of topic in to topic out until *stop. Settings are names and values in turn, each ended by a zero, with
// one zero more at the end. 0, or 1 with the fault in words.
int lapwing_pass(const char *reader, const char *writer, const char *in, const char *out, int transactions, int commit_ms,
                 int *stop, char *fault, size_t fault_size);

void lapwing_pass_stop(int *stop);

#endif
