// Micro-kernels of bfloat16 values on AVX512_BF16.
#include "product_bfloat16.h"
#include "tile_table.h"

namespace goal_kernels {

extern constexpr TileKernel<float> bfloat16_kernel_avx512_bf16 = tile_table<Bfloat16Product>();

}  // namespace goal_kernels
