// Products on AMX tiles, 32 x 32 at a time: of bfloat16 values, or of float values split in two (bf16x3).
//
// Split: x = high + low with both bfloat16, so that x y is high high + high low + low high and an
// error of about 3 * 2^-16 |x| |y|. Values too large for bfloat16, infinities and NaN have low = 0; a product
// with an infinity is then infinite or NaN.
// Packed: for every 32 values of the depth one *step*: the tiles of the high parts of 32 rows or columns, for
// a split followed by those of the low parts. Tile registers: 0 to 3 sums, 4 and 5 rows, 6 and 7 columns.
// Subnormal inputs and sums count as zero. Internal linkage, see types.h.
#pragma once

#include "amx_tiles.h"
#include "packing.h"
#include "rounding.h"
#include "tile_kernel.h"

namespace goal_kernels {
namespace {

inline void split_float(float value, bfloat16& high, bfloat16& low) {
  narrow(value, high);
  const bool finite = (high.bits & 0x7f80u) != 0x7f80u;
  narrow(finite ? value - widen(high) : 0.0f, low);
}

template <bool kSplit>
struct AmxProduct {
  using Scalar = float;
  static constexpr int kRows = 2 * kAmxRows;
  static constexpr int kColumns = 2 * kAmxFloats;
  static constexpr int kVectors = kColumns / Lanes<float>::count;
  static constexpr int kDepthStep = kAmxBfloats;
  static constexpr int kParts = kSplit ? 2 : 1;
  static constexpr int kValueBytes = 2 * kParts;
  static constexpr int kStepBytes = 2 * kParts * kAmxTileBytes;
  static constexpr auto enter = amx_enter;
  static constexpr auto leave = amx_leave;

  // Whatever the order of the additions. Rounding to bfloat16 loses up to 2^-8 of a value, so a split loses
  // low low and the rests of both values, each at most 2^-16 of the product of the values and a little more,
  // and its terms add up to little more than theirs.
  static double error(std::int64_t width) {
    constexpr double lost = 3.1 * 0x1p-16, excess = 1 + 0x1p-5;
    if constexpr (kSplit) return lost + excess * rounding_error<float>(3 * width + 1);
    return rounding_error<float>(width + 1);
  }

  // Rows as they are: a tile of row factors holds 16 rows of 32 values.
  static void pack_rows(const Matrix& matrix, std::int64_t first, std::int64_t count, void* packed) {
    pack(matrix, first, count, packed, [](const bfloat16 (&line)[kAmxBfloats], int lane, char* tile) {
      std::memcpy(tile + lane * kAmxRowBytes, line, kAmxRowBytes);
    });
  }

  // Transposed by pairs: a tile of column factors holds 16 pairs of values of 16 columns.
  static void pack_columns(const Matrix& matrix, std::int64_t first, std::int64_t count, void* packed) {
    if constexpr (!kSplit) return pack_column_tiles(matrix, first, count, static_cast<char*>(packed));
    pack(matrix, first, count, packed, [](const bfloat16 (&line)[kAmxBfloats], int lane, char* tile) {
      for (int pair = 0; pair < kAmxRows; ++pair)
        std::memcpy(tile + pair * kAmxRowBytes + lane * 4, &line[2 * pair], 4);
    });
  }

  static void pack_across(const Matrix& matrix, std::int64_t first, std::int64_t count, void* packed) {
    static_assert(kColumns == 2 * kAmxFloats, "a step has two tiles of columns");
    const std::int64_t steps = (matrix.width + kDepthStep - 1) / kDepthStep;
    pack_across_pairs<kColumns>(
        matrix, first, count, steps * kAmxRows, [&](std::int64_t pair, const std::uint32_t (&unit)[kColumns]) {
          char* const row = static_cast<char*>(packed) + pair / kAmxRows * kStepBytes + pair % kAmxRows * kAmxRowBytes;
          for (int tile = 0; tile < 2; ++tile)
            std::memcpy(row + tile * kAmxTileBytes, unit + tile * kAmxFloats, kAmxRowBytes);
        });
  }

  // similarity [kRows][kColumns], 64-byte aligned.
  static void multiply(const TilePlace<float>& place, float* similarity) {
    const char* rows = static_cast<const char*>(place.packed_rows);
    const char* columns = static_cast<const char*>(place.packed_columns);
    amx_zero<0>();
    amx_zero<1>();
    amx_zero<2>();
    amx_zero<3>();
    for (std::int64_t begin = 0; begin < place.width; begin += kDepthStep) {
      if constexpr (kSplit) {
        load_rows(rows + 2 * kAmxTileBytes);
        load_columns(columns);
        multiply_loaded();  // low high
        load_rows(rows);
        multiply_loaded();  // high high
        load_columns(columns + 2 * kAmxTileBytes);
        multiply_loaded();  // high low
      } else {
        load_rows(rows);
        load_columns(columns);
        multiply_loaded();
      }
      rows += kStepBytes;
      columns += kStepBytes;
    }
    constexpr std::int64_t stride = kColumns * sizeof(float);
    amx_store<0>(similarity, stride);
    amx_store<1>(similarity + kAmxFloats, stride);
    amx_store<2>(similarity + kAmxRows * kColumns, stride);
    amx_store<3>(similarity + kAmxRows * kColumns + kAmxFloats, stride);
  }

 private:
  // In squares of lanes, transposed in registers.
  static void pack_column_tiles(const Matrix& matrix, std::int64_t first, std::int64_t count, char* packed) {
    constexpr int lanes = Lanes<float>::count;
    const std::int64_t pairs = (matrix.width + kDepthStep - 1) / kDepthStep * kAmxRows;
    with_element<float>(matrix.dtype, [&](auto element) {
      using Source = decltype(element);
      for (int tile = 0; tile < 2; ++tile) {
        const std::int64_t begin = tile * kAmxFloats, left = count - begin;
        const SourceRows<Source, float> rows(matrix, first + begin);
        for (std::int64_t pair = 0; pair < pairs; pair += lanes) {
          char* const step = packed + pair / kAmxRows * kStepBytes + tile * kAmxTileBytes;
          float* const out = reinterpret_cast<float*>(step + pair % kAmxRows * kAmxRowBytes);
          pack_squares<BfloatPair, kAmxFloats, 0>(rows, left, pair, lanes, out);
        }
      }
    });
  }

  static void load_rows(const char* step) {
    amx_load<4>(step);
    amx_load<5>(step + kAmxTileBytes);
  }

  static void load_columns(const char* step) {
    amx_load<6>(step);
    amx_load<7>(step + kAmxTileBytes);
  }

  static void multiply_loaded() {
    amx_multiply<0, 4, 6>();
    amx_multiply<1, 4, 7>();
    amx_multiply<2, 5, 6>();
    amx_multiply<3, 5, 7>();
  }

  // Hands every run of 32 values of every row, rounded, to `place_line` with its lane in its tile.
  template <typename PlaceLine>
  static void pack(const Matrix& matrix, std::int64_t first, std::int64_t count, void* packed,
                   const PlaceLine& place_line) {
    with_element<float>(matrix.dtype, [&](auto element) {
      using Source = decltype(element);
      const SourceRows<Source, float> rows(matrix, first);
      char* step = static_cast<char*>(packed);
      for (std::int64_t begin = 0; begin < matrix.width; begin += kDepthStep, step += kStepBytes)
        for (int row = 0; row < kRows; ++row) {
          bfloat16 line[kParts][kAmxBfloats] = {};
          if (row < count) read_line(rows, row, begin, line);
          char* tile = step + row / kAmxRows * kAmxTileBytes;
          for (int part = 0; part < kParts; ++part)
            place_line(line[part], row % kAmxRows, tile + part * 2 * kAmxTileBytes);
        }
    });
  }

  template <typename Rows>
  static void read_line(const Rows& rows, std::int64_t row, std::int64_t begin,
                        bfloat16 (&line)[kParts][kAmxBfloats]) {
    if constexpr (kSplit) {
      float values[kAmxBfloats];
      rows.read(row, begin, values);
      for (int k = 0; k < kAmxBfloats; ++k) split_float(values[k], line[0][k], line[1][k]);
    } else {
      rows.read(row, begin, line[0]);
    }
  }
};

}  // namespace
}  // namespace goal_kernels
