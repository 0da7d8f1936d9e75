// Scales, positives, threshold and mining in one call.
#pragma once

#include <cstdint>

#include "isa.h"
#include "mine.h"

namespace goal_kernels {

// `positive` and `scales` are double for double embeddings, else float.
struct SearchJob {
  Matrix image;                    // [N, D], without scales
  Matrix text;                     // [M, D], same dtype
  const std::int64_t* target;     // as in MineJob, like the ids
  const std::int64_t* image_ids;
  const std::int64_t* text_ids;
  bool normalize;  // divide each row by its length first
  Relative relative;
  double epsilon;  // the threshold of the sums is the smallest existing positive minus this
  double beta;
  Precision precision;
  void* positive;       // [N]: similarity of each image and its text
  AnchorOutput row;     // [N]: hardest text of each image; index -1: none
  AnchorOutput column;  // [M]: hardest image of each text
  void* scales;         // [N + M]: of the normalised rows; not touched unless normalising
};

// Throws as `mine`. Bit-equal for any `threads`.
void search(const SearchJob& job, const Isa& isa, int threads);

}  // namespace goal_kernels
