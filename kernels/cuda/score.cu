// Scoring: a tile of rows a block, ROWS rows a thread. A thread reads nothing of other rows, so a row's result depends
// neither on its neighbours nor on how many rows or blocks there are. Threads meet only to load a tile from rows that
// stand one behind the other, and to store it so: then neighbouring threads take neighbouring words.
//
// A thread has two rows since weights come from shared memory: 16 bytes of them take 4 to 8 cycles to reach a warp, and are
// then used for eight multiply-adds of each thread in place of four.
#include "program.cuh"

constexpr int ROWS = 2;

// An output: where it goes, and where it stands in the tile. to is null where it is not asked for.
struct outputs {
	float *score, *reconstruction, *contributions;
	int score_at, reconstruction_at, contributions_at;
};

// columns_of gives each thread its first row and column, and the steps to its next, of a tile of `width` columns: as many
// threads a row as there are columns, up to 32.
struct walk {
	int row, column, rows, columns;
};
INLINE walk walk_over(int width)
{
	int columns = 1;
	while (columns < width && columns < 32)
		columns *= 2;
	int t = (int)threadIdx.x;
	return walk{t / columns, t % columns, (int)blockDim.x / columns, columns};
}

INLINE void load(float *tile, size_t stride, int at, const float *rows, int have, int width)
{
	walk w = walk_over(width);
	for (int r = w.row; r < have; r += w.rows)
		for (int c = w.column; c < width; c += w.columns)
			tile[(size_t)(at + c) * stride + r] = rows[(size_t)r * width + c];
}

INLINE void store(const float *tile, size_t stride, int at, float *rows, int have, int width)
{
	walk w = walk_over(width);
	for (int r = w.row; r < have; r += w.rows)
		for (int c = w.column; c < width; c += w.columns)
			rows[(size_t)r * width + c] = tile[(size_t)(at + c) * stride + r];
}

// Columns of a tile are an odd number of words apart: both ways of walking over it then meet every bank of shared memory.
INLINE size_t tile_stride() { return (blockDim.x * ROWS) | 1u; }

INLINE void score_tiles(const float *rows, int n, int width, int input_at, const program_step *steps, int count, const float *constants, float *tile, const outputs &out)
{
	size_t stride = tile_stride();
	int height = (int)blockDim.x * ROWS, t = (int)threadIdx.x;
	for (long long first = (long long)blockIdx.x * height; first < n; first += (long long)gridDim.x * height) {
		int have = n - first < height ? (int)(n - first) : height;
		if (input_at >= 0)
			load(tile, stride, input_at, rows + first * width, FAULT == 103 ? height : have, width);
		if (FAULT != 101)
			__syncthreads();
		if (t < have)
			evaluate<ROWS>(steps, count, constants, tile_row{tile + t, stride, blockDim.x});
		__syncthreads();
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
extern "C" __global__ void __launch_bounds__(128, 4) score_shared(SCORE_PARAMETERS)
{
	DYNAMIC_SHARED(float, memory);
	for (int i = (int)threadIdx.x; i < constant_words; i += (int)blockDim.x)
		memory[i] = constants[i];
	__syncthreads();
	score_tiles(rows, n, width, input_at, steps, count, memory, memory + constant_words, OUTPUTS);
}

// Values in shared memory, constants where they are: there are too many.
extern "C" __global__ void __launch_bounds__(128, 4) score_constants(SCORE_PARAMETERS)
{
	DYNAMIC_SHARED(float, memory);
	score_tiles(rows, n, width, input_at, steps, count, constants, memory, OUTPUTS);
}

// The wide path: values in device memory, scratch_words of it a block.
extern "C" __global__ void __launch_bounds__(128, 4) score_wide(SCORE_PARAMETERS)
{
	score_tiles(rows, n, width, input_at, steps, count, constants, scratch + (size_t)blockIdx.x * scratch_words, OUTPUTS);
}

KERNEL(score_shared)
KERNEL(score_constants)
KERNEL(score_wide)
