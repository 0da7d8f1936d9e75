// Micro-kernels on AMX tiles; GOAL_KERNELS_AMX_TABLE names the table, GOAL_KERNELS_AMX_EMULATED makes the
// tiles plain arrays.
#include "product_amx.h"
#include "tile_table.h"

namespace goal_kernels {

extern constexpr AmxKernels GOAL_KERNELS_AMX_TABLE{tile_table<AmxProduct<false>>(),
                                                   tile_table<AmxProduct<true>>()};

}  // namespace goal_kernels
