// Products by fused multiply-add in the accumulate dtype: every instruction set, every dtype, and what
// "highest" asks for. Internal linkage, see types.h.
#pragma once

#include "packing.h"
#include "rounding.h"
#include "tile_kernel.h"

namespace goal_kernels {
namespace {

// Longest chain of additions in the accumulate dtype; longer dot products add up sums of such blocks.
constexpr std::int64_t kDepthBlock = 256;

template <typename T>
struct FmaProduct {
  using Scalar = T;
  static constexpr int kRows = GOAL_KERNELS_MICRO_ROWS;
  static constexpr int kVectors = 2;
  static constexpr int kColumns = kVectors * Lanes<T>::count;
  static constexpr int kDepthStep = 1;
  static constexpr int kValueBytes = sizeof(T);
  static constexpr auto pack_rows = pack_transposed<T, kRows>;
  static constexpr auto pack_columns = pack_transposed<T, kColumns>;
  static constexpr auto pack_across = pack_across_values<T, kColumns>;
  static void enter() {}
  static void leave() {}

  // A term is rounded by its product, by each addition of its block and by those of the blocks.
  static double error(std::int64_t width) {
    const std::int64_t block = width < kDepthBlock ? width : kDepthBlock;
    return rounding_error<T>(1 + block + width / kDepthBlock);
  }

  // similarity [kRows][kColumns], 64-byte aligned.
  static void multiply(const TilePlace<T>& place, T* similarity) {
    const T* left = static_cast<const T*>(place.packed_rows);
    const T* right = static_cast<const T*>(place.packed_columns);
    for (std::int64_t begin = 0; begin < place.width; begin += kDepthBlock) {
      const std::int64_t rest = place.width - begin;
      const std::int64_t length = rest < kDepthBlock ? rest : kDepthBlock;
      Vec<T> sum[kRows][kVectors] = {};
      for (std::int64_t k = 0; k < length; ++k) {
        const Vec<T> column0 = load<Vec<T>>(right);
        const Vec<T> column1 = load<Vec<T>>(right + Lanes<T>::count);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          sum[r][0] += left[r] * column0;
          sum[r][1] += left[r] * column1;
        }
        left += kRows;
        right += kColumns;
      }
      add_block(begin == 0, sum, similarity);
    }
  }

 private:
  static void add_block(bool first, const Vec<T> (&sum)[kRows][kVectors], T* similarity) {
#pragma GCC unroll 32
    for (int part = 0; part < kRows * kVectors; ++part) {
      T* out = similarity + part * Lanes<T>::count;
      const Vec<T> block = sum[part / kVectors][part % kVectors];
      store(out, first ? block : load<Vec<T>>(out) + block);
    }
  }
};

}  // namespace
}  // namespace goal_kernels
