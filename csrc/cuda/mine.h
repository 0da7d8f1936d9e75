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

  // As in `Pairing`; null: own index, no ids.
  const std::int64_t* target;
  const std::int64_t* image_ids;
  const std::int64_t* text_ids;
  // Bits of tiles that hold pairs which are no negatives, [tiles, mask_words], as
  // goal_kernels/backends/gpu/kernels/masks.py leaves them; null and 0 with neither targets nor ids.
  const std::int32_t* mixed;
  int mask_words;

  // Statistics of the batch, float32 [3, parts]: smallest positive, greatest length of image and text rows.
  const float* batch_stats;
  int parts;
  float epsilon;  // threshold = smallest positive - epsilon
  float slope;    // beta log2(e), kExponential

  // Packed keys, raised by atomic maximum; the caller starts them with INT64_MIN.
  std::int64_t* row_keys;     // [N]
  std::int64_t* column_keys;  // [M]

  // Sums that start at the threshold, see fixed_sums.h; null for kNone. Sums and counts, which the caller starts
  // with 0, are added to. Where `wide_range` holds nothing is added: `resum` writes them.
  std::int64_t* row_sums;       // [fields, N]
  std::int64_t* column_sums;    // [fields, M]
  std::int32_t* row_counts;     // [N]
  std::int32_t* column_counts;  // [M]
  // kLinear alone, else null: int32 key of the largest similarity that reaches the threshold << 32 | how many tie
  // with it. The caller starts them with INT64_MIN.
  std::int64_t* row_tops;     // [N]
  std::int64_t* column_tops;  // [M]
};

// body(integral_constant of the kind).
template <typename Body>
void with_kind(MineKind kind, const Body& body) {
  if (kind == MineKind::kNone) return body(std::integral_constant<MineKind, MineKind::kNone>{});
  if (kind == MineKind::kLinear) return body(std::integral_constant<MineKind, MineKind::kLinear>{});
  body(std::integral_constant<MineKind, MineKind::kExponential>{});
}

// Enqueues the mining on `stream`. Throws std::runtime_error with the name of a CUDA error. No allocation,
// no synchronisation. CUDA builds only; needs compute capability 9.0.
void mine(const MineArguments& arguments, CUstream_st* stream);

}  // namespace goal_kernels::cuda
