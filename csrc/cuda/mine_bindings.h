// Python's view of the mining kernel: its arguments as a structure, and the calls.
#pragma once

#include <pybind11/pybind11.h>

namespace goal_kernels::cuda {

void bind_mine(pybind11::module_& module);

}  // namespace goal_kernels::cuda
