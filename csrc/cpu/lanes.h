// Vectors of the width this translation unit is compiled for (GOAL_KERNELS_VECTOR_BYTES), as compiler vector
// extensions: the same source gives SSE2, AVX2, AVX-512 or NEON code. Internal linkage, see types.h.
#pragma once

#include <cstring>
#include <utility>

#include "types.h"

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define GOAL_KERNELS_HAS_SHUFFLEVECTOR 1
#endif
#endif

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace goal_kernels {
namespace {

template <typename T>
struct Lanes {
  static constexpr int count = GOAL_KERNELS_VECTOR_BYTES / static_cast<int>(sizeof(T));
  typedef T Vec __attribute__((vector_size(GOAL_KERNELS_VECTOR_BYTES)));
  typedef Integer<T> Int __attribute__((vector_size(GOAL_KERNELS_VECTOR_BYTES)));
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

// One truth value per lane: a mask register where the instruction set has them, else lanes of 0 or -1.
#if defined(__AVX512F__) && GOAL_KERNELS_VECTOR_BYTES == 64
template <typename T>
struct MaskOf;
template <>
struct MaskOf<float> {
  using type = __mmask16;
};
template <>
struct MaskOf<double> {
  using type = __mmask8;
};
template <typename T>
using Mask = typename MaskOf<T>::type;

template <typename T>
inline Mask<T> no_lanes() {
  return 0;
}
template <typename T>
inline Mask<T> all_lanes() {
  return static_cast<Mask<T>>(~0u);
}
inline __mmask16 at_most(__m512 a, __m512 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
inline __mmask8 at_most(__m512d a, __m512d b) { return _mm512_cmp_pd_mask(a, b, _CMP_LE_OQ); }
inline __mmask16 equal(__m512 a, __m512 b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
inline __mmask8 equal(__m512d a, __m512d b) { return _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ); }
inline __mmask16 less(__m512 a, __m512 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
inline __mmask8 less(__m512d a, __m512d b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ); }
inline __mmask16 less(IntVec<float> a, IntVec<float> b) {
  return _mm512_cmplt_epi32_mask((__m512i)a, (__m512i)b);
}
inline __mmask8 less(IntVec<double> a, IntVec<double> b) {
  return _mm512_cmplt_epi64_mask((__m512i)a, (__m512i)b);
}
inline __mmask16 equal(IntVec<float> a, IntVec<float> b) {
  return _mm512_cmpeq_epi32_mask((__m512i)a, (__m512i)b);
}
inline __mmask8 equal(IntVec<double> a, IntVec<double> b) {
  return _mm512_cmpeq_epi64_mask((__m512i)a, (__m512i)b);
}
inline __m512 select(__mmask16 mask, __m512 yes, __m512 no) { return _mm512_mask_blend_ps(mask, no, yes); }
inline __m512d select(__mmask8 mask, __m512d yes, __m512d no) { return _mm512_mask_blend_pd(mask, no, yes); }
inline IntVec<float> select(__mmask16 mask, IntVec<float> yes, IntVec<float> no) {
  return (IntVec<float>)_mm512_mask_blend_epi32(mask, (__m512i)no, (__m512i)yes);
}
inline IntVec<double> select(__mmask8 mask, IntVec<double> yes, IntVec<double> no) {
  return (IntVec<double>)_mm512_mask_blend_epi64(mask, (__m512i)no, (__m512i)yes);
}
template <typename M>
inline bool any(M mask) {
  return mask != 0;
}
template <typename M>
inline int first_lane(M mask) {
  return __builtin_ctz(mask);
}
template <int kCount>
inline void store_first(__m512 value, float* out) {
  _mm512_mask_storeu_ps(out, static_cast<__mmask16>((1u << kCount) - 1), value);
}
template <int kCount>
inline void store_first(__m512d value, double* out) {
  _mm512_mask_storeu_pd(out, static_cast<__mmask8>((1u << kCount) - 1), value);
}
inline int store_lanes(__mmask16 mask, __m512 value, float* out) {
  _mm512_storeu_ps(out, _mm512_maskz_compress_ps(mask, value));
  return __builtin_popcount(mask);
}
inline int store_lanes(__mmask8 mask, __m512d value, double* out) {
  _mm512_storeu_pd(out, _mm512_maskz_compress_pd(mask, value));
  return __builtin_popcount(mask);
}
inline int store_lanes(__mmask16 mask, IntVec<float> value, std::int32_t* out) {
  _mm512_storeu_si512(out, _mm512_maskz_compress_epi32(mask, (__m512i)value));
  return __builtin_popcount(mask);
}
inline int store_lanes(__mmask8 mask, IntVec<double> value, std::int64_t* out) {
  _mm512_storeu_si512(out, _mm512_maskz_compress_epi64(mask, (__m512i)value));
  return __builtin_popcount(mask);
}
#else
template <typename T>
using Mask = IntVec<T>;

template <typename T>
inline Mask<T> no_lanes() {
  return Mask<T>{};
}
template <typename T>
inline Mask<T> all_lanes() {
  return ~Mask<T>{};
}
template <typename V>
inline auto at_most(V a, V b) {
  return a <= b;
}
template <typename V>
inline auto equal(V a, V b) {
  return a == b;
}
template <typename V>
inline auto less(V a, V b) {
  return a < b;
}
template <typename M, typename V>
inline V select(M mask, V yes, V no) {
  return mask ? yes : no;
}
template <typename M>
inline bool any(M mask) {
#if defined(__AVX2__)
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
// Number of the lowest lane that is set; one must be.
template <typename M>
inline int first_lane(M mask) {
  int lane = 0;
  while (mask[lane] == 0) ++lane;
  return lane;
}
// Stores the first kCount lanes.
template <int kCount, typename V, typename Scalar>
inline void store_first(V value, Scalar* out) {
  std::memcpy(out, &value, kCount * sizeof(Scalar));
}
// Stores the lanes that are set next to each other; returns how many. `out` has room for a whole vector.
template <typename M, typename V, typename Scalar>
inline int store_lanes(M mask, V value, Scalar* out) {
  int count = 0;
  if (any(mask))
    for (std::size_t lane = 0; lane < sizeof mask / sizeof mask[0]; ++lane)
      if (mask[lane] != 0) out[count++] = value[lane];
  return count;
}
#endif

// The truth values as bits, lane 0 lowest.
template <typename T>
inline unsigned lane_bits(Mask<T> mask) {
#if defined(__AVX512F__) && GOAL_KERNELS_VECTOR_BYTES == 64
  return mask;
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == sizeof(float)) return unsigned(_mm256_movemask_ps((__m256)mask));
  return unsigned(_mm256_movemask_pd((__m256d)mask));
#elif defined(__SSE2__)
  if constexpr (sizeof(T) == sizeof(float)) return unsigned(_mm_movemask_ps((__m128)mask));
  return unsigned(_mm_movemask_pd((__m128d)mask));
#else
  unsigned bits = 0;
  for (int lane = 0; lane < Lanes<T>::count; ++lane) bits |= unsigned(mask[lane] != 0) << lane;
  return bits;
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

// Lanes of the two vectors in turn, from their lower (kPart 0) or upper (kPart 1) halves.
template <int kPart, typename V, int... kLane>
inline V interleave(V a, V b, std::integer_sequence<int, kLane...>) {
  constexpr int count = sizeof...(kLane);
#if GOAL_KERNELS_HAS_SHUFFLEVECTOR
  return __builtin_shufflevector(a, b, (kPart * count / 2 + kLane / 2 + kLane % 2 * count)...);
#else
  decltype(a > b) order = {(kPart * count / 2 + kLane / 2 + kLane % 2 * count)...};
  return __builtin_shuffle(a, b, order);
#endif
}

template <int kPart, typename T, typename V>
inline V interleave(V a, V b) {
  return interleave<kPart>(a, b, std::make_integer_sequence<int, Lanes<T>::count>{});
}

// The largest lane, in all lanes. Lanes may be infinite but not NaN.
template <typename T>
inline Vec<T> largest_lane(Vec<T> value) {
#pragma GCC unroll 4
  for (int rest = Lanes<T>::count; rest > 1; rest /= 2) {
    const Vec<T> low = interleave<0, T>(value, value), high = interleave<1, T>(value, value);
    value = select(less(low, high), high, low);
  }
  return value;
}

// Transposes a square of lanes: log2(count) perfect shuffles of the rows. V is Vec or IntVec.
template <typename T, typename V>
inline void transpose(V (&square)[Lanes<T>::count]) {
  constexpr int count = Lanes<T>::count;
#pragma GCC unroll 4
  for (int step = 1; step < count; step *= 2) {
    V next[count];
#pragma GCC unroll 16
    for (int i = 0; i < count / 2; ++i) {
      next[2 * i] = interleave<0, T>(square[i], square[i + count / 2]);
      next[2 * i + 1] = interleave<1, T>(square[i], square[i + count / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < count; ++i) square[i] = next[i];
  }
}

// Lane i of the result is the sum of the lanes of row i, pairwise. V is Vec or IntVec.
template <typename T, typename V>
inline V row_sums(V (&square)[Lanes<T>::count]) {
  constexpr int count = Lanes<T>::count;
#pragma GCC unroll 4
  for (int rows = count / 2; rows > 0; rows /= 2)
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i)
      square[i] = interleave<0, T>(square[i], square[i + rows]) +
                  interleave<1, T>(square[i], square[i + rows]);
  return square[0];
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

// Coefficients 1 / n! of the Taylor series.
template <typename T>
constexpr T inverse_factorial(int n) {
  T product = 1;
  for (int k = 2; k <= n; ++k) product *= T(k);
  return T(1) / product;
}

// exp(x) for |x| <= -lowest within about 2 ulp; something, but no trap, for every other x.
template <typename T>
inline Vec<T> exp_in_range(Vec<T> x) {
  using C = ExpConstants<T>;
  typedef typename C::Bits BitVec __attribute__((vector_size(GOAL_KERNELS_VECTOR_BYTES)));
  const Vec<T> shifted = x * static_cast<T>(1.4426950408889634) + C::round;
  const Vec<T> exponent = shifted - C::round;
  const Vec<T> rest = x - exponent * C::ln2_high - exponent * C::ln2_low;
  Vec<T> series = splat<T>(inverse_factorial<T>(C::degree));
#pragma GCC unroll 16
  for (int n = C::degree - 1; n >= 0; --n) series = series * rest + inverse_factorial<T>(n);
  return (Vec<T>)((BitVec)series + ((BitVec)shifted << C::mantissa_bits));
}

// exp(x) for x <= -lowest within about 2 ulp; 0 below the range of normal numbers; NaN stays NaN.
template <typename T>
inline Vec<T> exp_flushed(Vec<T> x) {
  const T lowest = ExpConstants<T>::lowest;
  const Mask<T> under = less(x, splat<T>(lowest));
  const Vec<T> result = exp_in_range<T>(select(under, splat<T>(lowest), x));
  return select(under, Vec<T>{}, select(equal(x, x), result, x));
}

}  // namespace
}  // namespace goal_kernels
