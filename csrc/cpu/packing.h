// From rows of a matrix to packed operands: values converted, scaled and, where the product wants the
// rows of a group side by side, transposed in registers. Internal linkage, see types.h.
#pragma once

#include <cstring>
#include <type_traits>

#include "lanes.h"

namespace goal_kernels {
namespace {

// Two neighbouring bfloat16 values of a row, which bfloat16 products take together.
struct alignas(4) BfloatPair {
  bfloat16 value[2];
};

template <typename Packed>
struct Packing {
  using Accumulator = Packed;
  using Value = Packed;
};
template <>
struct Packing<BfloatPair> {
  using Accumulator = float;
  using Value = bfloat16;
};

// to[k] = factor * from[k], rounded to the type of `to`.
template <typename Value, typename Source, typename Accumulator>
inline void convert(const Source* from, std::int64_t count, Accumulator factor, Value* to) {
  for (std::int64_t k = 0; k < count; ++k) narrow(factor * widen(from[k]), to[k]);
}

// Rows of a matrix as the packing loops see them.
template <typename Source, typename Accumulator>
struct SourceRows {
  const Source* data;
  std::int64_t stride;
  const Accumulator* scale;  // of row 0, or null
  std::int64_t width;

  SourceRows(const Matrix& matrix, std::int64_t first)
      : data(static_cast<const Source*>(matrix.data) + first * matrix.stride),
        stride(matrix.stride),
        scale(matrix.scale == nullptr ? nullptr
                                      : static_cast<const Accumulator*>(matrix.scale) + first),
        width(matrix.width) {}

  // Values [begin, begin + kRoom) of a row, zeros beyond its end; bit for bit if type and scale stay.
  template <int kRoom, typename Value>
  void read(std::int64_t row, std::int64_t begin, Value (&to)[kRoom]) const {
    const Source* from = data + row * stride + begin;
    const std::int64_t left = width - begin;
    const Accumulator factor = scale == nullptr ? Accumulator(1) : scale[row];
    if (left < kRoom) {
      std::memset(to, 0, sizeof to);
      convert(from, left, factor, to);
    } else if (std::is_same_v<Value, Source> && scale == nullptr) {
      std::memcpy(to, from, sizeof to);
    } else {
      convert(from, kRoom, factor, to);
    }
  }
};

// One vector of units of every row of a group from row kPart on, transposed: `run` of the lines [kGroup] at
// `out`, from their column kPart on.
template <typename Packed, int kGroup, int kPart, typename Rows>
inline void pack_squares(const Rows& rows, std::int64_t count, std::int64_t begin, int run,
                         typename Packing<Packed>::Accumulator* out) {
  using Accumulator = typename Packing<Packed>::Accumulator;
  using Value = typename Packing<Packed>::Value;
  constexpr int lanes = Lanes<Accumulator>::count;
  constexpr int values = static_cast<int>(sizeof(Packed) / sizeof(Value));
  constexpr int width = kGroup - kPart < lanes ? kGroup - kPart : lanes;
  Vec<Accumulator> square[lanes] = {};
#pragma GCC unroll 16
  for (int lane = 0; lane < width; ++lane) {
    if (kPart + lane >= count) break;
    alignas(64) Value line[lanes * values];
    rows.read(kPart + lane, begin * values, line);
    square[lane] = load<Vec<Accumulator>>(line);
  }
  transpose<Accumulator>(square);
  for (int k = 0; k < run; ++k) store_first<width>(square[k], out + k * kGroup + kPart);
  if constexpr (kPart + lanes < kGroup)
    pack_squares<Packed, kGroup, kPart + lanes>(rows, count, begin, run, out);
}

// `count` rows from `first` on as [depth][kGroup] units of type Packed (a value or a pair of values of one
// row), zeros beyond the rows and beyond the width.
template <typename Packed, int kGroup>
void pack_transposed(const Matrix& matrix, std::int64_t first, std::int64_t count, void* packed) {
  using Accumulator = typename Packing<Packed>::Accumulator;
  constexpr int lanes = Lanes<Accumulator>::count;
  constexpr int values = sizeof(Packed) / sizeof(typename Packing<Packed>::Value);
  static_assert(sizeof(Packed) == sizeof(Accumulator), "one unit fills one lane");
  with_element<Accumulator>(matrix.dtype, [&](auto element) {
    using Source = decltype(element);
    const SourceRows<Source, Accumulator> rows(matrix, first);
    const std::int64_t depth = (matrix.width + values - 1) / values;
    Accumulator* out = static_cast<Accumulator*>(packed);
    for (std::int64_t begin = 0; begin < depth; begin += lanes) {
      const int run = static_cast<int>(depth - begin < lanes ? depth - begin : lanes);
      pack_squares<Packed, kGroup, 0>(rows, count, begin, run, out + begin * kGroup);
    }
  });
}

// Columns of a matrix that is stored across, as `pack_transposed` packs them: values as they lie, zeros beyond the
// columns.
template <typename T, int kGroup>
void pack_across_values(const Matrix& matrix, std::int64_t first, std::int64_t count, void* packed) {
  with_element<T>(matrix.dtype, [&](auto element) {
    using Source = decltype(element);
    const Source* from = static_cast<const Source*>(matrix.data) + first;
    T* out = static_cast<T*>(packed);
    for (std::int64_t k = 0; k < matrix.width; ++k, from += matrix.stride, out += kGroup) {
      std::memset(out, 0, kGroup * sizeof(T));
      for (std::int64_t c = 0; c < count; ++c) out[c] = T(widen(from[c]));
    }
  });
}

// The same as pairs of values of bfloat16 that are neighbours in the depth: for each of `pairs` kGroup of them are
// handed to `place`, zeros beyond the depth.
template <int kGroup, typename Place>
void pack_across_pairs(const Matrix& matrix, std::int64_t first, std::int64_t count, std::int64_t pairs,
                       const Place& place) {
  with_element<float>(matrix.dtype, [&](auto element) {
    using Source = decltype(element);
    const Source* const data = static_cast<const Source*>(matrix.data) + first;
    for (std::int64_t pair = 0; pair < pairs; ++pair) {
      bfloat16 line[2][kGroup] = {};
      for (std::int64_t half = 0; half < 2 && 2 * pair + half < matrix.width; ++half) {
        const Source* const from = data + (2 * pair + half) * matrix.stride;
        if constexpr (std::is_same_v<Source, bfloat16>)
          std::memcpy(line[half], from, static_cast<std::size_t>(count) * sizeof(bfloat16));
        else
          convert(from, count, 1.0f, line[half]);
      }
      std::uint32_t unit[kGroup];
      for (int c = 0; c < kGroup; ++c) unit[c] = line[0][c].bits | std::uint32_t(line[1][c].bits) << 16;
      place(pair, unit);
    }
  });
}

}  // namespace
}  // namespace goal_kernels
