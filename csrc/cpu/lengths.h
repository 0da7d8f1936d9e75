// How far products of rows that were rounded to bfloat16 lie from those of the rows themselves.
//
// Bound: with e = |x - x~| for a row x that is rounded to x~, and a = |x|,
//             |S~ - S| <= e_x (a_y + e_y) + a_x e_y + g (a_x + e_x) (a_y + e_y),
//         g = n 2^-24 / (1 - n 2^-24) for n = D + 2 additions in float in any order (docs/cpu.md, section 3).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>

#include "buffer.h"
#include "parallel.h"
#include "row_kernel.h"

namespace goal_kernels {

// Smaller jobs spend more on lists of candidates than they save.
constexpr std::int64_t kMinElements = std::int64_t{1} << 18;
constexpr std::int64_t kMinWidth = 128;
constexpr std::int64_t kMaxWidth = std::int64_t{1} << 19;  // keeps g below 1/16
// Products of longer rows might overflow. Shorter ones count as this long, so that the error of the sums covers
// what subnormal numbers lose.
constexpr float kLongest = 1e18f;
constexpr float kShortest = 1e-12f;

// Whether all pairs of rows of two matrices are enough to gain by a rounded product, and the bound is of use.
inline bool worth_screening(const Matrix& a, const Matrix& b) {
  return a.rows * b.rows >= kMinElements && a.width >= kMinWidth && a.width <= kMaxWidth;
}

// Lengths of the rows and of what rounding takes away from them, rounded up.
class Lengths {
 public:
  // `padding`: how many more rows to have, for reading beyond the last one.
  Lengths(const Matrix& matrix, std::int64_t padding, const RowKernels& kernels, int threads)
      : rows_(matrix.rows), padding_(padding), row_(rows_), loss_(rows_) {
    const float round_up = static_cast<float>(1 + (double(matrix.width) / 64 + 64) * 0x1p-24);
    parallel_rows(rows_, 2 * double(rows_) * double(matrix.width), threads, [&](std::int64_t i) {
      const RoundingLoss squared = kernels.rounding_loss(matrix, i);
      row_[i] = std::max(round_up * std::sqrt(squared.row), kShortest);  // in this order it keeps NaN
      loss_[i] = round_up * std::sqrt(squared.loss);
    });
    for (std::int64_t i = 0; i < rows_; ++i) {
      bounded_ &= row_[i] <= kLongest && loss_[i] <= kLongest;  // false for NaN
      longest_ = std::max(longest_, row_[i] + loss_[i]);
      largest_loss_ = std::max(largest_loss_, loss_[i]);
    }
  }

  // False if a row is too long or not finite.
  bool bounded() const { return bounded_; }

  // How far below the largest S~ of each row, of all columns of `others`, its largest S may lie:
  // [rows + padding].
  std::unique_ptr<Buffer<float>> slack(const Lengths& others, std::int64_t width) const {
    const double additions = double(width + 2) * 0x1p-24;
    const float sum_error = static_cast<float>(additions / (1 - additions));
    constexpr float twice = 2.001f;  // and the roundings of this formula
    auto slack = std::make_unique<Buffer<float>>(rows_ + padding_);
    for (std::int64_t i = 0; i < rows_; ++i)
      (*slack)[i] = twice * (loss_[i] * others.longest_ + row_[i] * others.largest_loss_ +
                             sum_error * (row_[i] + loss_[i]) * others.longest_);
    std::fill_n(slack->data() + rows_, padding_, 0.0f);
    return slack;
  }

 private:
  std::int64_t rows_;
  std::int64_t padding_;
  Buffer<float> row_;
  Buffer<float> loss_;
  bool bounded_ = true;
  float longest_ = 0;  // a rounded row
  float largest_loss_ = 0;
};

}  // namespace goal_kernels
