// Interface of the micro-kernels: one micro-tile of S = rows . columns, multiplied and used at once.
// A *product* (product_*.h) multiplies; an *epilogue* (mine_epilogue.h) uses the tile; every pair of the two
// is a function in a table (tile_table.h), compiled once per instruction set. `tile_loop.h` owns loops,
// threads and memory and is the only caller.
#pragma once

#include <cstdint>

#include "types.h"

namespace goal_kernels {

enum class Relative { none = 0, linear = 1, exponential = 2 };
constexpr int kRelativeKinds = 3;

template <typename T>
struct RelativeTerms {
  T threshold;  // pairs below it do not count
  T offset;     // finite; subtracted from every S that is summed (linear)
  T beta;       // slope of the exponential
};

// What is known about each anchor after the similarities seen so far, as parallel arrays. "over" means
// allowed and at or above the threshold.
template <typename T>
struct Extrema {
  T* value;           // largest allowed similarity, -inf at first
  Integer<T>* index;  // where, -1 at first
  Integer<T>* count;  // number of over elements, the largest included
  Integer<T>* ties;   // linear: number of over elements equal to `value`, itself included
  double* sum;        // linear: sum of S - offset over the over elements;
                      // exponential: sum of exp(beta (S - value)) over them without the one at `index`
};

// One micro-tile of S: where it lies and what it is multiplied from.
template <typename T>
struct TilePlace {
  const void* packed_rows;
  const void* packed_columns;
  std::int64_t width;  // D
  int rows;            // rows in use, at most the micro-tile's
  int columns;         // columns in use
  Integer<T> first_row;
  Integer<T> first_column;
};

// Which elements of a tile are not negatives. Arrays along rows, here and below, point at the first row of
// the tile and have its rows in use; those along columns point at its first column and have a whole
// micro-tile's.
template <typename T>
struct Exclusions {
  bool has_ids;
  const Integer<T>* target;     // column that is the row's positive, -1 if none
  const Integer<T>* row_id;     // without ids: 0
  const Integer<T>* column_id;  // without ids: 1
};

// A micro-tile to mine.
template <typename T>
struct MineTile {
  TilePlace<T> place;
  Exclusions<T> exclusions;
  Extrema<T> row;
  Extrema<T> column;
  RelativeTerms<T> relative;
};

// What a kernel may write beyond the last element of a list: it stores whole vectors.
constexpr std::int64_t kVectorRoom = 16;

// Elements of S that may be the largest of their row or their column, as parallel arrays.
template <typename T>
struct Candidates {
  Integer<T>* row;
  Integer<T>* column;
  T* value;
};

// A micro-tile to screen for such elements. `best` is the largest element so far; one that is less by no more
// than `slack` is a candidate.
template <typename T>
struct ScreenTile {
  TilePlace<T> place;
  Exclusions<T> exclusions;
  T* row_best;
  const T* row_slack;
  T* column_best;
  const T* column_slack;
  Candidates<T> candidates;  // room for a whole micro-tile and one vector
};

// A micro-tile whose elements in [floor, ceiling], and NaN, are added to the lists of their rows. Row r's list begins
// `room` elements times r behind the pointers; it must have room for a row of the tile and one vector.
template <typename T>
struct ListTile {
  TilePlace<T> place;
  Exclusions<T> exclusions;
  const T* floor;         // along rows; NaN: none
  const T* column_floor;  // along columns: an element needs to reach one of the two; null: that of its row
  const T* ceiling;       // along rows
  Integer<T>* count;
  T* value;
  Integer<T>* column;
  std::int64_t room;
  Integer<T> full;
};

template <typename T>
struct RankTile;  // rank_tile.h

template <typename T>
struct TileKernel {
  int rows;
  int columns;
  // A packed row takes `value_bytes` for each value of a width rounded up to a multiple of `depth_step`.
  int depth_step;
  int value_bytes;
  // Packs `count` rows of `source` from `first` on, zero padded to a micro-tile.
  void (*pack_rows)(const Matrix& source, std::int64_t first, std::int64_t count, void* packed);
  void (*pack_columns)(const Matrix& source, std::int64_t first, std::int64_t count, void* packed);
  void (*pack_across)(const Matrix& source, std::int64_t first, std::int64_t count, void* packed);  // columns, across
  // Before the first and after the last of a thread's micro-tiles.
  void (*enter)();
  void (*leave)();
  // Multiplies one tile and updates its row and column states. Indexed by Relative.
  void (*mine[kRelativeKinds])(const MineTile<T>& tile);
  // Multiplies one tile, updates the largest elements and appends candidates; returns how many. Elements must
  // not be NaN.
  int (*screen)(const ScreenTile<T>& tile);
  // Multiplies one tile and adds to the lists of its rows, columns ascending. Whether one is longer than `full` now.
  bool (*list)(const ListTile<T>& tile);
  // Multiplies one tile and writes it, transposed: column c to row c of `out`, or adds it there.
  void (*transpose)(const TilePlace<T>& place, T* out, std::int64_t stride, bool add);
  // Adds the states of later candidates to those of earlier ones, `count` anchors. Indexed by Relative.
  void (*merge[kRelativeKinds])(const Extrema<T>& into, const Extrema<T>& later,
                                const RelativeTerms<T>& relative, std::int64_t count);
  // S lies within error(D) * |row| * |column| of the dot product if nothing is subnormal or overflows; at most
  // eight times per value of the depth, what is subnormal is lost.
  double (*error)(std::int64_t width);
  // Multiplies one tile and counts what scores better than the best positives of its rows and columns.
  void (*rank)(const RankTile<T>& tile);
  // The dot product that a score is, in double, and how often it rounds each term.
  double (*exact_dot)(const Matrix& a, std::int64_t i, const Matrix& b, std::int64_t j);
  std::int64_t (*exact_dot_roundings)(std::int64_t width);
};

// Products in the accumulate dtype. `direct` reads float rows without scales where they lie, see product_direct.h;
// its table has `mine[Relative::none]` and `merge[Relative::none]` alone.
struct ExactKernels {
  TileKernel<float> float32;
  TileKernel<double> float64;
  TileKernel<float> direct;
};

extern const ExactKernels exact_kernels_baseline;
#if defined(GOAL_KERNELS_X86)
extern const ExactKernels exact_kernels_avx2;
extern const ExactKernels exact_kernels_avx512;
#endif
#if defined(GOAL_KERNELS_AVX512_BF16)
extern const TileKernel<float> bfloat16_kernel_avx512_bf16;
#endif

// Products on AMX tiles: of bfloat16 values, and of float values as the sum of two bfloat16 each.
struct AmxKernels {
  TileKernel<float> bfloat16;
  TileKernel<float> split;
};

extern const AmxKernels amx_kernels_emulated;
#if defined(GOAL_KERNELS_AMX)
extern const AmxKernels amx_kernels_native;
#endif

}  // namespace goal_kernels
