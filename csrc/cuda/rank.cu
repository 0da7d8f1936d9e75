#include "cuda/rank.h"

#include "cuda/rank_epilogue.h"
#include "cuda/rank_sequence.h"
#include "tile_kernel.cuh"

namespace goal_kernels::cuda {

void score(const ScoreArguments& arguments, CUstream_st* stream) { run_score(arguments, stream); }

void rank(const RankArguments& a, CUstream_st* stream) {
  with_element<float>(a.scored.dtype, [&](auto element) {
    using Element = decltype(element);
    constexpr bool kHalf = std::is_same_v<Element, float16>;
    launch_tiles<kHalf ? Operand::kFloat16 : Operand::kBfloat16, RankEpilogue<DeviceWarp, Element>>(a, stream, "rank");
  });
}

}  // namespace goal_kernels::cuda
