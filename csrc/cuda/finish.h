// From mined keys and sums to what a backend answers: `finish` writes what a search found, `weigh` goes on to the
// weights, the value and the vectors that a backward reads.
#pragma once

#include "cuda/element.h"
#include "cuda/mine.h"
#include "formulas.h"

namespace goal_kernels::cuda {

constexpr std::int64_t kPoolChunk = 512;    // positives of a partial prefix sum
constexpr std::int64_t kValueGroup = 128;  // anchors whose values are added first

// Hardest similarities and indices of every anchor, and the sums behind R-; sums and counts are nullable.
struct AnchorOutput {
  float* value;
  std::int64_t* index;
  float* sum;
  std::int64_t* count;
};

struct FinishArguments {
  MineArguments mined;  // what mining was asked, and has left
  int row_parts;        // parts of the sums
  int column_parts;
  bool rescore;  // the hardest similarities anew, in float32 from the rows themselves
  Rows image;
  Rows text;
  Dtype dtype;
  int width;
  const float* image_scale;  // nullable: both or none
  const float* text_scale;
  AnchorOutput row;     // [N]
  AnchorOutput column;  // [M]
};

// N = M = B. For more than a few thousand positives R+ reads them in order; see `pool`.
struct WeighArguments {
  FinishArguments finish;
  WeightRule rule;
  const float* positive;    // [B]
  const float* pool;        // [B] ascending, NaN as inf; null: R+ from all positives for every anchor
  double* pool_sums;        // [B], workspace
  double* pool_offsets;     // [ceil(B / kPoolChunk)], workspace
  float* positive_weight;   // [B]
  float* row_weight;        // [B]
  float* column_weight;     // [B]
  double* anchor_values;    // [B], workspace
  double* group_values;     // [ceil(B / kValueGroup)], workspace
  std::int32_t* tickets;    // [1 + ceil(B / kValueGroup)], zeros
  float* value;             // one
};

void finish(const FinishArguments& arguments, CUstream_st* stream);
void finish_emulated(const FinishArguments& arguments);
void weigh(const WeighArguments& arguments, CUstream_st* stream);
void weigh_emulated(const WeighArguments& arguments);

}  // namespace goal_kernels::cuda
