// One candidate of every anchor, drawn with probability proportional to exp(S / temperature).
#pragma once

#include <cstdint>

#include "types.h"

namespace goal_kernels {

// The noise of a pair is a function of the sum of its two words, as in goal_kernels/backends/gumbel.py.
struct SampleJob {
  Matrix score;                       // [A, C], float or double; -inf: no candidate
  const std::uint64_t* anchor_word;     // [A]
  const std::uint64_t* candidate_word;  // [C]
  double temperature;
  double* key;          // out [A]: largest S / temperature + noise, -inf where there is no candidate
  std::int64_t* index;  // out [A]: its place, the lowest one on ties; -1: none. NaN is above all numbers
};

// Bit-equal for any `threads`.
void sample(const SampleJob& job, int threads);

}  // namespace goal_kernels
