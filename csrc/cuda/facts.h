// What the first kernel learns about a batch as a whole, and how the others read it; the twin of
// goal_kernels/backends/triton/facts.py.
//
// Facts are float32 [3, parts]: the smallest existing positive (inf if none), the length of the longest image
// row and of the longest text row, each over the rows of one preparing block. NaN stays NaN.
#pragma once

#include "keys.h"

namespace goal_kernels::cuda {

constexpr float kSpecialBound = 1e38f;
constexpr float kWidestRange = 80.0f * 1.44269504f;  // in powers of two: exp2 of it is still a float32
constexpr float kLongestLever = 8.0f;
constexpr float kSmallBound = 0.125f;

struct Facts {
  float threshold;  // smallest positive - epsilon
  float bound;      // no similarity is larger in magnitude, up to rounding; inf or NaN: some are not finite
};

// Minimum or maximum of parts [count], NaN if there is one among them.
template <typename Warp, bool kLargest>
GOAL_KERNELS_WARP float reduce_parts(const float* parts, int count) {
  using Float = typename Warp::template Value<float>;
  using Int = typename Warp::template Value<int>;
  using Mask = typename Warp::template Value<bool>;
  const float start = kLargest ? 0.0f : kInfinity;
  Float extreme = start;
  Mask broken = false;
  for (int base = 0; base < count; base += kWarpLanes) {
    const Int part = Warp::lane() + base;
    const Float value = load(parts, part, part < count, start);
    broken = broken | (value != value);
    extreme = kLargest ? maximum(extreme, value) : minimum(extreme, value);
  }
  const float result = kLargest ? warp_max<Warp, float>(extreme) : warp_min<Warp, float>(extreme);
  return any(broken) ? NAN : result;
}

// Of the whole warp; every lane has the result.
template <typename Warp>
GOAL_KERNELS_WARP Facts read_facts(const float* facts, int parts, float epsilon) {
  return {reduce_parts<Warp, false>(facts, parts) - epsilon,
          reduce_parts<Warp, true>(facts + parts, parts) * reduce_parts<Warp, true>(facts + 2 * parts, parts)};
}

// Whether similarities may be NaN, infinite or overflow, so that maxima need the careful path.
GOAL_KERNELS_BOTH bool is_special(const Facts& facts) { return !(facts.bound < kSpecialBound); }

// Whether sums must not start at the threshold: the exponentials would overflow, or the terms n - S of the
// linear sums would drown in the rounding of S - threshold. slope: beta log2(e); linear: 0. No comparison with
// NaN holds, so what is not finite is wide.
GOAL_KERNELS_BOTH bool wide_range(const Facts& facts, bool linear, float slope) {
  const float range = facts.bound - facts.threshold;
  const float lever = kLongestLever * (facts.bound > kSmallBound ? facts.bound : kSmallBound);
  if (linear) return is_special(facts) || !(range < lever) || !(range > -kSpecialBound);
  return is_special(facts) || !(slope * range < kWidestRange);
}

}  // namespace goal_kernels::cuda
