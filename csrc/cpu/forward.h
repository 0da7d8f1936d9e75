// The whole forward of a built-in objective in one call: scales, positives, threshold, mining, weights.
#pragma once

#include <cstdint>

#include "isa.h"
#include "weigh.h"

namespace goal_kernels {

// Rows of ForwardJob::vectors, [B] each; the scales only when normalising.
enum ForwardVector {
  kPositive,
  kRowValue,
  kColumnValue,
  kPositiveWeight,
  kRowWeight,
  kColumnWeight,
  kImageScale,
  kTextScale,
};

struct ForwardJob {
  Matrix image;                    // [B, D], without scales
  Matrix text;                     // [B, D], same dtype
  const std::int64_t* image_ids;  // [B], or both null
  const std::int64_t* text_ids;   // [B]
  bool normalize;                  // divide each row by its length first
  Precision precision;             // of mining; positives and weights are always computed in full
  WeightRule rule;
  void* value;            // one; double for float64, else float
  void* vectors;          // [6 or 8, B], type as `value`
  std::int64_t* hardest;  // [2, B]: hardest text of each image, hardest image of each text; -1: none
};

// Throws as `mine`. Bit-equal for any `threads`.
void forward(const ForwardJob& job, const Isa& isa, int threads);

}  // namespace goal_kernels
