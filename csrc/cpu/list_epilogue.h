// What top-k search and `above` do with a micro-tile of S: the elements that are not below the floor of their row, or
// of their column, are added to the list of the row (top_k.cpp, above.cpp).
//
// In:  S [kRows][kColumns] of one tile, the bounds and lists of its rows.
// Out: the lists, each in the order of the columns.
// Cost: two or three comparisons per vector of S; a row's list is written where one of its vectors has an element, which in a
//       long search is rare.
// Internal linkage, see types.h.
#pragma once

#include "exclusions.h"

namespace goal_kernels {
namespace {

// P is a product (product_*.h). kColumnFloors: whether columns have floors too.
template <typename P, bool kMasked, bool kColumnFloors>
bool list(const ListTile<typename P::Scalar>& tile, const typename P::Scalar* similarity) {
  using T = typename P::Scalar;
  constexpr int kLanes = Lanes<T>::count;
  bool full = false;
  for (int r = 0; r < tile.place.rows; ++r) {
    const T* line = similarity + r * P::kColumns;
    const Vec<T> floor = splat<T>(tile.floor[r]), ceiling = splat<T>(tile.ceiling[r]);
    Mask<T> found[P::kVectors], any_found = no_lanes<T>();
    for (int v = 0; v < P::kVectors; ++v) {
      const Vec<T> s = load<Vec<T>>(line + v * kLanes);
      // In this form NaN is found.
      Mask<T> below = less(s, floor);
      if constexpr (kColumnFloors) below &= less(s, load<Vec<T>>(tile.column_floor + v * kLanes));
      const Mask<T> outside = below | less(ceiling, s);
      found[v] = allowed_lanes<kMasked>(tile.place, tile.exclusions, r, v) & static_cast<Mask<T>>(~outside);
      any_found |= found[v];
    }
    if (!any(any_found)) continue;
    Integer<T> count = tile.count[r];
    for (int v = 0; v < P::kVectors; ++v) {
      const std::int64_t end = r * tile.room + count;
      const IntVec<T> column = lane_numbers<T>() + (tile.place.first_column + Integer<T>(v * kLanes));
      store_lanes(found[v], column, tile.column + end);
      count += store_lanes(found[v], load<Vec<T>>(line + v * kLanes), tile.value + end);
    }
    tile.count[r] = count;
    full |= count > tile.full;
  }
  return full;
}

}  // namespace
}  // namespace goal_kernels
