// Mined maxima as integers that atomics order; as goal_kernels/backends/gpu/kernels/common.py has
// them.
//
// A *key* is a float32 as an int32 of the same order: -0.0 equals 0.0, every NaN is the largest key. A *packed
// key* has the key in its upper half and the index counted down in its lower half, so the largest packed key is
// the hardest negative and, among equals, the one of lowest index.
#pragma once

#include "warp.h"

namespace goal_kernels::cuda {

constexpr std::int32_t kNanKey = INT32_MAX;
constexpr std::int32_t kEmptyKey = INT32_MIN;  // no number has this key
constexpr std::int32_t kMagnitude = 0x7fffffff;
constexpr float kInfinity = INFINITY;
constexpr float kFloatMax = 3.40282347e+38f;

// Functions of scalars and of Values alike. T: float or Value<float>, and so on.
template <typename Warp>
struct Keys {
  template <typename T>
  using Value = typename Warp::template Value<T>;

  static GOAL_KERNELS_WARP Value<std::int32_t> encode(Value<float> value) {
    const Value<float> plain = select(value == 0.0f, Value<float>(0.0f), value);
    const Value<std::int32_t> bits = reinterpret<std::int32_t>(plain);
    const Value<std::int32_t> key = bits ^ ((bits >> 31) & kMagnitude);
    return select(value != value, Value<std::int32_t>(kNanKey), key);
  }
  // Index in [0, INT32_MAX).
  static GOAL_KERNELS_WARP Value<std::int64_t> pack(Value<std::int32_t> key, Value<std::int32_t> index) {
    // Shifting a negative number left is undefined on the host before C++20.
    const Value<std::uint64_t> high = convert<std::uint64_t>(convert<std::uint32_t>(key)) << 32;
    const Value<std::uint64_t> low = convert<std::uint64_t>(convert<std::uint32_t>(kMagnitude - index));
    return convert<std::int64_t>(high | low);
  }
};

}  // namespace goal_kernels::cuda
