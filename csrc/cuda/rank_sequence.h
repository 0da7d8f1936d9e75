// What runs ahead of ranking, the same on a GPU and on the processor.
#pragma once

#include "cuda/score_stage.h"
#include "cuda/stages.h"

namespace goal_kernels::cuda {

template <typename Stream>
void run_score(const ScoreArguments& a, Stream stream) {
  with_element<float>(a.dtype,
                      [&](auto element) { run<Scoring<Policy, decltype(element)>>(a, stream, "score"); });
}

}  // namespace goal_kernels::cuda
