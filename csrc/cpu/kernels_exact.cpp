// Micro-kernels in the accumulate dtype, compiled once per instruction set with GOAL_KERNELS_{VECTOR_BYTES,
// MICRO_ROWS, EXACT_TABLE}.
#include "product_direct.h"
#include "product_fma.h"
#include "tile_table.h"

namespace goal_kernels {

extern constexpr ExactKernels GOAL_KERNELS_EXACT_TABLE{tile_table<FmaProduct<float>>(),
                                                       tile_table<FmaProduct<double>>(),
                                                       mining_table<DirectProduct>()};

}  // namespace goal_kernels
