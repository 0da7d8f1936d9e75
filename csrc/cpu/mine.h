// Hard-negative mining in both directions, in one pass over the tiles of S = image . text^T.
#pragma once

#include <cstdint>

#include "tile_kernel.h"

namespace goal_kernels {

// Result per anchor. `value` and `sum` are double for double embeddings, else float. `sum` and `count` are
// not touched for Relative::none.
struct AnchorOutput {
  void* value;
  std::int64_t* index;
  void* sum;
  std::int64_t* count;
};

struct MineJob {
  Matrix image;                    // [N, D]
  Matrix text;                     // [M, D], same dtype and width
  const std::int64_t* target;     // [N], positive of each row; null: i. Outside [0, M): none
  const std::int64_t* image_ids;  // [N], or both null
  const std::int64_t* text_ids;   // [M]
  Relative relative;
  const void* threshold;  // one value, type as AnchorOutput::value; not read for Relative::none
  double beta;
  AnchorOutput row;     // [N]
  AnchorOutput column;  // [M]
};

// Throws std::invalid_argument for sizes it cannot take, std::bad_alloc. Bit-equal for any `threads`.
void mine(const MineJob& job, const TileKernels& kernels, int threads);

}  // namespace goal_kernels
