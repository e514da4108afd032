//go:build cgo && amd64

#define LEVEL_AVX2
#include "vec.h"
#include "score_body.h"
#include "row_body.h"
#include "train_body.h"
#include "vec_end.h"
