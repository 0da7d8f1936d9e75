// How a stage runs: on a GPU a warp each, on the processor one warp after the other. A stage says how many warps
// its arguments need, and what one of them does.
#pragma once

#include "cuda/element.h"
#if defined(__CUDACC__)
#include <stdexcept>
#include <string>

#include "cuda/errors.cuh"
#endif

namespace goal_kernels::cuda {

#if defined(__CUDACC__)
using Policy = DeviceWarp;
#else
using Policy = HostWarp;
using CUstream_st = void;
#endif

#if defined(__CUDACC__)

constexpr int kStageThreads = 256;

template <typename Stage, typename Arguments>
__global__ void __launch_bounds__(kStageThreads, 1)
    run_stage(const __grid_constant__ Arguments arguments, std::int64_t warps) {
  constexpr int kWarps = kStageThreads / kWarpLanes;
  const std::int64_t warp = std::int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarpLanes;
  if (warp < warps) Stage::run(arguments, warp);
}

template <typename Stage, typename Arguments>
void run(const Arguments& arguments, cudaStream_t stream, const char* what) {
  const std::int64_t warps = Stage::warps(arguments);
  if (warps == 0) return;
  if (warps > UINT32_MAX) throw std::invalid_argument(std::string(what) + ": too many rows for one launch");
  constexpr int kWarps = kStageThreads / kWarpLanes;
  const auto blocks = static_cast<unsigned>((warps + kWarps - 1) / kWarps);
  run_stage<Stage, Arguments><<<blocks, kStageThreads, 0, stream>>>(arguments, warps);
  check(cudaGetLastError(), what);
}

#else

template <typename Stage, typename Arguments>
void run(const Arguments& arguments, std::nullptr_t, const char*) {
  const std::int64_t warps = Stage::warps(arguments);
  for (std::int64_t warp = 0; warp < warps; ++warp) Stage::run(arguments, warp);
}

#endif

}  // namespace goal_kernels::cuda
