#include "logistic.h"

#include "parallel.h"

namespace goal_kernels {
namespace {

constexpr double kWorkPerElement = 32;  // an exponential, a division and a series, in multiply-adds

template <typename T>
void logistic_as(const Matrix& rows, double* sums, const RowKernel<T>& kernel, int threads) {
  T* const data = static_cast<T*>(const_cast<void*>(rows.data));
  const double work = kWorkPerElement * double(rows.rows) * double(rows.width);
  parallel_for(rows.rows, worker_count(work, threads), [&](std::int64_t r, int) {
    sums[r] = kernel.logistic(data + r * rows.stride, rows.width);
  });
}

}  // namespace

void logistic(const Matrix& rows, double* sums, const RowKernels& kernels, int threads) {
  if (rows.dtype == Dtype::float64)
    logistic_as<double>(rows, sums, kernels.float64, threads);
  else
    logistic_as<float>(rows, sums, kernels.float32, threads);
}

}  // namespace goal_kernels
