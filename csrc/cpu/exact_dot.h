// Dot products in double of rows of any type: what a score is defined by. Internal linkage, see types.h.
#pragma once

#include "packing.h"
#include "wide_lanes.h"

namespace goal_kernels {
namespace {

// Independent chains, added pairwise at the end. Fixed, so that every instruction set adds in the same order:
// products of float and 16-bit values are exact in double, and results then equal bit for bit.
constexpr int kExactChains = 32;

// A term is rounded by its product, by each addition of its chain and while the chains are added.
constexpr std::int64_t exact_dot_roundings(std::int64_t width) { return width / kExactChains + 7; }

typedef float HalfVec __attribute__((vector_size(GOAL_KERNELS_VECTOR_BYTES / 2)));

// GCC 12 converts wide vectors in pieces unless told of the instruction, and warns of its unmasked form.
inline Vec<double> to_double(HalfVec values) {
#if defined(__AVX512F__) && GOAL_KERNELS_VECTOR_BYTES == 64
  return _mm512_maskz_cvtps_pd(0xff, values);
#else
  return __builtin_convertvector(values, Vec<double>);
#endif
}

// The next Lanes<float>::count values of a row, widened, as two vectors.
struct DoublePair {
  Vec<double> part[2];
};

inline DoublePair load_doubles(const double* source) {
  return {{load<Vec<double>>(source), load<Vec<double>>(source + Lanes<double>::count)}};
}

inline DoublePair load_doubles(const float* source) {
  return {{to_double(load<HalfVec>(source)), to_double(load<HalfVec>(source + Lanes<double>::count))}};
}

template <typename Element>
inline DoublePair load_doubles(const Element* source) {
  const Vec<float> wide = load_wide(source, Vec<float>{});
  HalfVec half[2];
  std::memcpy(half, &wide, sizeof wide);
  return {{to_double(half[0]), to_double(half[1])}};
}

// Dot products taken at a time: what they share is widened once, and the registers hold their chains.
constexpr int kTogether = GOAL_KERNELS_VECTOR_BYTES == 64 ? 4 : 1;

// The chains of kCount dot products of one row with others.
template <int kCount, typename Element>
struct ExactChains {
  static constexpr int kLanes = Lanes<float>::count;
  static constexpr int kVectors = kExactChains / Lanes<double>::count;

  Vec<double> sum[kCount][kVectors] = {};

  void add(const Element* left, const Element* const (&right)[kCount], std::int64_t begin) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors / 2; ++v) {
      const DoublePair x = load_doubles(left + begin + v * kLanes);
#pragma GCC unroll 4
      for (int i = 0; i < kCount; ++i) {
        const DoublePair y = load_doubles(right[i] + begin + v * kLanes);
        sum[i][2 * v] += x.part[0] * y.part[0];
        sum[i][2 * v + 1] += x.part[1] * y.part[1];
      }
    }
  }

  double total(int i) {
#pragma GCC unroll 4
    for (int half = kVectors / 2; half > 0; half /= 2)
#pragma GCC unroll 8
      for (int v = 0; v < half; ++v) sum[i][v] += sum[i][v + half];
    return add_lanes<double>(sum[i][0]);
  }
};

// out[i] = <left, right[i]>. Each is the same whatever the others are.
template <int kCount, typename Element>
void exact_dots_of(const Element* left, const Element* const (&right)[kCount], std::int64_t width,
                   double* out) {
  ExactChains<kCount, Element> chains;
  const std::int64_t whole = width / kExactChains * kExactChains;
  for (std::int64_t d = 0; d < whole; d += kExactChains) chains.add(left, right, d);
  if (whole < width) {
    const std::size_t bytes = static_cast<std::size_t>(width - whole) * sizeof(Element);
    Element rest[1 + kCount][kExactChains] = {};
    const Element* rest_of[kCount];
    std::memcpy(rest[0], left + whole, bytes);
    for (int i = 0; i < kCount; ++i) {
      std::memcpy(rest[1 + i], right[i] + whole, bytes);
      rest_of[i] = rest[1 + i];
    }
    chains.add(rest[0], rest_of, 0);
  }
  for (int i = 0; i < kCount; ++i) out[i] = chains.total(i);
}

// out[i] = <row of a, row b_rows[i] of b>, without scales. Same dtype and width. T: the accumulate dtype.
template <typename T, int kCount>
void exact_dots(const Matrix& a, std::int64_t row, const Matrix& b, const std::int64_t (&b_rows)[kCount],
                double* out) {
  with_element<T>(a.dtype, [&](auto element) {
    using Element = decltype(element);
    const Element* right[kCount];
    for (int i = 0; i < kCount; ++i) right[i] = static_cast<const Element*>(b.data) + b_rows[i] * b.stride;
    exact_dots_of(static_cast<const Element*>(a.data) + row * a.stride, right, a.width, out);
  });
}

template <typename T>
double exact_dot(const Matrix& a, std::int64_t i, const Matrix& b, std::int64_t j) {
  double result;
  exact_dots<T, 1>(a, i, b, {j}, &result);
  return result;
}

}  // namespace
}  // namespace goal_kernels
