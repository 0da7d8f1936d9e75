// What screening does with a micro-tile of S: candidates for the largest elements of rows and columns, when S
// is known up to an error (screen.cpp).
//
// In:  S [kRows][kColumns] of one tile without NaN, the largest elements so far.
// Out: these, and every element that came within the slack of its row's or its column's.
// Cost: about ten vector operations per vector of S and five scalar ones per candidate.
// Internal linkage, see types.h.
#pragma once

#include "exclusions.h"

namespace goal_kernels {
namespace {

// Appends the lanes of one vector; returns the new end.
template <typename T>
inline Candidate<T>* append(Mask<T> lanes, const T* line, Integer<T> row, Integer<T> first_column,
                            Candidate<T>* end) {
  for_each_lane<T>(lanes, [&](int lane) { *end++ = {row, first_column + Integer<T>(lane), line[lane]}; });
  return end;
}

// P is a product (product_*.h).
template <typename P, bool kMasked>
int screen(const ScreenTile<typename P::Scalar>& tile, const typename P::Scalar* similarity) {
  using T = typename P::Scalar;
  constexpr int kLanes = Lanes<T>::count;
  const Vec<T> lowest = splat<T>(T(-__builtin_inf()));
  Vec<T> column_best[P::kVectors], column_slack[P::kVectors];
  for (int v = 0; v < P::kVectors; ++v) {
    column_best[v] = load<Vec<T>>(tile.column_best + v * kLanes);
    column_slack[v] = load<Vec<T>>(tile.column_slack + v * kLanes);
  }
  Candidate<T>* end = tile.candidates;
  for (int r = 0; r < tile.place.rows; ++r) {
    const T* line = similarity + r * P::kColumns;
    const Vec<T> row_floor = splat<T>(tile.row_best[r] - tile.row_slack[r]);
    Vec<T> largest = lowest;
    Mask<T> near_best[P::kVectors], near_any = no_lanes<T>();
    for (int v = 0; v < P::kVectors; ++v) {
      const Vec<T> s = load<Vec<T>>(line + v * kLanes);
      const Mask<T> ok = allowed_lanes<kMasked>(tile.place, tile.exclusions, r, v);
      const Mask<T> near_row = ok & at_most(row_floor, s);
      near_best[v] = near_row | (ok & at_most(column_best[v] - column_slack[v], s));
      near_any |= near_best[v];
      column_best[v] = select(ok & less(column_best[v], s), s, column_best[v]);
      largest = select(near_row & less(largest, s), s, largest);
    }
    if (!any(near_any)) continue;
    for (int v = 0; v < P::kVectors; ++v)
      end = append<T>(near_best[v], line + v * kLanes, tile.place.first_row + Integer<T>(r),
                      tile.place.first_column + Integer<T>(v * kLanes), end);
    const T value = largest_lane<T>(largest)[0];
    if (value > tile.row_best[r]) tile.row_best[r] = value;
  }
  for (int v = 0; v < P::kVectors; ++v) store(tile.column_best + v * kLanes, column_best[v]);
  return static_cast<int>(end - tile.candidates);
}

}  // namespace
}  // namespace goal_kernels
