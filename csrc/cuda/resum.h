// Sums of relative similarity from scratch, given the mined maxima: where `wide_range` holds and mining could not
// start them at the threshold. Costs a product without tensor cores; returns at once otherwise.
#pragma once

#include "cuda/mine.h"

namespace goal_kernels::cuda {

// What was mined with the same arguments. Writes part 0 of the sums, and the counts, as `Mined` defines them.
// Similarities are summed anew, the hardest one's included, so that ties are exact.
void resum(const MineArguments& arguments, CUstream_st* stream);
// The same on the processor.
void resum_emulated(const MineArguments& arguments);

}  // namespace goal_kernels::cuda
