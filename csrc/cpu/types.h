// Plain data shared by every translation unit of the CPU backend: element types, matrices, widening
// and narrowing. No torch, no allocation. The functions have internal linkage on purpose: this header is
// compiled once per instruction set, and a shared inline symbol could put AVX-512 code on the portable path.
#pragma once

#include <cstdint>
#include <cstring>

namespace goal_kernels {

enum class Dtype { float32, float64, bfloat16, float16 };

struct bfloat16 {
  std::uint16_t bits;
};

struct float16 {
  std::uint16_t bits;
};

// Signed integer as wide as T, so that indices and values share vector lanes.
template <typename T>
struct IntegerOf;
template <>
struct IntegerOf<float> {
  using type = std::int32_t;
};
template <>
struct IntegerOf<double> {
  using type = std::int64_t;
};
template <typename T>
using Integer = typename IntegerOf<T>::type;

// A [rows, width] matrix: row stride in elements, elements of a row adjacent. `across` only where a job says so.
struct Matrix {
  const void* data;
  Dtype dtype;
  std::int64_t rows;
  std::int64_t stride;
  std::int64_t width;
  const void* scale = nullptr;  // [rows], multiplies each row; accumulate dtype; null: 1
  bool across = false;          // stored transposed, as [width, rows] with `stride` from k to k + 1; no scale
};

namespace {

inline float float_from_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline std::uint32_t bits_from_float(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Widening is exact.
inline float widen(float value) { return value; }
inline double widen(double value) { return value; }
inline float widen(bfloat16 value) {
  return float_from_bits(static_cast<std::uint32_t>(value.bits) << 16);
}
inline float widen(float16 value) {
  const std::uint32_t sign = (value.bits & 0x8000u) << 16;
  const std::uint32_t magnitude = value.bits & 0x7fffu;
  // Subnormal halves go through an integer conversion: a float subnormal would be lost if the process
  // flushes denormals to zero.
  const float tiny = static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24f;
  const std::uint32_t rebias = magnitude >= 0x7c00u ? 0x70000000u : 0x38000000u;
  const std::uint32_t normal = (magnitude << 13) + rebias;
  return float_from_bits(sign | (magnitude < 0x0400u ? bits_from_float(tiny) : normal));
}

// Narrowing rounds to nearest, ties to even, as torch does; NaN stays NaN.
inline void narrow(float value, float& out) { out = value; }
inline void narrow(double value, double& out) { out = value; }
inline void narrow(float value, bfloat16& out) {
  const std::uint32_t bits = bits_from_float(value);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  out.bits = static_cast<std::uint16_t>(value != value ? 0x7fc0u : rounded);
}
inline void narrow(float value, float16& out) {
  const std::uint32_t bits = bits_from_float(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  // Adding 0.5 aligns the last bit of a subnormal half (2^-24) with that of the sum, so the addition
  // itself rounds; what remains above the bits of 0.5 is the half's mantissa.
  const float aligned = float_from_bits(magnitude) + 0.5f;
  const std::uint32_t subnormal = bits_from_float(aligned) - 0x3f000000u;
  const std::uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  std::uint32_t result = magnitude < 0x38800000u ? subnormal : normal;
  result = magnitude >= 0x477ff000u ? 0x7c00u : result;  // 65520 and above round to infinity
  result = magnitude > 0x7f800000u ? 0x7e00u : result;
  out.bits = static_cast<std::uint16_t>(sign | result);
}

// Of an element.
inline std::int64_t element_bytes(Dtype dtype) {
  if (dtype == Dtype::float64) return sizeof(double);
  return dtype == Dtype::float32 ? sizeof(float) : sizeof(std::uint16_t);
}

// body(Element{}) for the element type behind `dtype` when accumulating in T.
template <typename T, typename Body>
inline auto with_element(Dtype dtype, const Body& body) {
  if constexpr (sizeof(T) == sizeof(double)) {
    return body(double{});
  } else {
    if (dtype == Dtype::float32) return body(float{});
    if (dtype == Dtype::bfloat16) return body(bfloat16{});
    return body(float16{});
  }
}

}  // namespace
}  // namespace goal_kernels
