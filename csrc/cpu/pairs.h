// Similarities of given pairs and lengths of rows: O(N D), no matrix.
#pragma once

#include <cstdint>

#include "row_kernel.h"

namespace goal_kernels {

// similarity[i] = <a[i], b[index[i]]>, both with their scales; -inf where the index is outside [0, b.rows).
// index [a.rows]; null: i. similarity [a.rows]: double for double matrices, else float. Same dtype and width.
// Rounds as about width / 64 additions in the accumulate dtype. Bit-equal for any `threads`.
void score_pairs(const Matrix& a, const Matrix& b, const std::int64_t* index, void* similarity,
                 const RowKernels& kernels, int threads);

// scale[i] = 1 / max(length of row i, kShortestLength), as torch's F.normalize divides. scale [rows] as
// above; scales that the matrix has already are left out.
void row_scales(const Matrix& matrix, void* scale, const RowKernels& kernels, int threads);

}  // namespace goal_kernels
