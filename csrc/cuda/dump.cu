#include "dump.h"

#include "tile_kernel.cuh"

namespace goal_kernels::cuda {

void dump(const DumpArguments& arguments, CUstream_st* stream) {
  if (arguments.operand == Operand::kBfloat16)
    return launch_tiles<Operand::kBfloat16, DumpEpilogue<DeviceWarp>>(arguments, stream, "dump");
  launch_tiles<Operand::kFloat16, DumpEpilogue<DeviceWarp>>(arguments, stream, "dump");
}

}  // namespace goal_kernels::cuda
