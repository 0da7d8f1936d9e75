// The CUDA backend's part of the Python module.
#pragma once

#include <pybind11/pybind11.h>

namespace goal_kernels {

// The submodule `cuda`: argument structures with fields that Python sets by name, and the stages that take them,
// `mine` and so on with a stream, when built with CUDA, and how work is cut; with the emulation what it binds.
void bind_cuda(pybind11::module_& module);

}  // namespace goal_kernels
