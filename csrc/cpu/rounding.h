// Bounds on the rounding of sums of products. Internal linkage and no std functions, see types.h.
#pragma once

#include <cstdint>

namespace goal_kernels {
namespace {

// A sum whose terms are each rounded at most `roundings` times in T lies within this multiple of the sum of
// the terms' magnitudes: (1 + u)^n - 1 <= n u / (1 - n u). Infinite where that says nothing.
template <typename T>
constexpr double rounding_error(std::int64_t roundings) {
  const double total = double(roundings) * (sizeof(T) == sizeof(float) ? 0x1p-24 : 0x1p-53);
  return total < 1 ? total / (1 - total) : __builtin_inf();
}

}  // namespace
}  // namespace goal_kernels
