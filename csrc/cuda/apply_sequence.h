// Which stages of the backward run after one another, the same on a GPU and on the processor.
#pragma once

#include "cuda/apply_stage.h"
#include "cuda/stages.h"

namespace goal_kernels::cuda {

template <typename Stream>
void run_invert(const InvertArguments& a, Stream stream) {
  run<Inverting<Policy>>(a, stream, "invert");
}

template <typename Stream>
void run_gather(const GatherArguments& a, Stream stream) {
  with_layout(a.dtype, a.sides[0].own, a.sides[1].own, a.width, [&](auto layout) {
    using L = decltype(layout);
    run<Hubs<Policy, typename L::Element, L::kPack>>(a, stream, "gather: hubs");
    run<Gathering<Policy, typename L::Element, L::kPack>>(a, stream, "gather");
  });
}

}  // namespace goal_kernels::cuda
