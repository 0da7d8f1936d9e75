#include "cuda/apply_sequence.h"

namespace goal_kernels::cuda {

void invert(const InvertArguments& arguments, CUstream_st* stream) { run_invert(arguments, stream); }
void gather(const GatherArguments& arguments, CUstream_st* stream) { run_gather(arguments, stream); }

}  // namespace goal_kernels::cuda
