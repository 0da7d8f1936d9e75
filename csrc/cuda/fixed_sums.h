// Relative sums that no order of additions changes: integers, added by atomics. What they mean is said in
// goal_kernels/backends/gpu/kernels/fixed_sums.py, whose kernels read them: the two must agree.
#pragma once

#include "batch_stats.h"
#include "keys.h"

namespace goal_kernels::cuda {

constexpr int kSumBits = 19;          // exponents that share a field
constexpr int kLeastExponent = 126;   // of a float32, as it is stored: of 1/2
constexpr int kMostExponents = 6 * kSumBits;
constexpr float kLeastReach = 0x1p-94f;
constexpr float kRounding = 0x1p-4f;  // of the greatest similarity: more than products are off

// Units in 1 of a linear sum.
GOAL_KERNELS_BOTH float linear_scale(const BatchStats& stats) {
  const float range = stats.bound - stats.threshold;
  const float reach = (range > 0.0f ? range : 0.0f) + stats.bound * kRounding;
  const auto bits = reinterpret<std::int32_t>(reach > kLeastReach ? reach : kLeastReach);
  return reinterpret<float>((127 + 31 - ((bits >> 23) - 126)) << 23);
}

// Adds totals to sums of anchors, [fields, length]. scale: of linear sums, which have one field.
template <typename Warp, bool kLinear>
GOAL_KERNELS_WARP void add_totals(std::int64_t* sums, typename Warp::template Value<int> anchor, std::int64_t length,
                                  typename Warp::template Value<float> total, float scale,
                                  typename Warp::template Value<bool> inside) {
  using Int = typename Warp::template Value<int>;
  using Long = typename Warp::template Value<std::int64_t>;
  if constexpr (kLinear) {
    const Long units = convert<std::int64_t>(total * scale);
    atomic_add(sums, anchor, units, inside & (units > std::int64_t{0}));
  } else {
    const Int bits = reinterpret<std::int32_t>(total);
    const Int position = minimum((bits >> 23) - kLeastExponent, Int(kMostExponents - 1));
    const auto wanted = inside & (position >= 0);
    const Int field = select(wanted, position / kSumBits, Int(0));
    const Int shift = select(wanted, position - field * kSumBits, Int(0));
    const Long digits = convert<std::int64_t>((bits & 0x7fffff) | 0x800000);
    const Long place = convert<std::int64_t>(field) * length + convert<std::int64_t>(anchor);
    atomic_add(sums, place, digits << convert<std::int64_t>(shift), wanted);
  }
}

}  // namespace goal_kernels::cuda
