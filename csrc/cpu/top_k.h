// The k largest elements of every row of S = query . corpus^T, in one pass over its tiles.
#pragma once

#include <cstdint>

#include "isa.h"

namespace goal_kernels {

struct TopKJob {
  Matrix query;                    // [N, D], no scales
  Matrix corpus;                   // [M, D], same dtype and width
  const std::int64_t* query_ids;   // [N], or both null; equal ids are no candidates
  const std::int64_t* corpus_ids;  // [M]
  const void* max_score;           // [N], type as score; what is above is no candidate; null, NaN: no bound
  bool normalize;                  // divide each row by its length first
  std::int64_t k;                  // at least 1
  void* score;                     // out [N, k]: double for double matrices, else float; -inf beyond `count`
  std::int64_t* index;             // out [N, k]: -1 beyond `count`
  std::int64_t* count;             // out [N]: how many there are
};

// By score descending, the lowest index first on ties; NaN is above every number. As float decides (double for double
// matrices), also where a product of rounded values chose the candidates. Returns what was multiplied: "exact",
// "bfloat16" (its values as they are), or "screened". Throws std::invalid_argument for sizes it cannot take,
// std::bad_alloc. Bit-equal for any `threads`.
const char* top_k(const TopKJob& job, const Isa& isa, int threads);

}  // namespace goal_kernels
