// The instructions of compute capability 9.0 that tile kernels are made of: mbarriers, copies by the tensor memory
// accelerator, asynchronous products of a warpgroup. See tile_roles.h for what they mean.
#pragma once

#include <cuda.h>

#include "tile_roles.h"

namespace goal_kernels::cuda {

__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

// Makes initialised barriers known to the copy engine.
__device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// A fault in the protocol shall end in an error, not hang the GPU. No wait should last longer than some tens of
// milliseconds; so many polls take a good part of a second at the least.
constexpr int kMostPolls = 1 << 24;

#define GOAL_KERNELS_SUM8(i)                                                                                   \
  "+f"(sum[i]), "+f"(sum[i + 1]), "+f"(sum[i + 2]), "+f"(sum[i + 3]), "+f"(sum[i + 4]), "+f"(sum[i + 5]), \
      "+f"(sum[i + 6]), "+f"(sum[i + 7])
// Both operands K-major in shared memory.
#define GOAL_KERNELS_WGMMA(type)                                                                            \
  asm volatile(                                                                                             \
      "{\n"                                                                                                 \
      ".reg .pred p;\n"                                                                                     \
      "setp.ne.b32 p, %66, 0;\n"                                                                            \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {"                                     \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                              \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                    \
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                    \
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "                   \
      "%64, %65, p, 1, 1, 0, 0;\n"                                                                          \
      "}"                                                                                                   \
      : GOAL_KERNELS_SUM8(0), GOAL_KERNELS_SUM8(8), GOAL_KERNELS_SUM8(16), GOAL_KERNELS_SUM8(24),           \
        GOAL_KERNELS_SUM8(32), GOAL_KERNELS_SUM8(40), GOAL_KERNELS_SUM8(48), GOAL_KERNELS_SUM8(56)          \
      : "l"(image), "l"(text), "r"(add))

// The Hardware of tile_roles.h; kOperand: of products.
template <Operand kOperand>
struct Device {
  static constexpr int kRing = kRingSlots;
  using Map = const CUtensorMap*;
  using Accumulator = float;

  static __device__ __forceinline__ bool elected() { return DeviceWarp::lane() == 0; }
  static __device__ __forceinline__ int member() { return static_cast<int>(__clusterRelativeBlockRank()); }

  static __device__ __forceinline__ void initialize(std::uint32_t barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
  }
  static __device__ __forceinline__ void arrive(std::uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
  }
  // A lane for each member, by the address that the barrier has there. Without a scope of its own, like the waits: what
  // they order are products and copies, which no cache of a multiprocessor comes between. With .cluster, every arrival
  // fences all of memory and every wait empties that cache.
  static __device__ __forceinline__ void arrive_everywhere(std::uint32_t barrier, int members) {
    const int member = DeviceWarp::lane();
    if (member >= members) return;
    asm volatile(
        "{\n"
        ".reg .b32 there;\n"
        "mapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
        "}" ::"r"(barrier),
        "r"(member)
        : "memory");
  }
  static __device__ __forceinline__ void expect(std::uint32_t barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
  }
  static __device__ __forceinline__ void wait(std::uint32_t barrier, int parity) {
    for (int poll = 0; !is_over(barrier, parity); ++poll)
      if (poll == kMostPolls) __trap();
  }

  static __device__ __forceinline__ void copy(std::uint32_t slot, Map map, std::uint32_t barrier,
                                              const Coordinates& at) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
        "[%2];" ::"r"(slot),
        "l"(map), "r"(barrier), "r"(at.element), "r"(at.half), "r"(at.row)
        : "memory");
  }

  // Each member gets the bytes at the same place, and its own barrier counts them.
  static __device__ __forceinline__ void copy_everywhere(std::uint32_t slot, Map map, std::uint32_t barrier,
                                                         const Coordinates& at, int members) {
    if (members == 1) return copy(slot, map, barrier, at);
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
        "[%1, {%3, %4, %5}], [%2], %6;" ::"r"(slot),
        "l"(map), "r"(barrier), "r"(at.element), "r"(at.half), "r"(at.row),
        "h"(static_cast<std::uint16_t>((1 << members) - 1))
        : "memory");
  }

  static __device__ __forceinline__ void fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
  static __device__ __forceinline__ void product(float* score, int first, std::uint64_t image, std::uint64_t text,
                                                 int add) {
    float* const sum = score + first;
    if constexpr (kOperand == Operand::kBfloat16) {
      GOAL_KERNELS_WGMMA("bf16");
    } else {
      GOAL_KERNELS_WGMMA("f16");
    }
  }
  static __device__ __forceinline__ void commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
  template <int kPending>
  static __device__ __forceinline__ void retire(float (&score)[kRegisters]) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
    if constexpr (kPending == 0) {
      // Keeps the compiler from reading accumulators before the wait.
      GOAL_KERNELS_UNROLL
      for (int i = 0; i < kRegisters; ++i) asm volatile("" : "+f"(score[i])::"memory");
    }
  }

 private:
  static __device__ __forceinline__ bool is_over(std::uint32_t barrier, int parity) {
    std::uint32_t over;
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n"
        "}"
        : "=r"(over)
        : "r"(barrier), "r"(parity)
        : "memory");
    return over != 0;
  }
};

#undef GOAL_KERNELS_WGMMA
#undef GOAL_KERNELS_SUM8

}  // namespace goal_kernels::cuda
