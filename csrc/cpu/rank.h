// Ranks of the positives in both directions, counted in one pass over the tiles of S = image . text^T.
#pragma once

#include <cstdint>

#include "isa.h"

namespace goal_kernels {

// Counts of one side's queries: wrong candidates that score better than the best positive, and those that
// score the same.
struct CountOutput {
  std::int64_t* better;
  std::int64_t* ties;
};

struct RankJob {
  Matrix image;                       // [N, D], no scales
  Matrix text;                        // [M, D], same dtype and width
  const std::int64_t* text_to_image;  // [M], image row of each text, in [0, N)
  float* positive;                    // out [M]: score of each text with its image, NaN and infinities as is
  CountOutput image_counts;           // out [N]
  CountOutput text_counts;            // out [M]
};

// The score of a pair is its dot product in double, rounded to float; NaN compares as -inf, infinity as the
// largest float. Counts are those of the scores, whatever S was multiplied in. Throws std::invalid_argument for
// sizes and indices it cannot take, std::bad_alloc. Bit-equal for any `threads`; for inputs other than double
// also for any `isa`.
void rank(const RankJob& job, const Isa& isa, int threads);

}  // namespace goal_kernels
