// Rows of any element type, read and written in lanes of the accumulate dtype T: a lane is a vector Vec<T>, or
// one T for the end of a row, so that one body serves both. Internal linkage, see types.h.
#pragma once

#include "lanes.h"

namespace goal_kernels {
namespace {

typedef std::uint16_t HalfBits __attribute__((vector_size(GOAL_KERNELS_VECTOR_BYTES / 2)));
typedef std::uint32_t FloatBits __attribute__((vector_size(GOAL_KERNELS_VECTOR_BYTES)));

// The bits of 16-bit elements, one per lane of 32 bits. GCC (12) widens and narrows vectors in halves, which
// takes twice as long as the instructions there are for it. (The forms with a mask avoid its false warnings.)
inline FloatBits load_bits(const void* source) {
  HalfBits bits;
  std::memcpy(&bits, source, sizeof bits);
#if defined(__AVX512F__)
  return (FloatBits)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)bits);
#elif defined(__AVX2__)
  return (FloatBits)_mm256_cvtepu16_epi32((__m128i)bits);
#else
  return __builtin_convertvector(bits, FloatBits);
#endif
}

inline void store_bits(void* target, FloatBits bits) {
#if defined(__AVX512F__)
  const HalfBits half = (HalfBits)_mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)bits);
#else
  const HalfBits half = __builtin_convertvector(bits, HalfBits);
#endif
  std::memcpy(target, &half, sizeof half);
}

inline FloatBits splat_bits(std::uint32_t value) { return value - FloatBits{}; }

// The elements at `source`, widened. The second argument only selects the lane.
template <typename Element, typename T>
inline T load_wide(const Element* source, T) {
  return widen(*source);
}
inline Vec<float> load_wide(const float* source, Vec<float>) { return load<Vec<float>>(source); }
inline Vec<double> load_wide(const double* source, Vec<double>) { return load<Vec<double>>(source); }
inline Vec<float> load_wide(const bfloat16* source, Vec<float>) {
  return (Vec<float>)(load_bits(source) << 16);
}
inline Vec<float> load_wide(const float16* source, Vec<float>) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_maskz_cvtph_ps(0xffff, load<__m256i>(source));
#else
  const FloatBits bits = load_bits(source), magnitude = bits & 0x7fffu;
  const Vec<float> tiny = __builtin_convertvector((IntVec<float>)magnitude, Vec<float>) * 0x1p-24f;
  const FloatBits rebias = magnitude >= 0x7c00u ? splat_bits(0x70000000u) : splat_bits(0x38000000u);
  const FloatBits normal = (magnitude << 13) + rebias;
  return (Vec<float>)((bits & 0x8000u) << 16 | (magnitude < 0x0400u ? (FloatBits)tiny : normal));
#endif
}

// Writes a lane to `target`, rounded as `narrow` of types.h rounds.
template <typename Element, typename T>
inline void store_narrow(Element* target, T value) {
  narrow(value, *target);
}
inline void store_narrow(float* target, Vec<float> value) { store(target, value); }
inline void store_narrow(double* target, Vec<double> value) { store(target, value); }
// To nearest, ties to even; not for NaN.
inline Vec<float> round_to_bfloat16(Vec<float> value) {
  const FloatBits bits = (FloatBits)value;
  return (Vec<float>)((bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u);
}
inline void store_narrow(bfloat16* target, Vec<float> value) {
  const FloatBits rounded = (FloatBits)round_to_bfloat16(value) >> 16;
  store_bits(target, ((FloatBits)value & 0x7fffffffu) > 0x7f800000u ? splat_bits(0x7fc0u) : rounded);
}
inline void store_narrow(float16* target, Vec<float> value) {
#if defined(__AVX512F__)
  constexpr int kNearestEven = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  store(target, _mm512_maskz_cvtps_ph(0xffff, (__m512)value, kNearestEven));
#else
  const FloatBits bits = (FloatBits)value, magnitude = bits & 0x7fffffffu;
  const FloatBits subnormal = (FloatBits)((Vec<float>)magnitude + 0.5f) - 0x3f000000u;
  const FloatBits normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  FloatBits result = magnitude < 0x38800000u ? subnormal : normal;
  result = magnitude >= 0x477ff000u ? splat_bits(0x7c00u) : result;
  result = magnitude > 0x7f800000u ? splat_bits(0x7e00u) : result;
  store_bits(target, (bits >> 16 & 0x8000u) | result);
#endif
}

// out[d] = value(d, lane) for every column d < width, where `lane` says how many columns are asked for.
template <typename T, typename Element, typename Value>
inline void write_row(std::int64_t width, Element* out, const Value& value) {
  constexpr int kCount = Lanes<T>::count;
  const std::int64_t whole = width / kCount * kCount;
  for (std::int64_t d = 0; d < whole; d += kCount) store_narrow(out + d, value(d, Vec<T>{}));
  for (std::int64_t d = whole; d < width; ++d) store_narrow(out + d, value(d, T{}));
}

}  // namespace
}  // namespace goal_kernels
