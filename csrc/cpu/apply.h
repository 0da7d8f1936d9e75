// Gradient rows from mined pairs and weights: gathers and scatters, O((N + M) D).
#pragma once

#include <cstdint>

#include "row_kernel.h"

namespace goal_kernels {

// Weights and `grad_loss` are double for double embeddings, else float. Matrices with scales are normalised:
// both have them or neither, and the gradients are those of the rows without their scales.
struct ApplyJob {
  Matrix image;                        // [N, D]
  Matrix text;                         // [M, D], same dtype and width
  const std::int64_t* hardest_text;   // [N], in [-1, M); -1: no term
  const std::int64_t* hardest_image;  // [M], in [-1, N); -1: no term
  const std::int64_t* target;         // [N], positive of each row; null: i. Outside [0, M): none
  const void* positive_weight;        // [N], c
  const void* row_weight;             // [N], b of the image anchors
  const void* column_weight;          // [M], b of the text anchors
  const void* grad_loss;              // one value, the incoming gradient
  void* grad_image;                   // [N, D] contiguous, dtype of the inputs; null: not wanted
  void* grad_text;                    // [M, D] likewise
};

// Throws std::invalid_argument for an index out of range, std::bad_alloc. Bit-equal for any `threads`.
void apply(const ApplyJob& job, const RowKernels& kernels, int threads);

}  // namespace goal_kernels
