//go:build cgo && arm64

#define LEVEL_NEON
#include "vec.h"
#include "score_body.h"
#include "row_body.h"
#include "train_body.h"
#include "vec_end.h"
