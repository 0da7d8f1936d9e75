// Decisions by the logistic function: 1 / (1 + exp(-z)) and the logarithm of its complement, of whole rows.
#pragma once

#include "row_kernel.h"

namespace goal_kernels {

// Replaces every element z of `rows` by 1 / (1 + exp(-z)), and writes to sums [rows.rows] the sum of log(1 + exp z)
// of each row, both to a few ulp; what exp(-|z|) is below the smallest normal number counts as 0. `rows` is float or
// double. Bit-equal for any `threads`.
void logistic(const Matrix& rows, double* sums, const RowKernels& kernels, int threads);

}  // namespace goal_kernels
