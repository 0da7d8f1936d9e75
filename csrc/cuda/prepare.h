// The first launch: positives, scales and facts of a batch, operands that mining can multiply, and everything
// that later launches expect to find started.
#pragma once

#include "cuda/element.h"

struct CUstream_st;  // what cudaStream_t points to

namespace goal_kernels::cuda {

constexpr int kRangeRows = 128;  // rows of a preparing block, and of an entry of the ranges

// What mining multiplies. kRows: the rows as they are, nothing is made. kCopy: rows of 16-bit numbers, padded
// with zeros. kSplit: [high | low] bfloat16 parts of float32, each padded.
enum class OperandForm { kRows, kCopy, kSplit };

struct PrepareArguments {
  Rows image;  // [N, width]
  Rows text;   // [M, width]
  Dtype dtype;
  int width;
  bool normalize;

  OperandForm form;
  int operand_width;    // multiple of 8, at least `width`
  void* image_operand;  // [N, operand_width], kSplit: [N, 2 operand_width]; null for kRows
  void* text_operand;   // [M, ...]

  const std::int64_t* target;  // as in `Pairing`, nullable
  const std::int64_t* image_ids;
  const std::int64_t* text_ids;
  std::int64_t* target_ranges;  // as in `MineArguments`; null with their vector
  std::int64_t* image_ranges;
  std::int64_t* text_ranges;

  const float* threshold;  // stands for the smallest positive; null: none given
  float* positive;         // [N], -inf where there is none
  float* image_scale;      // [N], null without `normalize`
  float* text_scale;       // [M]
  float* facts;            // [3, parts], see facts.h
  int parts;               // prepare_parts(N, M)

  std::int64_t* row_keys;  // [N], set to kNothing
  std::int64_t* column_keys;
  std::int32_t* row_counts;  // [N], set to 0; nullable
  std::int32_t* column_counts;
  std::int32_t* tickets;  // [1 + parts], set to 0
};

constexpr std::int64_t prepare_parts(std::int64_t rows, std::int64_t columns) {
  return ((rows > columns ? rows : columns) + kRangeRows - 1) / kRangeRows;
}

// Enqueues it on `stream`. Throws std::runtime_error with the name of a CUDA error.
void prepare(const PrepareArguments& arguments, CUstream_st* stream);
// The same on the processor.
void prepare_emulated(const PrepareArguments& arguments);

}  // namespace goal_kernels::cuda
