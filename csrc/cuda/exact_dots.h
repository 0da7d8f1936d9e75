// Products of rows in float64, four pairs at a time: what scores are defined by. Each pair has 8 lanes of a warp
// and is summed in one order, whatever the others are, so equal rows give equal sums. Products of two elements
// are exact.
#pragma once

#include "cuda/element.h"

namespace goal_kernels::cuda {

constexpr int kDots = 4;  // pairs of a warp
constexpr int kDotLanes = kWarpLanes / kDots;

template <typename Warp, typename Element>
struct ExactDots {
  template <typename T>
  using Value = typename Warp::template Value<T>;
  static constexpr int kPack = kWholePack<Element>;
  using Pack = Packs<Warp, Element, kPack>;

  // Which of the pairs a lane works for, and whether it is the first lane of its pair, which stores.
  static GOAL_KERNELS_WARP Value<int> pair_of(Value<int> lane) { return lane / kDotLanes; }
  static GOAL_KERNELS_WARP Value<bool> stores(Value<int> lane) { return lane % kDotLanes == 0; }

  // <left[left_row], right[right_row]> in all lanes of a pair, 0 where it is not wanted. width: whole packs.
  static GOAL_KERNELS_WARP Value<double> of(const Rows& left, Value<std::int64_t> left_row, const Rows& right,
                                            Value<std::int64_t> right_row, Value<bool> wanted, int width) {
    const Element* const x = static_cast<const Element*>(left.data);
    const Element* const y = static_cast<const Element*>(right.data);
    const Value<int> first = Warp::lane() % kDotLanes * kPack;
    const Value<std::int64_t> x_row = left_row * left.stride, y_row = right_row * right.stride;
    Value<double> total = 0.0;
    GOAL_KERNELS_UNROLL_BY_4
    for (int base = 0; base < width; base += kDotLanes * kPack) {
      const Value<int> column = first + base;
      const Value<bool> inside = wanted & (column < width);
      const Value<std::int64_t> offset = convert<std::int64_t>(column);
      Value<float> a[kPack], b[kPack];
      Pack::load(x, x_row + offset, inside, a);
      Pack::load(y, y_row + offset, inside, b);
      GOAL_KERNELS_UNROLL
      for (int c = 0; c < kPack; ++c) total = total + convert<double>(a[c]) * convert<double>(b[c]);
    }
    for (int mask = kDotLanes / 2; mask > 0; mask /= 2) total = total + shuffle_xor(total, mask);
    return total;
  }
};

}  // namespace goal_kernels::cuda
