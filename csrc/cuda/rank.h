// Ranks on Hopper GPUs: for every image how many texts of other images score better than its best own text, or
// the same, and for every text how many other images do, in one pass over tiles of S = image text^T.
//
// A score is a product in float64, rounded to float32. Products of tiles tell most pairs apart: S lies within a
// known distance of the score. The others are *open* and decided in float64, by the warp that found them.
#pragma once

#include "cuda/tiles.h"

struct CUstream_st;  // what cudaStream_t points to

namespace goal_kernels::cuda {

// Fields of the bounds of one side, float32 [kBoundFields, units, kBoundUnit]: what candidates of a query, an image or a
// text, are compared with. Where rows end, the last unit goes on with zeros.
enum BoundField {
  kBoundBest,        // score of the best positive, -inf without one
  kBoundCentre,      // what S is compared with: the same, or a number below every S; NaN where nothing is known of S
  kBoundBroken,      // of the unit, in every place: 1 if nothing is known of some row in it, else 0
  kBoundLongest,     // of the unit: S lies within longest(image) longest(text) of the product in float64
  kBoundResolution,  // of the unit: more than the step from a best positive to the next float32
  kBoundFields,
};
constexpr int kBoundUnit = 128;

// Rows that scores are made from. dtype bfloat16 and float16: these are the operands as well, nothing is written.
// float32: `operand`s [high | low], each `width` wide, are made of them.
struct ScoreArguments {
  Rows image;  // [N, width]; data and strides: multiples of 16 bytes
  Rows text;   // [M, width]
  Dtype dtype;
  int width;                  // multiple of 8
  const std::int64_t* owner;  // [M], in [0, N): row of each text's image

  double* image_squares;  // [N], squared lengths
  double* text_squares;   // [M]
  float* positive;        // [M], score of every text with its own image
  void* image_operand;    // [N, 2 width], null unless float32
  void* text_operand;     // [M, 2 width]
};

struct RankArguments : TileProducts {
  ScoreArguments scored;
  const float* image_bounds;
  const float* text_bounds;
  // Better, then ties; added to.
  std::int32_t* image_counts;  // [2, N]
  std::int32_t* text_counts;   // [2, M]
};

// Enqueue them on `stream`. Throw std::runtime_error with the name of a CUDA error. `rank` needs compute
// capability 9.0. No allocation, no synchronisation.
void score(const ScoreArguments& arguments, CUstream_st* stream);
void rank(const RankArguments& arguments, CUstream_st* stream);

}  // namespace goal_kernels::cuda
