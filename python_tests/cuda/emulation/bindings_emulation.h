// What tests ask of the emulation.
#pragma once

#include <pybind11/pybind11.h>

namespace goal_kernels {

// mine_emulated and so on; and a tile kernel in its parts, so that a test can change one: `record` gives the programs
// of a thread block, `tensor_maps` what its copies read, and `run_dump` runs them.
void bind_emulation(pybind11::module_& module);

}  // namespace goal_kernels
