// What screening does with a micro-tile of S: candidates for the largest elements of rows and columns, when S
// is known up to an error (screen.cpp).
//
// In:  S [kRows][kColumns] of one tile without NaN, the largest elements so far.
// Out: these, and every element that came within the slack of its row's or its column's.
// Cost: about twenty operations per vector of S, none of which depends on how many candidates there are: a
//       column's chunk is short, so that every other vector has some, and guessing which ones costs more.
// Internal linkage, see types.h.
#pragma once

#include "exclusions.h"

namespace goal_kernels {
namespace {

// P is a product (product_*.h).
template <typename P, bool kMasked>
int screen(const ScreenTile<typename P::Scalar>& tile, const typename P::Scalar* similarity) {
  using T = typename P::Scalar;
  constexpr int kLanes = Lanes<T>::count;
  Vec<T> column_best[P::kVectors], column_slack[P::kVectors];
  IntVec<T> column[P::kVectors];
  for (int v = 0; v < P::kVectors; ++v) {
    column_best[v] = load<Vec<T>>(tile.column_best + v * kLanes);
    column_slack[v] = load<Vec<T>>(tile.column_slack + v * kLanes);
    column[v] = lane_numbers<T>() + (tile.place.first_column + Integer<T>(v * kLanes));
  }
  int count = 0;
  for (int r = 0; r < tile.place.rows; ++r) {
    const T* line = similarity + r * P::kColumns;
    const IntVec<T> here = splat_int<T>(tile.place.first_row + Integer<T>(r));
    const Vec<T> row_floor = splat<T>(tile.row_best[r] - tile.row_slack[r]);
    Mask<T> near_row[P::kVectors], any_near_row = no_lanes<T>();
    for (int v = 0; v < P::kVectors; ++v) {
      const Vec<T> s = load<Vec<T>>(line + v * kLanes);
      const Mask<T> ok = allowed_lanes<kMasked>(tile.place, tile.exclusions, r, v);
      near_row[v] = ok & at_most(row_floor, s);
      any_near_row |= near_row[v];
      const Mask<T> near_column = ok & at_most(column_best[v] - column_slack[v], s);
      column_best[v] = select(near_column & less(column_best[v], s), s, column_best[v]);
      const Mask<T> found = near_row[v] | near_column;
      store_lanes(found, here, tile.candidates.row + count);
      store_lanes(found, column[v], tile.candidates.column + count);
      count += store_lanes(found, s, tile.candidates.value + count);
    }
    if (!any(any_near_row)) continue;
    Vec<T> largest = splat<T>(tile.row_best[r]);
    for (int v = 0; v < P::kVectors; ++v) {
      const Vec<T> s = load<Vec<T>>(line + v * kLanes);
      largest = select(near_row[v] & less(largest, s), s, largest);
    }
    tile.row_best[r] = largest_lane<T>(largest)[0];
  }
  for (int v = 0; v < P::kVectors; ++v) store(tile.column_best + v * kLanes, column_best[v]);
  return count;
}

}  // namespace
}  // namespace goal_kernels
