// Targets and ids of a whole job in the form the micro-kernels take.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "buffer.h"
#include "tile_kernel.h"

namespace goal_kernels {

// Ids [rows] and [columns]; null: none.
struct Ids {
  const std::int64_t* row;
  const std::int64_t* column;
};

template <typename T>
class ExclusionTable {
 public:
  // `targets` [rows], outside [0, columns): none; null: i. `padding`: columns of a micro-tile, readable beyond the
  // last one.
  ExclusionTable(std::int64_t rows, std::int64_t columns, const std::int64_t* targets, const Ids& ids,
                 std::int64_t padding)
      : ExclusionTable(rows, columns, ids, padding) {
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t target = targets != nullptr ? targets[i] : i;
      target_[i] = target >= 0 && target < columns ? Integer<T>(target) : Integer<T>(-1);
    }
  }

  // Without targets.
  ExclusionTable(std::int64_t rows, std::int64_t columns, const Ids& ids, std::int64_t padding)
      : has_ids_(ids.row != nullptr), target_(rows), row_id_(rows), column_id_(columns + padding) {
    std::fill_n(target_.data(), rows, Integer<T>(-1));
    std::fill_n(row_id_.data(), rows, Integer<T>(0));
    std::fill_n(column_id_.data(), columns + padding, Integer<T>(1));
    if (has_ids_) narrow_ids(rows, columns, ids);
  }

  Exclusions<T> at(const TilePlace<T>& place) const {
    return {has_ids_, target_.data() + place.first_row, row_id_.data() + place.first_row,
            column_id_.data() + place.first_column};
  }

 private:
  static bool fits(const std::int64_t* ids, std::int64_t count) {
    using Limits = std::numeric_limits<Integer<T>>;
    return std::all_of(ids, ids + count,
                       [](std::int64_t id) { return id >= Limits::min() && id <= Limits::max(); });
  }

  // Ids as lane-wide integers: as they are if they fit, else their ranks.
  void narrow_ids(std::int64_t rows, std::int64_t columns, const Ids& ids) {
    if (fits(ids.row, rows) && fits(ids.column, columns)) {
      std::copy_n(ids.row, rows, row_id_.data());
      std::copy_n(ids.column, columns, column_id_.data());
      return;
    }
    std::vector<std::int64_t> known(ids.row, ids.row + rows);
    known.insert(known.end(), ids.column, ids.column + columns);
    std::sort(known.begin(), known.end());
    known.erase(std::unique(known.begin(), known.end()), known.end());
    const auto rank = [&](std::int64_t id) {
      return Integer<T>(std::lower_bound(known.begin(), known.end(), id) - known.begin());
    };
    std::transform(ids.row, ids.row + rows, row_id_.data(), rank);
    std::transform(ids.column, ids.column + columns, column_id_.data(), rank);
  }

  bool has_ids_;
  Buffer<Integer<T>> target_;     // [N]
  Buffer<Integer<T>> row_id_;     // [N]; without ids 0
  Buffer<Integer<T>> column_id_;  // [M + padding]; without ids 1
};

}  // namespace goal_kernels
