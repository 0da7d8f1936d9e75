// Reductions over some lanes of a warp that leave each lane with a part of the results: of two values a lane
// keeps one and gives the other away, so that n values over n lanes take n - 1 shuffles.
#pragma once

#include "layout.h"

namespace goal_kernels::cuda {

struct Sum {
  template <typename T>
  static GOAL_KERNELS_WARP T combine(T a, T b) {
    return a + b;
  }
};
struct Maximum {
  template <typename T>
  static GOAL_KERNELS_WARP T combine(T a, T b) {
    return maximum(a, b);
  }
};
struct Minimum {
  template <typename T>
  static GOAL_KERNELS_WARP T combine(T a, T b) {
    return minimum(a, b);
  }
};

// `select` and `shuffle_xor` by other names, which a struct of Values can overload.
template <typename Mask, typename T>
GOAL_KERNELS_WARP T choose(Mask mask, const T& a, const T& b) {
  return select(mask, a, b);
}
template <typename T>
GOAL_KERNELS_WARP T from_lane(const T& a, int mask) {
  return shuffle_xor(a, mask);
}

// `high` of both lanes where the lane has the bit of `mask`, `low` of both elsewhere.
template <typename Combine, typename Lane, typename T>
GOAL_KERNELS_WARP T exchange(Lane lane, T low, T high, int mask) {
  const auto upper = (lane & mask) != 0;
  const T kept = choose(upper, high, low);
  return Combine::combine(kept, from_lane(choose(upper, low, high), mask));
}

// Of 4 values over the 4 lanes of a row: value[lane & 3].
template <typename Combine, typename Lane, typename T>
GOAL_KERNELS_WARP T meet_slices(Lane lane, const T (&value)[4]) {
  const T even = exchange<Combine>(lane, value[0], value[2], 2);
  const T odd = exchange<Combine>(lane, value[1], value[3], 2);
  return exchange<Combine>(lane, even, odd, 1);
}

// Over the 4 lanes of a row, in all of them.
template <typename Combine, typename T>
GOAL_KERNELS_WARP T meet_row(T value) {
  value = Combine::combine(value, shuffle_xor(value, 1));
  return Combine::combine(value, shuffle_xor(value, 2));
}

constexpr int kOwnColumns = kIndices / 8;  // columns of a lane once the 8 lanes of a column have met

// The index (see layout.h) of own column `k` of a lane.
template <typename Int>
GOAL_KERNELS_WARP Int own_index(Int lane, int k) {
  return (lane & 28) + k;
}

// value(index), index in [first, first + 4) of kOwnColumns for every lane, combined over the 8 lanes of a column.
template <typename Combine, int kMask = 4, typename Lane, typename Function>
GOAL_KERNELS_WARP auto meet_columns(Lane lane, int index, Function& value) {
  if constexpr (kMask > 16) {
    return value(index);
  } else {
    const auto low = meet_columns<Combine, 2 * kMask>(lane, index, value);
    const auto high = meet_columns<Combine, 2 * kMask>(lane, index + kMask, value);
    return exchange<Combine>(lane, low, high, kMask);
  }
}

// The byte of the lane's own row, summed over the row's lanes: at most 255.
template <typename Warp>
GOAL_KERNELS_WARP typename Warp::template Value<int> own_byte(
    typename Warp::template Value<int> lane, typename Warp::template Value<std::uint32_t> bytes) {
  return convert<int>(meet_row<Sum>(bytes) >> convert<std::uint32_t>((lane & 3) * 8)) & 0xff;
}

}  // namespace goal_kernels::cuda
