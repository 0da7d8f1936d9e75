// Which stages of the forward run after one another, the same on a GPU and on the processor.
#pragma once

#include "cuda/resum_stage.h"
#include "cuda/stages.h"
#include "cuda/weigh_stage.h"

namespace goal_kernels::cuda {

template <typename Stream>
void run_resum(const MineArguments& a, Stream stream) {
  if (a.operand == Operand::kBfloat16)
    run<Resumming<Policy, bfloat16>>(a, stream, "resum");
  else
    run<Resumming<Policy, float16>>(a, stream, "resum");
}

template <typename Stream>
void run_finish(const FinishArguments& a, Stream stream) {
  with_layout(a.dtype, a.image, a.text, a.width, [&](auto layout) {
    using L = decltype(layout);
    run<Finishing<Policy, typename L::Element, L::kPack>>(a, stream, "finish");
  });
}

template <typename Stream>
void run_weigh(const WeighArguments& a, Stream stream) {
  if (a.pool != nullptr) {
    run<PoolSumming<Policy>>(a, stream, "weigh: sums of the pool");
    run<PoolOffsets<Policy>>(a, stream, "weigh: offsets of the pool");
  }
  const FinishArguments& f = a.finish;
  with_layout(f.dtype, f.image, f.text, f.width, [&](auto layout) {
    using L = decltype(layout);
    run<Weighing<Policy, typename L::Element, L::kPack>>(a, stream, "weigh");
  });
}

}  // namespace goal_kernels::cuda
