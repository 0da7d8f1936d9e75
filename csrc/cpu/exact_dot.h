// Dot products in double of rows of any type: what a score is defined by. Internal linkage, see types.h.
#pragma once

#include "packing.h"

namespace goal_kernels {
namespace {

// Independent chains, added pairwise at the end. Fixed, so that every instruction set adds in the same order:
// products of float and 16-bit values are exact in double, and results then equal bit for bit.
constexpr int kExactChains = 32;

// A term is rounded by its product, by each addition of its chain and while the chains are added.
constexpr std::int64_t exact_dot_roundings(std::int64_t width) { return width / kExactChains + 7; }

// The next Lanes<double>::count values of a row, widened.
template <typename Element>
inline Vec<double> load_double(const Element* source) {
  constexpr int count = Lanes<double>::count;
  if constexpr (sizeof(Element) == sizeof(double)) {
    return load<Vec<double>>(source);
  } else {
    typedef float Half __attribute__((vector_size(count * sizeof(float))));
    Half values;
    if constexpr (sizeof(Element) == sizeof(float)) {
      std::memcpy(&values, source, sizeof values);
    } else {
      for (int lane = 0; lane < count; ++lane) values[lane] = widen(source[lane]);
    }
    return __builtin_convertvector(values, Vec<double>);
  }
}

template <typename Element>
double exact_dot_of(const Element* left, const Element* right, std::int64_t width) {
  constexpr int count = Lanes<double>::count, vectors = kExactChains / count;
  Vec<double> sum[vectors] = {};
  const auto add_chunk = [&](const Element* a, const Element* b) {
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v)
      sum[v] += load_double(a + v * count) * load_double(b + v * count);
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
