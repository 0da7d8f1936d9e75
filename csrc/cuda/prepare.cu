#include "cuda/prepare_stage.h"
#include "cuda/stages.h"

namespace goal_kernels::cuda {
namespace {

// Blocks [0, parts) have the image rows, the others the text rows.
template <typename Element, int kPack>
__global__ void __launch_bounds__(kPrepareWarps* kWarpLanes)
    run_prepare(const __grid_constant__ PrepareArguments arguments) {
  __shared__ RowFacts found[kPrepareWarps];
  const bool image_side = blockIdx.x < static_cast<unsigned>(arguments.parts);
  const std::int64_t block = image_side ? blockIdx.x : blockIdx.x - arguments.parts;
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const Preparing<DeviceWarp, Element, kPack> preparing(arguments, image_side, block);
  const RowFacts own = preparing.rows(warp);
  if (DeviceWarp::lane() == 0) found[warp] = own;
  __syncthreads();
  if (warp != 0) return;
  RowFacts all = no_rows();
  for (const RowFacts& facts : found) all = merge(all, facts);
  preparing.finish(all);
}

}  // namespace

void prepare(const PrepareArguments& a, CUstream_st* stream) {
  with_layout(a.dtype, a.image, a.text, a.width, [&](auto layout) {
    using L = decltype(layout);
    run_prepare<typename L::Element, L::kPack>
        <<<2 * static_cast<unsigned>(a.parts), kPrepareWarps * kWarpLanes, 0, stream>>>(a);
  });
  check(cudaGetLastError(), "prepare");
}

}  // namespace goal_kernels::cuda
