// Interface of the kernels that work on whole rows. `row_kernel.cpp` is compiled once per instruction set.
#pragma once

#include <cstdint>

#include "types.h"

namespace goal_kernels {

// weight * (row `source` of a matrix).
template <typename T>
struct Term {
  std::int64_t source;
  T weight;
};

template <typename T>
struct RowKernel {
  // <row i of a, row j of b>, scales of both included. Same dtype and width.
  T (*dot)(const Matrix& a, std::int64_t i, const Matrix& b, std::int64_t j);
  // accumulator[d] = sum of the terms in order, [width].
  void (*sum_terms)(const Matrix& source, const Term<T>* terms, std::int64_t count, T* accumulator);
  // accumulator[d] += addend[d].
  void (*add)(const T* addend, std::int64_t width, T* accumulator);
  // out[d] = scale * accumulator[d], rounded to `dtype`.
  void (*store)(const T* accumulator, T scale, std::int64_t width, Dtype dtype, void* out);
};

struct RowKernels {
  RowKernel<float> float32;
  RowKernel<double> float64;
};

extern const RowKernels row_kernels_baseline;
#if defined(GOAL_KERNELS_X86)
extern const RowKernels row_kernels_avx2;
extern const RowKernels row_kernels_avx512;
#endif

}  // namespace goal_kernels
