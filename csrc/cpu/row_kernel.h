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

// Sums of at most this many terms are made in registers, in one pass over the rows.
constexpr std::int64_t kFewTerms = 4;

// The part of rows that sums of listed elements are made of in registers.
constexpr std::int64_t kSliceBytes = 256;
template <typename T>
constexpr std::int64_t kSlice = kSliceBytes / static_cast<std::int64_t>(sizeof(T));

// How many rows ahead slices are asked for.
constexpr std::int64_t kRowsAhead = 8;

// weight * (row `source` of packed slices).
template <typename T>
struct SliceTerm {
  Integer<T> source;
  T weight;
};

// Widths are those of the matrices. `out` is a row of the matrices' dtype, rounded to it.
template <typename T>
struct RowKernel {
  // <row i of a, row j of b>, scales of both included. Same dtype and width.
  T (*dot)(const Matrix& a, std::int64_t i, const Matrix& b, std::int64_t j);
  // sum = the terms in order, without the scales of `source`.
  void (*sum_terms)(const Matrix& source, const Term<T>* terms, std::int64_t count, T* sum);
  // out = factor * the terms in order, likewise; count <= kFewTerms.
  void (*gather)(const Matrix& source, const Term<T>* terms, std::int64_t count, T factor, void* out);
  // packed [rows, kSlice] = columns from `first` on of rows from `row` on; 0 beyond the last column.
  void (*pack_slice)(const Matrix& source, std::int64_t row, std::int64_t rows, std::int64_t first, T* packed);
  // sum [width] += the terms, in runs of kSliceRun; width <= kSlice.
  void (*add_slice)(const T* packed, const SliceTerm<T>* terms, std::int64_t count, T* sum, std::int64_t width);
  // sum += addend.
  void (*add)(const T* addend, std::int64_t width, T* sum);
  // out = factor * sum.
  void (*store)(const T* sum, T factor, std::int64_t width, Dtype dtype, void* out);
  // With u = row `row` of `own` times its scale s: out = factor * s (sum - u <u, sum>), which takes a gradient
  // from the normalised row to the row. Rows too short to normalise (s >= 1 / kShortestLength): 0.
  void (*store_projected)(const T* sum, T factor, const Matrix& own, std::int64_t row, void* out);
  // Replaces each z by 1 / (1 + exp(-z)); the sum of log(1 + exp z).
  double (*logistic)(T* values, std::int64_t count);
};

// The length below which F.normalize of torch divides by this constant instead.
constexpr double kShortestLength = 1e-12;

// Squared lengths of a row, scale included, and of what rounding it to bfloat16 takes away.
struct RoundingLoss {
  float row;
  float loss;
};

struct RowKernels {
  RowKernel<float> float32;
  RowKernel<double> float64;
  // Rounds as about width / 64 additions; not for double matrices.
  RoundingLoss (*rounding_loss)(const Matrix& matrix, std::int64_t row);
};

extern const RowKernels row_kernels_baseline;
#if defined(GOAL_KERNELS_X86)
extern const RowKernels row_kernels_avx2;
extern const RowKernels row_kernels_avx512;
#endif

}  // namespace goal_kernels
