#include "cuda/apply_sequence.h"

namespace goal_kernels::cuda {

void invert_emulated(const InvertArguments& arguments) { run_invert(arguments, nullptr); }
void gather_emulated(const GatherArguments& arguments) { run_gather(arguments, nullptr); }

}  // namespace goal_kernels::cuda
