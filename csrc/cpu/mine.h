// Hard-negative mining in both directions, in one pass over the tiles of S = image . text^T.
#pragma once

#include <cstdint>

#include "isa.h"

namespace goal_kernels {

// Result per anchor. `value` and `sum` are double for double embeddings, else float. `sum` and `count` are
// not touched for Relative::none.
struct AnchorOutput {
  void* value;
  std::int64_t* index;
  void* sum;
  std::int64_t* count;
};

// How float32 similarities are computed, in torch's words: highest in float; high by products of values
// split in two bfloat16, error about 3 * 2^-16 |x| |y|; medium of values rounded to bfloat16. Each where the
// instruction set has such a product, and more precisely where it has none.
enum class Precision { highest, high, medium };

struct MineJob {
  Matrix image;                    // [N, D]
  Matrix text;                     // [M, D], same dtype and width
  const std::int64_t* target;     // [N], positive of each row; null: i. Outside [0, M): none
  const std::int64_t* image_ids;  // [N], or both null
  const std::int64_t* text_ids;   // [M]
  Relative relative;
  const void* threshold;  // one value, type as AnchorOutput::value; not read for Relative::none
  double beta;
  Precision precision;
  AnchorOutput row;     // [N]
  AnchorOutput column;  // [M]
};

// Whether rounding the embeddings to bfloat16 would lose digits that count: float, or bfloat16 with scales.
// Half embeddings, with fewer digits but also fewer exponents, are left out.
inline bool holds_float(const MineJob& job) {
  return job.image.dtype == Dtype::float32 ||
         (job.image.dtype == Dtype::bfloat16 && job.image.scale != nullptr);
}

// The values are accurate to the accumulate dtype whatever the precision; indices and sums are those of S as
// it was computed. Returns how that was, for tests and reports: "exact", "bfloat16", "split", and, as good as
// exact, "direct" (product_direct.h) or "screened" (screen.h). Throws std::invalid_argument for sizes it cannot
// take, std::bad_alloc. Bit-equal for any `threads`.
const char* mine(const MineJob& job, const Isa& isa, int threads);

}  // namespace goal_kernels
