// Interface of the mining micro-kernels. `tile_kernel.cpp` is compiled once per instruction set and exports
// one `TileKernels` each; `mine.cpp` owns loops, threads and memory and is the only caller.
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

// One micro-tile of S and all it updates. Arrays along rows point at the first row of the tile, those along
// columns at its first column; the latter are readable and writable for a whole micro-tile.
template <typename T>
struct Tile {
  const T* packed_rows;     // [depth][micro rows], zero padded
  const T* packed_columns;  // [depth][micro columns], zero padded
  std::int64_t depth;
  int rows;     // rows in use, at most the micro-tile's
  int columns;  // columns in use
  bool has_ids;
  Integer<T> first_row;
  Integer<T> first_column;
  const Integer<T>* target;     // column that is the row's positive, -1 if none
  const Integer<T>* row_id;     // without ids: 0
  const Integer<T>* column_id;  // without ids: 1
  Extrema<T> row;
  Extrema<T> column;
  RelativeTerms<T> relative;
};

template <typename T>
struct TileKernel {
  int rows;
  int columns;
  // Converts `count` rows of `source` from `first` on to [depth][micro rows or columns], zero padded.
  void (*pack_rows)(const Matrix& source, std::int64_t first, std::int64_t count, T* packed);
  void (*pack_columns)(const Matrix& source, std::int64_t first, std::int64_t count, T* packed);
  // Multiplies one tile and updates its row and column states. Indexed by Relative.
  void (*run[kRelativeKinds])(const Tile<T>& tile);
  // Adds the states of later candidates to those of earlier ones, `count` anchors. Indexed by Relative.
  void (*merge[kRelativeKinds])(const Extrema<T>& into, const Extrema<T>& later,
                                const RelativeTerms<T>& relative, std::int64_t count);
};

struct TileKernels {
  TileKernel<float> float32;
  TileKernel<double> float64;
};

extern const TileKernels tile_kernels_baseline;
#if defined(GOAL_KERNELS_X86)
extern const TileKernels tile_kernels_avx2;
extern const TileKernels tile_kernels_avx512;
#endif

}  // namespace goal_kernels
