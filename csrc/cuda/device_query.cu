#include <cuda_runtime.h>

#include "device_query.h"

namespace goal_kernels {

CudaReport query_cuda() {
  CudaReport report{0, 0, {}, {}};
  int count = 0;
  cudaError_t status = cudaRuntimeGetVersion(&report.runtime_version);
  if (status == cudaSuccess) status = cudaDriverGetVersion(&report.driver_version);
  if (status == cudaSuccess) status = cudaGetDeviceCount(&count);
  for (int device = 0; status == cudaSuccess && device < count; ++device) {
    cudaDeviceProp properties;
    status = cudaGetDeviceProperties(&properties, device);
    if (status == cudaSuccess)
      report.devices.push_back({properties.name, properties.major, properties.minor,
                                properties.multiProcessorCount});
  }
  if (status != cudaSuccess) {
    report.devices.clear();
    report.reason = report.driver_version == 0 ? "no NVIDIA driver" : cudaGetErrorString(status);
    cudaGetLastError();  // or the next, unrelated check would report it again
  } else if (count == 0) {
    report.reason = "the driver reports no device";
  }
  return report;
}

}  // namespace goal_kernels
