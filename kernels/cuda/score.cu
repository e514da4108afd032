// Scoring: a tile of rows a block, as many rows as threads. A row's result depends neither on its neighbours nor on how many
// rows or blocks there are: the threads of a block share out columns, never a sum.
//
// Products and maps are shared out among four groups of threads: a thread takes four rows beside each other, and every fourth
// column or block of outputs. Rows are what shared memory has little room for, 256 on a T4's SM, and a thread for each is then
// eight warps; four rows a thread without groups were two. A word of shared memory is read by one instruction together with
// three more, and a weight then used for four rows. The rest is a thread a row.
#include "program.cuh"

constexpr int TOGETHER = 4, LANES = 32;

// An output: where it goes, and where it stands in the tile. to is null where it is not asked for.
struct outputs {
	float *score, *reconstruction, *contributions;
	int score_at, reconstruction_at, contributions_at;
};

// walk_over gives each thread its first rows and column, and the steps to its next, of a tile of `width` columns: as many
// threads beside each other as there are columns, up to 32, each with four rows of one.
struct walk {
	int row, column, rows, columns;
};
INLINE walk walk_over(int width)
{
	int columns = 1;
	while (columns < width && columns < LANES)
		columns *= 2;
	int t = (int)threadIdx.x;
	return walk{t / columns * TOGETHER, t % columns, (int)blockDim.x / columns * TOGETHER, columns};
}

// load asks for eight words before it puts the first down.
INLINE void load(float *tile, size_t stride, int at, const float *rows, int have, int width)
{
	constexpr int AHEAD = 2;
	walk w = walk_over(width);
	for (int c = w.column; c < width; c += w.columns)
		for (int r = w.row; r < have; r += AHEAD * w.rows) {
			values<TOGETHER> v[AHEAD];
#pragma unroll
			for (int k = 0; k < AHEAD; k++)
#pragma unroll
				for (int i = 0; i < TOGETHER; i++) {
					int row = r + k * w.rows + i;
					v[k].of[i] = row < have ? rows[(size_t)row * width + c] : 0.0f;
				}
#pragma unroll
			for (int k = 0; k < AHEAD; k++)
				if (r + k * w.rows < have)
					put(tile + (size_t)(at + c) * stride + (r + k * w.rows), v[k]);
		}
}

// load_whole is load of a tile that lacks no row, with 32 threads beside each other: a thread's rows of a column are then as many
// for every height, all are asked for before the first is put down, as the way to memory is long, and none is looked at twice.
INLINE void load_whole(float *tile, size_t stride, int at, const float *rows, int width)
{
	constexpr int AHEAD = LANES / TOGETHER;
	int first = (int)threadIdx.x / LANES * TOGETHER, next = (int)blockDim.x / LANES * TOGETHER;
	size_t one = width, two = 2 * one, three = 3 * one, step = one * next;
	int c = (int)threadIdx.x % LANES;
	const float *column = rows + ((size_t)first * width + c);
	float *there = tile + ((size_t)(at + c) * stride + first);
	for (; c < width; c += LANES, column += LANES, there += LANES * stride) {
		const float *from = column;
		float *to = there;
		values<TOGETHER> v[AHEAD];
#pragma unroll
		for (int k = 0; k < AHEAD; k++, from += step)
			v[k] = values<TOGETHER>{{from[0], from[one], from[two], from[three]}};
#pragma unroll
		for (int k = 0; k < AHEAD; k++, to += next)
			put(to, v[k]);
	}
}

INLINE void store(const float *tile, size_t stride, int at, float *rows, int have, int width)
{
	if (width == 1) {
		for (int r = (int)threadIdx.x; r < have; r += (int)blockDim.x)
			rows[r] = tile[(size_t)at * stride + r];
		return;
	}
	walk w = walk_over(width);
	for (int c = w.column; c < width; c += w.columns)
		for (int r = w.row; r < have; r += w.rows) {
			values<TOGETHER> v = values_at<TOGETHER>(tile + (size_t)(at + c) * stride + r);
			float *to = rows + ((size_t)r * width + c);
#pragma unroll
			for (int i = 0; i < TOGETHER; i++, to += width)
				if (r + i < have)
					*to = v.of[i];
		}
}

// ahead brings the rows of a later tile close to the processor.
INLINE void ahead(const float *rows, long long have, int width)
{
	constexpr int LINE = 32;
	if (have > (int)blockDim.x)
		have = blockDim.x;
	for (long long i = LINE * (int)threadIdx.x; i < have * width; i += LINE * (int)blockDim.x)
		PREFETCH(rows + i);
}

// Columns of a tile are a multiple of four words apart, for values<4>, and no multiple of 32: eight threads that put four rows
// of neighbouring columns down meet every bank of shared memory.
INLINE size_t tile_stride() { return blockDim.x + 4; }

// steps_of_tile runs a program over a tile. Steps follow each other in a block: what one leaves, others read in the next. What
// lies in a row that is none may be computed too, and is stored nowhere.
INLINE void steps_of_tile(const program_step *steps, int count, const float *constants, float *tile, int have)
{
	size_t stride = tile_stride();
	int t = (int)threadIdx.x, lanes = (int)blockDim.x / TOGETHER, group = t / lanes, lane = t - group * lanes;
	tile_row rows = {tile + lane * TOGETHER, stride}, row = {tile + t, stride};
	bool some = lane * TOGETHER < have;
	int turn = group; // a gemm's blocks go on where those of the one before ended: no group has the first of all
	for (int i = 0; i < count; i++) {
		const program_step s = steps[i];
		if (s.op == OP_GEMM) {
			if (some)
				gemm<TOGETHER>(s, constants, rows, share{turn & 3, 4});
			turn -= gemm_blocks(s);
			if (s.act != ACT_LINEAR) {
				if (FAULT != 107)
					__syncthreads();
				if (some)
					activations<TOGETHER>(s, rows, share{group, 4});
			}
		} else if (s.op == OP_MAP || s.op == OP_UNMAP) {
			if (some)
				map_columns<TOGETHER>(s, constants, rows, share{group, 4});
		} else if (t < have) {
			one(s, constants, row);
		}
		if (FAULT != 107)
			__syncthreads();
	}
}

INLINE void score_tiles(const float *rows, int n, int width, int input_at, const program_step *steps, int count, const float *constants, float *tile, const outputs &out)
{
	size_t stride = tile_stride();
	int height = (int)blockDim.x;
	long long all = (long long)gridDim.x * height;
	for (long long first = (long long)blockIdx.x * height; first < n; first += all) {
		int have = n - first < height ? (int)(n - first) : height;
		if (input_at >= 0) {
			if (have == height && width > LANES / 2)
				load_whole(tile, stride, input_at, rows + first * width, width);
			else
				load(tile, stride, input_at, rows + first * width, FAULT == 103 ? height : have, width);
			if (first + all < n)
				ahead(rows + (first + all) * width, n - first - all, width);
		}
		if (FAULT != 101)
			__syncthreads();
		steps_of_tile(steps, count, constants, tile, have);
		if (out.score)
			store(tile, stride, out.score_at, out.score + first, have, 1);
		if (out.reconstruction)
			store(tile, stride, out.reconstruction_at, out.reconstruction + first * width, have, width);
		if (out.contributions)
			store(tile, stride, out.contributions_at, out.contributions + first * width, have, width);
		if (FAULT != 102)
			__syncthreads();
	}
}

#define SCORE_PARAMETERS                                                                                                       \
	const float *rows, int n, int width, int input_at, const program_step *steps, int count, const float *constants,       \
		int constant_words, float *scratch, long long scratch_words, float *score, float *reconstruction, float *contributions, \
		int score_at, int reconstruction_at, int contributions_at
#define OUTPUTS outputs{score, reconstruction, contributions, score_at, reconstruction_at, contributions_at}

// Constants and values in shared memory: constant_words of the one, a multiple of four, then the tile.
extern "C" __global__ void __launch_bounds__(256, 2) score_shared(SCORE_PARAMETERS)
{
	DYNAMIC_SHARED(float, memory);
	for (int i = (int)threadIdx.x; i < constant_words; i += (int)blockDim.x)
		memory[i] = constants[i];
	__syncthreads();
	score_tiles(rows, n, width, input_at, steps, count, memory, memory + constant_words, OUTPUTS);
}

// Values in shared memory, constants where they are: there are too many.
extern "C" __global__ void __launch_bounds__(256, 2) score_constants(SCORE_PARAMETERS)
{
	DYNAMIC_SHARED(float, memory);
	score_tiles(rows, n, width, input_at, steps, count, constants, memory, OUTPUTS);
}

// The wide path: values in device memory, scratch_words of it a block.
extern "C" __global__ void __launch_bounds__(64, 4) score_wide(SCORE_PARAMETERS)
{
	score_tiles(rows, n, width, input_at, steps, count, constants, scratch + (size_t)blockIdx.x * scratch_words, OUTPUTS);
}

KERNEL(score_shared)
KERNEL(score_constants)
KERNEL(score_wide)
