// Which instruction sets this build has kernels for and this machine can run.
#pragma once

#include <string>
#include <vector>

#include "row_kernel.h"
#include "tile_kernel.h"

namespace goal_kernels {

struct Isa {
  const char* name;
  const ExactKernels* exact;
  const TileKernel<float>* bfloat16;  // null: none
  const TileKernel<float>* split;     // float values as sums of two bfloat16; null: none
  const RowKernels* row;
};

// Usable on this machine (processor and operating system), slowest first; never empty.
const std::vector<Isa>& usable_isas();

// Names of all that this build has kernels for.
std::vector<std::string> compiled_isas();

// Slow stand-ins for what another machine has, to test its kernels; never chosen by "auto".
const std::vector<Isa>& emulated_isas();

// The usable or emulated one of that name, or the fastest usable one for "auto". Throws std::invalid_argument
// otherwise.
const Isa& find_isa(const std::string& name);

}  // namespace goal_kernels
