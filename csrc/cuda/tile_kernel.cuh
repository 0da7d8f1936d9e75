// The kernel of tile products: one warpgroup loads, two multiply in turns and each looks at its tile while the
// other multiplies (protocol.h, tile_roles.h, tiles.h). Products never leave registers. Thread blocks of a cluster
// share images (layout.h). A .cu file instantiates it for its epilogues.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "device.cuh"
#include "errors.cuh"
#include "mine_shape.h"

namespace goal_kernels::cuda {

constexpr int kWarpgroup = 128;
constexpr int kThreads = (1 + kConsumers) * kWarpgroup;
// Registers a thread: 128 * 24 + 256 * 240 <= 65536.
constexpr int kProducerRegisters = 24;
constexpr int kConsumerRegisters = 240;

struct Maps {
  CUtensorMap image, text;
};

// All threads of all members of the cluster.
__device__ __forceinline__ void meet_cluster() {
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
}

template <Operand kOperand, typename Epilogue>
__global__ void __launch_bounds__(kThreads, 1)
    tile_kernel(const __grid_constant__ Maps maps, const __grid_constant__ typename Epilogue::Arguments arguments,
                const __grid_constant__ MineShape shape) {
  extern __shared__ __align__(kSlotAlignment) unsigned char memory[];
  const Device<kOperand> device;
  const SharedMemory shared(shared_address(memory), shape.resident());
  if (threadIdx.x == 0) {
    shared.initialize(device, shape.members);
    barrier_init_fence();
  }
  meet_cluster();
  const int pairs = shape.members - 1;  // 1 where two thread blocks are a cluster
  const int program = blockIdx.x >> pairs, programs = gridDim.x >> pairs;
  // From a shuffle, the compiler knows that it is the same in all lanes.
  const int warp = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x / kWarpLanes), 0);
  if (warp < kConsumerWarps) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kProducerRegisters));
    if (warp == 0) {
      prefetch_map(&maps.image);
      prefetch_map(&maps.text);
      Producer producer(device, shared, shape, &maps.image, &maps.text);
      produce(producer, shape, program, programs);
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kConsumerRegisters));
    const int consumer = warp / kConsumerWarps - 1;
    Consumer<Device<kOperand>, Epilogue> machine(device, shared, shape, arguments, shape, consumer,
                                                 warp % kConsumerWarps);
    consume(machine, shape, consumer, program, programs);
  }
  // The other thread block may still have to arrive at barriers of this one, whose memory is gone once it ends.
  meet_cluster();
}

// Reached at run time, so that the module needs no driver to load.
using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

inline EncodeTiled encode_tiled() {
  static const EncodeTiled function = [] {
    void* address = nullptr;
    cudaDriverEntryPointQueryResult found;
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &address, 12000, cudaEnableDefault, &found),
          "cudaGetDriverEntryPointByVersion");
    if (found != cudaDriverEntryPointSuccess)
      throw std::runtime_error("cuTensorMapEncodeTiled: the driver is too old");
    return reinterpret_cast<EncodeTiled>(address);
  }();
  return function;
}

static_assert(static_cast<int>(Swizzle::k128Bytes) == CU_TENSOR_MAP_SWIZZLE_128B, "numbered otherwise");

inline CUtensorMap encoded(const TensorMap& map, const char* what) {
  CUtensorMap result;
  const auto type = map.operand == Operand::kBfloat16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                                      : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  const cuuint32_t every[3] = {1, 1, 1};
  const CUresult status = encode_tiled()(
      &result, type, 3, const_cast<void*>(map.data), map.extents, map.strides, map.box, every,
      CU_TENSOR_MAP_INTERLEAVE_NONE, static_cast<CUtensorMapSwizzle>(map.swizzle), CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    throw std::runtime_error(std::string(what) + ": cuTensorMapEncodeTiled: CUresult " + std::to_string(status));
  return result;
}

inline int multiprocessors() {
  int device = 0, count = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  return count;
}

// Enqueues one. Throws std::runtime_error with `what` and the name of a CUDA error.
template <Operand kOperand, typename Epilogue>
void launch_tiles(const typename Epilogue::Arguments& arguments, cudaStream_t stream, const char* what) {
  const MineShape shape = mine_shape(arguments.image.count, arguments.text.count, arguments.width, arguments.split,
                                     arguments.members);
  const Maps maps{encoded(slices_of(arguments.image, arguments, rows_of_member(shape.members)), what),
                  encoded(slices_of(arguments.text, arguments, kTile), what)};
  const auto kernel = tile_kernel<kOperand, Epilogue>;
  const int bytes = shared_bytes(shape.resident());
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), what);
  // Multiprocessors come in pairs, which can take a cluster of two. Where some cannot, the tail is longer.
  const int usual = (multiprocessors() + shape.members - 1) / shape.members;
  const int wanted = arguments.programs > 0 ? arguments.programs : usual;
  const int programs = shape.items() < wanted ? shape.items() : wanted;
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(shape.members), 1, 1};
  cudaLaunchConfig_t launch{};
  launch.gridDim = dim3(programs * shape.members);
  launch.blockDim = dim3(kThreads);
  launch.dynamicSmemBytes = bytes;
  launch.stream = stream;
  launch.attrs = &cluster;
  launch.numAttrs = 1;
  check(cudaLaunchKernelEx(&launch, kernel, maps, arguments, shape), what);
}

}  // namespace goal_kernels::cuda
