// What tests ask of the mining kernel beyond its results: how it cuts up work, and what its warpgroups do.
#pragma once

#include <pybind11/pybind11.h>

namespace goal_kernels::cuda {

void bind_mine_model(pybind11::module_& module);

}  // namespace goal_kernels::cuda
