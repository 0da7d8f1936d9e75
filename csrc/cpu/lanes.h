// Vectors of the width this translation unit is compiled for (GOAL_KERNELS_VECTOR_BYTES), as compiler vector
// extensions: the same source gives SSE2, AVX2, AVX-512 or NEON code. Internal linkage, see types.h.
#pragma once

#include <cstring>

#include "types.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace goal_kernels {
namespace {

template <typename T>
struct Lanes {
  static constexpr int count = GOAL_KERNELS_VECTOR_BYTES / static_cast<int>(sizeof(T));
  typedef T Vec __attribute__((vector_size(GOAL_KERNELS_VECTOR_BYTES)));
  typedef Integer<T> Int __attribute__((vector_size(GOAL_KERNELS_VECTOR_BYTES)));  // also masks: 0 or -1
};
template <typename T>
using Vec = typename Lanes<T>::Vec;
template <typename T>
using IntVec = typename Lanes<T>::Int;

template <typename V, typename Scalar>
inline V load(const Scalar* source) {
  V value;
  std::memcpy(&value, source, sizeof value);
  return value;
}

template <typename V, typename Scalar>
inline void store(Scalar* target, V value) {
  std::memcpy(target, &value, sizeof value);
}

// x - 0 keeps the sign of a zero, x + 0 would not.
template <typename T>
inline Vec<T> splat(T value) {
  return value - Vec<T>{};
}

template <typename T>
inline IntVec<T> splat_int(Integer<T> value) {
  return value - IntVec<T>{};
}

template <typename T>
inline IntVec<T> lane_numbers() {
  IntVec<T> result;
  for (int lane = 0; lane < Lanes<T>::count; ++lane) result[lane] = lane;
  return result;
}

// Whether any lane of a mask (lanes 0 or -1, nothing else) is set.
template <typename Mask>
inline bool any(Mask mask) {
#if defined(__AVX512F__)
  __m512i raw;
  std::memcpy(&raw, &mask, sizeof raw);
  return _mm512_test_epi32_mask(raw, raw) != 0;
#elif defined(__AVX2__)
  __m256i raw;
  std::memcpy(&raw, &mask, sizeof raw);
  return _mm256_testz_si256(raw, raw) == 0;
#elif defined(__SSE2__)
  __m128i raw;
  std::memcpy(&raw, &mask, sizeof raw);
  return _mm_movemask_epi8(raw) != 0;
#else
  bool result = false;
  for (std::size_t lane = 0; lane < sizeof mask / sizeof mask[0]; ++lane) result |= mask[lane] != 0;
  return result;
#endif
}

// Sum of all lanes, pairwise, in the lane type. V is Vec or IntVec.
template <typename T, typename V>
inline auto add_lanes(V value) {
  decltype(value[0] + value[0]) part[Lanes<T>::count];
  for (int lane = 0; lane < Lanes<T>::count; ++lane) part[lane] = value[lane];
  for (int half = Lanes<T>::count / 2; half > 0; half /= 2)
    for (int lane = 0; lane < half; ++lane) part[lane] += part[lane + half];
  return part[0];
}

template <typename T>
struct ExpConstants;
template <>
struct ExpConstants<float> {
  using Bits = std::uint32_t;
  static constexpr int degree = 7;  // remainder 0.347^8 / 8! = 5e-9
  static constexpr int mantissa_bits = 23;
  static constexpr float round = 0x1.8p23f;     // adding it leaves the integer part in the low bits
  static constexpr float lowest = -87.0f;       // exp of it is still a normal number
  static constexpr float ln2_high = 0x1.62ep-1f;  // 12 bits: exact times any exponent
  static constexpr float ln2_low = 0x1.0bfbe8p-15f;
};
template <>
struct ExpConstants<double> {
  using Bits = std::uint64_t;
  static constexpr int degree = 13;  // remainder 0.347^14 / 14! = 4e-18
  static constexpr int mantissa_bits = 52;
  static constexpr double round = 0x1.8p52;
  static constexpr double lowest = -708.0;
  static constexpr double ln2_high = 0x1.62e42fefap-1;
  static constexpr double ln2_low = 0x1.cf79abc9e3b3ap-40;
};

// exp(x) for x <= 0 within about 2 ulp; 0 below the range of normal numbers; NaN stays NaN.
template <typename T>
inline Vec<T> exp_nonpositive(Vec<T> x) {
  using C = ExpConstants<T>;
  typedef typename C::Bits BitVec __attribute__((vector_size(GOAL_KERNELS_VECTOR_BYTES)));
  const IntVec<T> under = (IntVec<T>)(x < C::lowest);
  const Vec<T> clamped = under ? splat<T>(C::lowest) : x;
  const Vec<T> shifted = clamped * static_cast<T>(1.4426950408889634) + C::round;
  const Vec<T> exponent = shifted - C::round;
  const Vec<T> rest = clamped - exponent * C::ln2_high - exponent * C::ln2_low;
  Vec<T> series = splat<T>(1);
  for (int n = C::degree; n > 0; --n) series = series * (rest * (T(1) / T(n))) + T(1);
  const BitVec power = ((BitVec)shifted << C::mantissa_bits) + (BitVec)splat<T>(1);
  return under ? Vec<T>{} : series * (Vec<T>)power;
}

}  // namespace
}  // namespace goal_kernels
