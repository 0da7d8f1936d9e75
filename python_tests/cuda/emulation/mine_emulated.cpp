#include "cuda/mine_epilogue.h"
#include "emulated_tiles.h"

namespace goal_kernels::cuda {

void mine_emulated(const MineArguments& arguments) {
  with_kind(arguments.kind, [&](auto kind) { run_tiles<MineEpilogue<HostWarp, kind.value>>(arguments); });
}

}  // namespace goal_kernels::cuda
