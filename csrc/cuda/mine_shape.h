// How a mining call is cut into items of work.
#pragma once

#include "layout.h"

namespace goal_kernels::cuda {

// members: as in TileProducts.
MineShape mine_shape(std::int64_t rows, std::int64_t columns, int width, bool split, int members);

}  // namespace goal_kernels::cuda
