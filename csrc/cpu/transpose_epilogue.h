// Writes a micro-tile of S to memory, its columns as rows, or adds it to what is there (similarities.cpp).
//
// In:  S [kRows][kColumns] of one tile.
// Out: out[c * stride + r] for its rows r and columns c in use, no other element.
// Cost: a square of lanes is transposed in registers, log2(lanes) shuffles of a vector.
// Internal linkage, see types.h.
#pragma once

#include "lanes.h"
#include "tile_kernel.h"

namespace goal_kernels {
namespace {

// P is a product (product_*.h).
template <typename P, bool kAdd>
void write_transposed(const TilePlace<typename P::Scalar>& place, const typename P::Scalar* similarity,
                      typename P::Scalar* out, std::int64_t stride) {
  using T = typename P::Scalar;
  constexpr int kLanes = Lanes<T>::count;
  for (int r = 0; r < place.rows; r += kLanes)
    for (int c = 0; c < place.columns; c += kLanes) {
      Vec<T> square[kLanes] = {};
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i)
        if (r + i < P::kRows) square[i] = load<Vec<T>>(similarity + (r + i) * P::kColumns + c);
      transpose<T>(square);
      const int rows = place.rows - r, columns = place.columns - c;
      T* const corner = out + c * stride + r;
      if (rows >= kLanes && columns >= kLanes) {
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) {
          T* const line = corner + i * stride;
          store(line, kAdd ? load<Vec<T>>(line) + square[i] : square[i]);
        }
        continue;
      }
      for (int i = 0; i < kLanes && i < columns; ++i)
        for (int k = 0; k < kLanes && k < rows; ++k) {
          T& element = corner[i * stride + k];
          element = kAdd ? element + square[i][k] : square[i][k];
        }
    }
}

}  // namespace
}  // namespace goal_kernels
