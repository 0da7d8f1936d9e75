// Products of bfloat16 values on AVX512_BF16: pairs of products per lane, accumulated in float.
// Subnormal inputs and sums count as zero (the instruction's rule). Internal linkage, see types.h.
#pragma once

#include <immintrin.h>

#include "packing.h"
#include "rounding.h"
#include "tile_kernel.h"

namespace goal_kernels {
namespace {

struct Bfloat16Product {
  using Scalar = float;
  static constexpr int kRows = 14;
  static constexpr int kVectors = 2;
  static constexpr int kColumns = 32;
  static constexpr int kDepthStep = 2;
  static constexpr int kValueBytes = 2;
  static constexpr auto pack_rows = pack_transposed<BfloatPair, kRows>;
  static constexpr auto pack_columns = pack_transposed<BfloatPair, kColumns>;
  static void pack_across(const Matrix& matrix, std::int64_t first, std::int64_t count, void* packed) {
    std::uint32_t* const out = static_cast<std::uint32_t*>(packed);
    pack_across_pairs<kColumns>(matrix, first, count, (matrix.width + 1) / 2,
                                [&](std::int64_t pair, const std::uint32_t (&unit)[kColumns]) {
                                  std::memcpy(out + pair * kColumns, unit, sizeof unit);
                                });
  }
  static void enter() {}
  static void leave() {}

  // Whatever the order of the additions.
  static double error(std::int64_t width) { return rounding_error<float>(width + 1); }

  // Longest chain of additions: pairs of products in a block.
  static constexpr std::int64_t kPairBlock = 256;

  // similarity [kRows][kColumns], 64-byte aligned.
  static void multiply(const TilePlace<float>& place, float* similarity) {
    const std::int32_t* left = static_cast<const std::int32_t*>(place.packed_rows);
    const std::int32_t* right = static_cast<const std::int32_t*>(place.packed_columns);
    const std::int64_t pairs = (place.width + 1) / 2;
    for (std::int64_t begin = 0; begin < pairs; begin += kPairBlock) {
      const std::int64_t length = pairs - begin < kPairBlock ? pairs - begin : kPairBlock;
      __m512 sum[kRows][kVectors];
#pragma GCC unroll 28
      for (int part = 0; part < kRows * kVectors; ++part)
        sum[part / kVectors][part % kVectors] = _mm512_setzero_ps();
      for (std::int64_t k = 0; k < length; ++k) {
        const __m512bh column0 = (__m512bh)_mm512_loadu_si512(right);
        const __m512bh column1 = (__m512bh)_mm512_loadu_si512(right + 16);
#pragma GCC unroll 14
        for (int r = 0; r < kRows; ++r) {
          const __m512bh row = (__m512bh)_mm512_set1_epi32(left[r]);
          sum[r][0] = _mm512_dpbf16_ps(sum[r][0], row, column0);
          sum[r][1] = _mm512_dpbf16_ps(sum[r][1], row, column1);
        }
        left += kRows;
        right += kColumns;
      }
#pragma GCC unroll 28
      for (int part = 0; part < kRows * kVectors; ++part) {
        float* out = similarity + part * 16;
        const __m512 block = sum[part / kVectors][part % kVectors];
        _mm512_storeu_ps(out, begin == 0 ? block : _mm512_add_ps(_mm512_loadu_ps(out), block));
      }
    }
  }
};

}  // namespace
}  // namespace goal_kernels
