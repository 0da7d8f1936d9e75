#include "cuda/forward_sequence.h"

namespace goal_kernels::cuda {

void resum(const MineArguments& arguments, CUstream_st* stream) { run_resum(arguments, stream); }
void finish(const FinishArguments& arguments, CUstream_st* stream) { run_finish(arguments, stream); }
void weigh(const WeighArguments& arguments, CUstream_st* stream) { run_weigh(arguments, stream); }

}  // namespace goal_kernels::cuda
