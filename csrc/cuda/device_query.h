// What the CUDA runtime sees. Built with the CUDA part only; needs no driver to load or to call.
#pragma once

#include <string>
#include <vector>

namespace goal_kernels {

struct CudaDevice {
  std::string name;
  int major;  // compute capability
  int minor;
  int multiprocessors;
};

struct CudaReport {
  int runtime_version;  // 1000 * major + 10 * minor
  int driver_version;   // newest runtime that the driver supports; 0 without a driver
  std::vector<CudaDevice> devices;
  std::string reason;  // why there are none, empty otherwise
};

// Never throws for a missing driver or device: `devices` is empty and `reason` says why.
CudaReport query_cuda();

}  // namespace goal_kernels
