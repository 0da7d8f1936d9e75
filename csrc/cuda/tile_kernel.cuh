// The kernel of tile products: one warpgroup loads, two multiply in turns and each looks at its tile while the
// other multiplies (protocol.h, tiles.h). Products never leave registers. A .cu file instantiates it for its
// epilogues.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "errors.cuh"
#include "mine_shape.h"
#include "protocol.h"
#include "tiles.h"
#include "tma.cuh"
#include "wgmma.cuh"

namespace goal_kernels::cuda {

constexpr int kWarpgroup = 128;
constexpr int kThreads = (1 + kConsumers) * kWarpgroup;
constexpr int kBarriers = 2 * kSlots + kConsumers;
constexpr int kSlotAlignment = 1024;  // of the 128-byte swizzle
// Registers a thread: 128 * 24 + 256 * 240 <= 65536.
constexpr int kProducerRegisters = 24;
constexpr int kConsumerRegisters = 240;

struct Maps {
  CUtensorMap image, text;
};

constexpr int shared_bytes(int resident) {
  return kSlotAlignment + (kRingSlots + resident) * kSlotBytes + kBarriers * 8;
}

static_assert(shared_bytes(kResidentSlots) <= 232448, "a thread block of compute capability 9.0 has no more");

// Barriers and slots of a thread block, by the names of protocol.h.
struct SharedMemory {
  std::uint32_t slots, barriers;

  __device__ __forceinline__ SharedMemory(const void* base, int resident) {
    slots = (shared_address(base) + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
    barriers = slots + (kRingSlots + resident) * kSlotBytes;
  }
  __device__ __forceinline__ std::uint32_t slot(int index) const { return slots + index * kSlotBytes; }
  __device__ __forceinline__ std::uint32_t barrier(Barrier barrier, int index) const {
    const bool full = barrier == Barrier::kFull || barrier == Barrier::kTextFull;
    const int first = full ? 0 : barrier == Barrier::kTurn ? 2 * kSlots : kSlots;
    return barriers + 8 * (first + index);
  }
  __device__ __forceinline__ void wait(Barrier name, int index, int parity) const {
    barrier_wait(barrier(name, index), parity);
  }
  __device__ void initialize() const {
    for (int slot = 0; slot < kSlots; ++slot) {
      barrier_init(barrier(Barrier::kFull, slot), 1);
      barrier_init(barrier(Barrier::kEmpty, slot), slot < kRingSlots ? kEmptyArrivals : kTextEmptyArrivals);
    }
    for (int consumer = 0; consumer < kConsumers; ++consumer)
      barrier_init(barrier(Barrier::kTurn, consumer), kTurnArrivals);
    barrier_init_fence();
  }
};

// One warp, so that its state is uniform and takes few registers; one lane of it arrives and copies.
class Producer {
 public:
  static constexpr int kRing = kRingSlots;

  __device__ __forceinline__ Producer(SharedMemory shared, const Maps& maps)
      : shared_(shared), image_(&maps.image), text_(&maps.text) {
    prefetch_map(image_);
    prefetch_map(text_);
  }
  __device__ __forceinline__ void begin_pass(const Item&, int) {}
  __device__ __forceinline__ void wait(Barrier barrier, int index, int parity) const {
    shared_.wait(barrier, index, parity);
  }
  __device__ __forceinline__ void load_image(Barrier barrier, int slot, int tile, const StepWalker& step) const {
    load(barrier, slot, image_, tile, step.slice(), step.image_half());
  }
  __device__ __forceinline__ void load_text(Barrier barrier, int slot, int block, const StepWalker& step) const {
    load(barrier, slot, text_, block, step.slice(), step.text_half());
  }

 private:
  __device__ __forceinline__ void load(Barrier barrier, int slot, const CUtensorMap* map, int tile, int slice,
                                       int half) const {
    if (DeviceWarp::lane() != 0) return;
    const std::uint32_t full = shared_.barrier(barrier, slot);
    barrier_expect(full, kSlotBytes);
    copy_slice(shared_.slot(slot), map, full, slice * kSlice, half, tile * kTile);
  }

  SharedMemory shared_;
  const CUtensorMap *image_, *text_;
};

// One warpgroup; every thread waits, one lane of each warp arrives.
template <Operand kOperand, typename Epilogue>
class Consumer {
 public:
  static constexpr int kRing = kRingSlots;

  __device__ __forceinline__ Consumer(SharedMemory shared, const typename Epilogue::Arguments& arguments,
                                      const MineShape& shape, int consumer, int warp)
      : shared_(shared), arrives_(DeviceWarp::lane() == 0), epilogue_(arguments, shape, consumer, warp) {
    // The first product does not read them, but ptxas before 12.9 serialises products whose accumulators are undefined.
#pragma unroll
    for (float& value : score_) value = 0.0f;
  }

  __device__ __forceinline__ void wait(Barrier barrier, int index, int parity) const {
    shared_.wait(barrier, index, parity);
  }
  __device__ __forceinline__ void arrive(Barrier barrier, int index) const {
    if (arrives_) barrier_arrive(shared_.barrier(barrier, index));
  }
  __device__ __forceinline__ void begin_pass(const Item& item, int block) { epilogue_.begin_pass(item, block); }
  __device__ __forceinline__ void begin_tile(const Item& item, int tile, int block) {
    epilogue_.begin_tile(item, tile, block);
  }
  __device__ __forceinline__ void multiply(int image_slot, int text_slot, const StepWalker& step) {
    const std::uint64_t image = slot_descriptor(shared_.slot(image_slot));
    const std::uint64_t text = slot_descriptor(shared_.slot(text_slot));
    products_begin();
#pragma unroll
    for (int k = 0; k < kSlice / 16; ++k) {
      const int add = k > 0 || !step.first();
      product<kOperand>(score_, image + k * kNextProduct, text + k * kNextProduct, add);
      product<kOperand>(score_ + kRegisters / 2, image + kLowerRows + k * kNextProduct, text + k * kNextProduct,
                        add);
    }
    products_commit();
  }
  template <int kPending>
  __device__ __forceinline__ void retire() {
    products_wait<kPending>();
    if constexpr (kPending == 0) accumulators_ready(score_);
  }
  __device__ __forceinline__ void finish_tile(const Item& item, int tile, int block) {
    epilogue_.finish_tile(score_, item, tile, block);
  }
  __device__ __forceinline__ void finish_pass(const Item& item, int block) { epilogue_.finish_pass(item, block); }

 private:
  SharedMemory shared_;
  bool arrives_;
  Epilogue epilogue_;
  float score_[kRegisters];
};

template <Operand kOperand, typename Epilogue>
__global__ void __launch_bounds__(kThreads, 1)
    tile_kernel(const __grid_constant__ Maps maps, const __grid_constant__ typename Epilogue::Arguments arguments,
                const __grid_constant__ MineShape shape) {
  extern __shared__ __align__(kSlotAlignment) unsigned char memory[];
  const SharedMemory shared(memory, shape.resident());
  if (threadIdx.x == 0) shared.initialize();
  __syncthreads();
  // From a shuffle, the compiler knows that it is the same in all lanes.
  const int warp = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x / kWarpLanes), 0);
  if (warp < kConsumerWarps) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kProducerRegisters));
    if (warp == 0) {
      Producer producer(shared, maps);
      produce(producer, shape, blockIdx.x, gridDim.x);
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kConsumerRegisters));
    const int consumer = warp / kConsumerWarps - 1;
    Consumer<kOperand, Epilogue> machine(shared, arguments, shape, consumer, warp % kConsumerWarps);
    consume(machine, shape, consumer, blockIdx.x, gridDim.x);
  }
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

inline CUtensorMap slices_of(const Rows& matrix, const TileProducts& products, const char* what) {
  CUtensorMap map;
  const auto type = products.operand == Operand::kBfloat16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                                           : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  const auto width = static_cast<cuuint64_t>(products.width);
  const cuuint64_t extents[3] = {width, products.split ? 2u : 1u, static_cast<cuuint64_t>(matrix.count)};
  const auto row = static_cast<cuuint64_t>(matrix.stride) * 2;  // bytes
  const cuuint64_t strides[2] = {products.split ? width * 2 : row, row};
  const cuuint32_t box[3] = {kSlice, 1, kTile};
  const cuuint32_t every[3] = {1, 1, 1};
  const CUresult status = encode_tiled()(
      &map, type, 3, const_cast<void*>(matrix.data), extents, strides, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE,
      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    throw std::runtime_error(std::string(what) + ": cuTensorMapEncodeTiled: CUresult " + std::to_string(status));
  return map;
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
  const MineShape shape =
      mine_shape(arguments.image.count, arguments.text.count, arguments.width, arguments.split);
  const Maps maps{slices_of(arguments.image, arguments, what), slices_of(arguments.text, arguments, what)};
  const auto kernel = tile_kernel<kOperand, Epilogue>;
  const int bytes = shared_bytes(shape.resident());
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), what);
  const int wanted = arguments.programs > 0 ? arguments.programs : multiprocessors();
  const int programs = shape.items() < wanted ? shape.items() : wanted;
  kernel<<<programs, kThreads, bytes, stream>>>(maps, arguments, shape);
  check(cudaGetLastError(), what);
}

}  // namespace goal_kernels::cuda
