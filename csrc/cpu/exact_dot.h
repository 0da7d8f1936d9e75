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

// The next Lanes<float>::count values of a row, widened, as two vectors.
struct DoublePair {
  Vec<double> part[2];
};

inline DoublePair load_doubles(const double* source) {
  return {{load<Vec<double>>(source), load<Vec<double>>(source + Lanes<double>::count)}};
}

template <typename Element>
inline DoublePair load_doubles(const Element* source) {
  typedef float Half __attribute__((vector_size(GOAL_KERNELS_VECTOR_BYTES / 2)));
  const Vec<float> wide = load_wide<float>(source);
  Half half[2];
  std::memcpy(half, &wide, sizeof wide);
  return {{__builtin_convertvector(half[0], Vec<double>), __builtin_convertvector(half[1], Vec<double>)}};
}

template <typename Element>
double exact_dot_of(const Element* left, const Element* right, std::int64_t width) {
  constexpr int count = Lanes<float>::count, vectors = kExactChains / Lanes<double>::count;
  Vec<double> sum[vectors] = {};
  const auto add_chunk = [&](const Element* a, const Element* b) {
#pragma GCC unroll 8
    for (int v = 0; v < vectors / 2; ++v) {
      const DoublePair x = load_doubles(a + v * count), y = load_doubles(b + v * count);
      sum[2 * v] += x.part[0] * y.part[0];
      sum[2 * v + 1] += x.part[1] * y.part[1];
    }
  };
  const std::int64_t whole = width / kExactChains * kExactChains;
  for (std::int64_t d = 0; d < whole; d += kExactChains) add_chunk(left + d, right + d);
  if (whole < width) {
    const std::size_t bytes = static_cast<std::size_t>(width - whole) * sizeof(Element);
    Element rest[2][kExactChains] = {};
    std::memcpy(rest[0], left + whole, bytes);
    std::memcpy(rest[1], right + whole, bytes);
    add_chunk(rest[0], rest[1]);
  }
#pragma GCC unroll 4
  for (int half = vectors / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (int v = 0; v < half; ++v) sum[v] += sum[v + half];
  return add_lanes<double>(sum[0]);
}

// <row i of a, row j of b> without scales. Same dtype and width. T: the accumulate dtype.
template <typename T>
double exact_dot(const Matrix& a, std::int64_t i, const Matrix& b, std::int64_t j) {
  double result = 0;
  with_element<T>(a.dtype, [&](auto element) {
    using Element = std::remove_const_t<std::remove_pointer_t<decltype(element)>>;
    result = exact_dot_of(static_cast<const Element*>(a.data) + i * a.stride,
                          static_cast<const Element*>(b.data) + j * b.stride, a.width);
  });
  return result;
}

}  // namespace
}  // namespace goal_kernels
