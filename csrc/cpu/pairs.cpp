#include "pairs.h"

#include <cmath>
#include <limits>

#include "parallel.h"

namespace goal_kernels {
namespace {

// out[i] = value(i) for every row, shared among workers.
template <typename T, typename Value>
void fill_rows(const Matrix& matrix, int threads, void* out, const Value& value) {
  T* const result = static_cast<T*>(out);
  // A term takes longer here than in a product of tiles, whose operands are used many times.
  constexpr double slower = 8;
  const double work = slower * double(matrix.rows) * double(matrix.width);
  parallel_rows(matrix.rows, work, threads, [&](std::int64_t i) { result[i] = value(i); });
}

template <typename T>
void score_as(const Matrix& a, const Matrix& b, const std::int64_t* index, void* similarity,
              const RowKernel<T>& kernel, int threads) {
  fill_rows<T>(a, threads, similarity, [&](std::int64_t i) {
    const std::int64_t j = index != nullptr ? index[i] : i;
    return j >= 0 && j < b.rows ? kernel.dot(a, i, b, j) : -std::numeric_limits<T>::infinity();
  });
}

template <typename T>
void scales_as(Matrix matrix, void* scale, const RowKernel<T>& kernel, int threads) {
  matrix.scale = nullptr;
  fill_rows<T>(matrix, threads, scale, [&](std::int64_t i) {
    const T length = std::sqrt(kernel.dot(matrix, i, matrix, i));
    // This order of the comparison keeps NaN.
    return T(1) / (length < T(kShortestLength) ? T(kShortestLength) : length);
  });
}

}  // namespace

void score_pairs(const Matrix& a, const Matrix& b, const std::int64_t* index, void* similarity,
                 const RowKernels& kernels, int threads) {
  if (a.dtype == Dtype::float64)
    score_as<double>(a, b, index, similarity, kernels.float64, threads);
  else
    score_as<float>(a, b, index, similarity, kernels.float32, threads);
}

void row_scales(const Matrix& matrix, void* scale, const RowKernels& kernels, int threads) {
  if (matrix.dtype == Dtype::float64)
    scales_as<double>(matrix, scale, kernels.float64, threads);
  else
    scales_as<float>(matrix, scale, kernels.float32, threads);
}

}  // namespace goal_kernels
