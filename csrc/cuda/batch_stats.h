// Statistics of a batch, which Triton's first kernel leaves (goal_kernels/backends/gpu/kernels/common.py): float32
// [3, parts], the smallest existing positive (inf if none), the length of the longest image row and of the longest
// text row, each over the rows of one program. NaN stays NaN.
#pragma once

#include "keys.h"

namespace goal_kernels::cuda {

constexpr float kSpecialBound = 1e38f;
constexpr float kWidestRange = static_cast<float>(66.0 / 0.6931471805599453);  // in powers of two: 2^31 terms fit
constexpr float kFarthestReference = 64.0f;  // of a linear sum, per similarity: it costs 6 of 24 bits

struct BatchStats {
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
GOAL_KERNELS_WARP BatchStats read_batch_stats(const float* stats, int parts, float epsilon) {
  const float image = reduce_parts<Warp, true>(stats + parts, parts);
  const float text = reduce_parts<Warp, true>(stats + 2 * parts, parts);
#ifdef __CUDACC__
  const float bound = __fmul_rn(image, text);  // never fused with the subtraction that follows, as in Triton
#else
  const float bound = image * text;
#endif
  return {reduce_parts<Warp, false>(stats, parts) - epsilon, bound};
}

// Whether similarities may be NaN, infinite or overflow, so that maxima need the careful path.
GOAL_KERNELS_BOTH bool is_special(const BatchStats& stats) { return !(stats.bound < kSpecialBound); }

// Whether sums must not start at the threshold: the exponentials would overflow, or the terms n - S of the
// linear sums would drown in the rounding of S - threshold. slope: beta log2(e). No comparison with NaN holds, so
// what is not finite is wide. Triton's kernels decide the same by themselves: the two must agree to the last bit.
GOAL_KERNELS_BOTH bool wide_range(const BatchStats& stats, bool linear, float slope) {
  const float range = stats.bound - stats.threshold;
  if (linear) return is_special(stats) || !(range <= stats.bound * kFarthestReference);
  return is_special(stats) || !(slope * range < kWidestRange);
}

}  // namespace goal_kernels::cuda
