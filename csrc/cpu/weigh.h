// The weight stage of the built-in objectives on [B] vectors; docs/derivation.md, sections 2, 5 and 6.
//
// A twin of goal_kernels/weights.py, in double: products of a huge and a tiny factor need its range.
#pragma once

#include <cstdint>

#include "formulas.h"
#include "mine.h"

namespace goal_kernels {

// The relative-similarity sums that mining has to return for a pair element.
Relative relative_of(Pair pair);

// Values are double for float64, else float.
struct WeighJob {
  WeightRule rule;
  Dtype dtype;            // of the embeddings
  std::int64_t count;     // B anchors on each side
  const void* positive;   // [B]
  AnchorOutput row;       // [B], as mined
  AnchorOutput column;    // [B]
  void* value;            // one
  void* positive_weight;  // [B], c
  void* row_weight;       // [B], b of the image anchors; 0 where there is no negative
  void* column_weight;    // [B], b of the text anchors, likewise
};

// Throws std::bad_alloc. Bit-equal for any `threads`.
void weigh(const WeighJob& job, int threads);

}  // namespace goal_kernels
