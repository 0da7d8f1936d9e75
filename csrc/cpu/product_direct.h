// Products of float rows where they lie, without packing, along the depth: for batches so small that packing
// takes about as long as multiplying. Every element is one sum of vectors, whose lanes are added at the end, so
// it depends on its two rows alone. Internal linkage, see types.h.
#pragma once

#include "lanes.h"
#include "tile_kernel.h"

namespace goal_kernels {
namespace {

struct DirectProduct {
  using Scalar = float;
  static constexpr int kLanes = Lanes<float>::count;
  static constexpr int kRows = 16;
  static constexpr int kVectors = 2;
  static constexpr int kColumns = kVectors * kLanes;
  static constexpr int kDepthStep = 1;
  static constexpr int kValueBytes = sizeof(float);

  // All that is packed of the rows of a tile.
  struct Place {
    const float* first;
    std::int64_t stride;

    const float* row(int r) const { return first + r * stride; }
  };

  static void pack_rows(const Matrix& source, std::int64_t first, std::int64_t, void* packed) {
    const Place place{static_cast<const float*>(source.data) + first * source.stride, source.stride};
    std::memcpy(packed, &place, sizeof place);
  }
  static constexpr auto pack_columns = pack_rows;
  static_assert(kRows * kValueBytes >= sizeof(Place) && kColumns * kValueBytes >= sizeof(Place));
  static void enter() {}
  static void leave() {}

  // similarity [kRows][kColumns], 64-byte aligned; beyond the rows and columns in use anything.
  static void multiply(const TilePlace<float>& place, float* similarity) {
    Place left, right;
    std::memcpy(&left, place.packed_rows, sizeof left);
    std::memcpy(&right, place.packed_columns, sizeof right);
    if (place.columns < kColumns) std::memset(similarity, 0, kRows * kColumns * sizeof(float));
    for (int r = 0; r < place.rows; r += kFewRows)
      for (int c = 0; c < place.columns; c += kFewColumns) {
        const float *rows[kFewRows], *columns[kFewColumns];
        for (int i = 0; i < kFewRows; ++i) rows[i] = left.row(r + i < place.rows ? r + i : r);
        for (int j = 0; j < kFewColumns; ++j) columns[j] = right.row(c + j < place.columns ? c + j : c);
        multiply_few(rows, columns, place.width, similarity + r * kColumns + c);
      }
  }

 private:
  // As many sums as registers hold beside the vectors that they are made of.
  static constexpr int kFewRows = kLanes == 16 ? 4 : 2;
  static constexpr int kFewColumns = 4;
  using Sums = Vec<float>[kFewRows * kFewColumns];

  static void add(const float* const (&rows)[kFewRows], const float* const (&columns)[kFewColumns],
                  std::int64_t begin, Sums& sum) {
    Vec<float> column[kFewColumns];
#pragma GCC unroll 4
    for (int j = 0; j < kFewColumns; ++j) column[j] = load<Vec<float>>(columns[j] + begin);
#pragma GCC unroll 4
    for (int i = 0; i < kFewRows; ++i) {
      const Vec<float> row = load<Vec<float>>(rows[i] + begin);
#pragma GCC unroll 4
      for (int j = 0; j < kFewColumns; ++j) sum[i * kFewColumns + j] += row * column[j];
    }
  }

  static void multiply_few(const float* const (&rows)[kFewRows], const float* const (&columns)[kFewColumns],
                           std::int64_t width, float* out) {
    Sums sum = {};
    for (std::int64_t d = 0; d < width; d += kLanes) add(rows, columns, d, sum);
    constexpr int rows_at_once = kLanes / kFewColumns;
#pragma GCC unroll 4
    for (int i = 0; i < kFewRows; i += rows_at_once) {
      Vec<float> square[kLanes];
      for (int part = 0; part < kLanes; ++part) square[part] = sum[i * kFewColumns + part];
      const Vec<float> totals = row_sums<float>(square);
      float line[kLanes];
      store(line, totals);
      for (int r = 0; r < rows_at_once; ++r)
        std::memcpy(out + (i + r) * kColumns, line + r * kFewColumns, kFewColumns * sizeof(float));
    }
  }
};

}  // namespace
}  // namespace goal_kernels
