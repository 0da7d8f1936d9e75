// Loading vectors of any element type as vectors of the accumulate dtype. Internal linkage, see types.h.
#pragma once

#include "lanes.h"

namespace goal_kernels {
namespace {

// The bits of 16-bit elements, one per lane of 32 bits.
inline Lanes<float>::Int load_bits(const void* source) {
  typedef std::uint16_t Half __attribute__((vector_size(GOAL_KERNELS_VECTOR_BYTES / 2)));
  Half bits;
  std::memcpy(&bits, source, sizeof bits);
#if defined(__AVX512F__) && GOAL_KERNELS_VECTOR_BYTES == 64
  // GCC 12 widens in pieces unless told of the instruction, and warns of its unmasked form.
  return (Lanes<float>::Int)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)bits);
#else
  return __builtin_convertvector(bits, Lanes<float>::Int);
#endif
}

template <typename T>
inline Vec<T> load_wide(const T* source) {
  return load<Vec<T>>(source);
}

template <typename T>
inline Vec<float> load_wide(const bfloat16* source) {
  return (Vec<float>)(load_bits(source) << 16);
}

// As `widen` of types.h.
template <typename T>
inline Vec<float> load_wide(const float16* source) {
#if defined(__AVX512F__) && GOAL_KERNELS_VECTOR_BYTES == 64
  // It widens subnormal halves whatever the process flushes.
  return _mm512_maskz_cvtph_ps(0xffff, load<__m256i>(source));
#else
  const IntVec<float> bits = load_bits(source);
  const IntVec<float> sign = (bits & 0x8000) << 16, magnitude = bits & 0x7fff;
  const Vec<float> tiny = __builtin_convertvector(magnitude, Vec<float>) * 0x1p-24f;
  const IntVec<float> special = (IntVec<float>)(magnitude >= 0x7c00);
  const IntVec<float> rebias = special ? splat_int<float>(0x70000000) : splat_int<float>(0x38000000);
  const IntVec<float> subnormal = (IntVec<float>)(magnitude < 0x0400);
  return (Vec<float>)(sign | (subnormal ? (IntVec<float>)tiny : (magnitude << 13) + rebias));
#endif
}

}  // namespace
}  // namespace goal_kernels
