#include "mine.h"
#include "mine_epilogue.h"
#include "tile_kernel.cuh"

namespace goal_kernels::cuda {

namespace {

template <Operand kOperand>
void launch_kind(const MineArguments& arguments, cudaStream_t stream) {
  with_kind(arguments.kind, [&](auto kind) {
    launch_tiles<kOperand, MineEpilogue<DeviceWarp, kind.value>>(arguments, stream, "mine");
  });
}

}  // namespace

void mine(const MineArguments& arguments, CUstream_st* stream) {
  if (arguments.operand == Operand::kBfloat16) return launch_kind<Operand::kBfloat16>(arguments, stream);
  launch_kind<Operand::kFloat16>(arguments, stream);
}

}  // namespace goal_kernels::cuda
