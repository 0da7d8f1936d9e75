// Python's view of mining on Hopper GPUs: submodule `hopper`.
#pragma once

#include <pybind11/pybind11.h>

namespace goal_kernels::cuda {

void bind_mine(pybind11::module_& module);

}  // namespace goal_kernels::cuda
