// Which instruction sets this build has kernels for and this machine can run.
#pragma once

#include <string>
#include <vector>

#include "row_kernel.h"
#include "tile_kernel.h"

namespace goal_kernels {

struct Isa {
  const char* name;
  const TileKernels* tile;
  const RowKernels* row;
};

// Usable on this machine (processor and operating system), slowest first; never empty.
const std::vector<Isa>& usable_isas();

// The usable one of that name, or the fastest for "auto". Throws std::invalid_argument otherwise.
const Isa& find_isa(const std::string& name);

}  // namespace goal_kernels
