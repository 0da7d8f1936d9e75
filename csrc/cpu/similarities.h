// S = rows . columns^T, written to memory or added to it: for losses that take a block of rows of S at a time, and for
// the gradients that its weights make.
#pragma once

#include <cstdint>

#include "isa.h"

namespace goal_kernels {

// `out` is double for double matrices, else float: 16-bit values are multiplied without rounding their products.
struct SimilaritiesJob {
  Matrix rows;     // [R, K], no scales; may be across
  Matrix columns;  // [N, K], same dtype and width, no scales
  void* out;       // [R, N]
  std::int64_t stride;  // elements from row to row of `out`
  bool add;             // to what is there
};

// By bfloat16 products for bfloat16 matrices where the instruction set has them, else in the accumulate dtype. Throws
// std::invalid_argument for sizes it cannot take, std::bad_alloc. An element depends on its two rows alone: bit-equal
// for any `threads`, and whichever rows are asked for together.
void similarities(const SimilaritiesJob& job, const Isa& isa, int threads);

}  // namespace goal_kernels
