// Copies of tiles by the tensor memory accelerator. A matrix is three-dimensional to it: element, half of the row
// (a split row is [high | low]) and row, so that neither a ragged width nor a ragged end needs a mask.
#pragma once

#include <cuda.h>

#include "barriers.cuh"
#include "layout.h"

namespace goal_kernels::cuda {

// One k slice of kTile rows -> a slot, swizzled by 128 bytes; zeros where there is no element or row.
__device__ __forceinline__ void copy_slice(std::uint32_t slot, const CUtensorMap* map, std::uint32_t barrier,
                                           int element, int half, int row) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
      "[%2];" ::"r"(slot),
      "l"(map), "r"(barrier), "r"(element), "r"(half), "r"(row)
      : "memory");
}

__device__ __forceinline__ void prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

}  // namespace goal_kernels::cuda
