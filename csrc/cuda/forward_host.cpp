#include "cuda/forward_sequence.h"

namespace goal_kernels::cuda {

void resum_emulated(const MineArguments& arguments) { run_resum(arguments, nullptr); }
void finish_emulated(const FinishArguments& arguments) { run_finish(arguments, nullptr); }
void weigh_emulated(const WeighArguments& arguments) { run_weigh(arguments, nullptr); }

}  // namespace goal_kernels::cuda
