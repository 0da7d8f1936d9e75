// Asynchronous products of a warpgroup: wgmma m64n128k16, both operands K-major in shared memory, swizzled by
// 128 bytes, 16-bit operands, float accumulators.
#pragma once

#include <cstdint>

#include "layout.h"
#include "tiles.h"

namespace goal_kernels::cuda {

// Shared memory descriptor of a slot: start address, 1024 bytes from one group of 8 rows to the next, 128-byte
// swizzle, all in units of 16 bytes. Slots are aligned to 1024 bytes; offsets are added to the descriptor.
__device__ __forceinline__ std::uint64_t slot_descriptor(std::uint32_t address) {
  return (std::uint64_t{1} << 62) | (std::uint64_t{1024 >> 4} << 32) | (std::uint64_t{1} << 16) |
         ((address & 0x3FFFF) >> 4);
}
constexpr std::uint64_t kNextProduct = 16 * 2 >> 4;         // 16 elements on
constexpr std::uint64_t kLowerRows = 64 * kSlice * 2 >> 4;  // 64 rows on

// Orders register accesses before the products that follow.
__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void products_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits until at most `Pending` committed groups of this warp are under way.
template <int Pending>
__device__ __forceinline__ void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}

// Keeps the compiler from reading accumulators before the wait above it.
template <int Count>
__device__ __forceinline__ void accumulators_ready(float (&sum)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) asm volatile("" : "+f"(sum[i])::"memory");
}

#define GOAL_KERNELS_SUM8(i) \
  "+f"(sum[i]), "+f"(sum[i + 1]), "+f"(sum[i + 2]), "+f"(sum[i + 3]), "+f"(sum[i + 4]), "+f"(sum[i + 5]), \
      "+f"(sum[i + 6]), "+f"(sum[i + 7])
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

// sum[64 registers] = (add ? sum : 0) + 64 image rows times 128 text rows, 16 elements of each.
template <Operand Type>
__device__ __forceinline__ void product(float* sum, std::uint64_t image, std::uint64_t text, int add) {
  if constexpr (Type == Operand::kBfloat16) {
    GOAL_KERNELS_WGMMA("bf16");
  } else {
    GOAL_KERNELS_WGMMA("f16");
  }
}
#undef GOAL_KERNELS_WGMMA
#undef GOAL_KERNELS_SUM8

}  // namespace goal_kernels::cuda
