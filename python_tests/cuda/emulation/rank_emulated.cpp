#include "cuda/rank_epilogue.h"
#include "cuda/rank_sequence.h"
#include "emulated_tiles.h"

namespace goal_kernels::cuda {

void score_emulated(const ScoreArguments& arguments) { run_score(arguments, nullptr); }

void rank_emulated(const RankArguments& a) {
  with_element<float>(a.scored.dtype, [&](auto element) { run_tiles<RankEpilogue<HostWarp, decltype(element)>>(a); });
}

}  // namespace goal_kernels::cuda
