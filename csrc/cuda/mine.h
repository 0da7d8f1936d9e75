// Mining on Hopper GPUs: the hardest negative of every row and column of S = image text^T, and the sums of
// relative similarity, in one pass over tiles of S.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/tiles.h"

struct CUstream_st;  // what cudaStream_t points to

namespace goal_kernels::cuda {

enum class MineKind { kNone, kLinear, kExponential };

struct MineArguments : TileProducts {
  MineKind kind;

  // As in `Pairing`; null: own index, no ids. Ranges: int64 [2, ceil(length / 128)], the smallest and the
  // largest of each run of 128 (of targets: those that exist; none: any low > high). Null with their vector.
  const std::int64_t* target;
  const std::int64_t* image_ids;
  const std::int64_t* text_ids;
  const std::int64_t* target_ranges;
  const std::int64_t* image_ranges;
  const std::int64_t* text_ranges;

  // Statistics of the batch, float32 [3, parts]: smallest positive, greatest length of image and text rows.
  const float* batch_stats;
  int parts;
  float epsilon;  // threshold = smallest positive - epsilon
  float slope;    // beta log2(e), kExponential

  // Packed keys, raised by atomic maximum; the caller starts them with INT64_MIN.
  std::int64_t* row_keys;     // [N]
  std::int64_t* column_keys;  // [M]

  // Sums that start at the threshold; null for kNone. Every element of sums and tops is written, counts are
  // added to. Where `wide_range` holds, zeros are written and nothing is added: `resum` replaces them.
  float* row_sums;              // [mine_row_parts(M), N]
  float* column_sums;           // [mine_column_parts(N, M), M]
  std::int32_t* row_counts;     // [N]
  std::int32_t* column_counts;  // [M]
  // kLinear alone, else null: int32 key of the largest similarity of the part << 32 | how many tie with it;
  // INT64_MIN if the part has none. The number is 0 where that similarity is below the threshold.
  std::int64_t* row_tops;     // [mine_row_parts(M), N]
  std::int64_t* column_tops;  // [mine_column_parts(N, M), M]
};

// body(integral_constant of the kind).
template <typename Body>
void with_kind(MineKind kind, const Body& body) {
  if (kind == MineKind::kNone) return body(std::integral_constant<MineKind, MineKind::kNone>{});
  if (kind == MineKind::kLinear) return body(std::integral_constant<MineKind, MineKind::kLinear>{});
  body(std::integral_constant<MineKind, MineKind::kExponential>{});
}

// Parts of the sums of one row (at most 64), and of one column (8 per segment, which has up to 64 tiles of rows).
std::int64_t mine_row_parts(std::int64_t columns);
std::int64_t mine_column_parts(std::int64_t rows, std::int64_t columns);

// Enqueues the mining on `stream`. Throws std::runtime_error with the name of a CUDA error. No allocation,
// no synchronisation. CUDA builds only; needs compute capability 9.0.
void mine(const MineArguments& arguments, CUstream_st* stream);

}  // namespace goal_kernels::cuda
