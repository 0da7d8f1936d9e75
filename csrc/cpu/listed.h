// Gradient rows of any elements of S = rows . columns^T that have a weight.
#pragma once

#include <cstdint>

#include "row_kernel.h"

namespace goal_kernels {

struct ListedJob {
  Matrix rows;                 // [R, D], no scales
  Matrix columns;              // [N, D], same dtype and width
  std::int64_t count;          // P
  const std::int64_t* row;     // [P], in [0, R)
  const std::int64_t* column;  // [P], in [0, N)
  const void* weight;          // [P], double for double matrices, else float
  void* grad_rows;             // in and out [R, D] contiguous, type of the weights: plus sums of weighted columns
  void* grad_columns;          // in and out [N, D] likewise
};

// Throws std::invalid_argument for an index or a size out of range, std::bad_alloc. Bit-equal for any `threads`.
void add_listed(const ListedJob& job, const RowKernels& kernels, int threads);

}  // namespace goal_kernels
