// Who may be a negative of whom, on a micro-tile. Internal linkage, see types.h.
#pragma once

#include "lanes.h"
#include "tile_kernel.h"

namespace goal_kernels {
namespace {

// Whether some element of the tile is not allowed, or lies outside of S.
template <typename P, typename T>
bool has_exclusions(const TilePlace<T>& place, const Exclusions<T>& exclusions) {
  if (exclusions.has_ids || place.columns < P::kColumns) return true;
  bool found = false;
  for (int r = 0; r < place.rows; ++r) {
    const Integer<T> column = exclusions.target[r] - place.first_column;
    found |= column >= 0 && column < P::kColumns;
  }
  return found;
}

// Whether the lanes of vector v of row r are allowed as negatives. Unmasked tiles have no exclusions and no
// padding, so the test disappears.
template <bool kMasked, typename T>
inline Mask<T> allowed_lanes(const TilePlace<T>& place, const Exclusions<T>& exclusions, int r, int v) {
  if constexpr (!kMasked) {
    return all_lanes<T>();
  } else {
    const IntVec<T> lane = lane_numbers<T>() + Integer<T>(v * Lanes<T>::count);
    const IntVec<T> id = load<IntVec<T>>(exclusions.column_id + v * Lanes<T>::count);
    const Mask<T> own = equal(lane, splat_int<T>(exclusions.target[r] - place.first_column));
    const Mask<T> same = equal(id, splat_int<T>(exclusions.row_id[r]));
    return less(lane, splat_int<T>(place.columns)) & static_cast<Mask<T>>(~(own | same));
  }
}

template <bool kMasked, typename T>
inline bool is_allowed(const TilePlace<T>& place, const Exclusions<T>& exclusions, int r, int column) {
  if constexpr (!kMasked) return true;
  return place.first_column + column != exclusions.target[r] &&
         exclusions.column_id[column] != exclusions.row_id[r];
}

}  // namespace
}  // namespace goal_kernels
