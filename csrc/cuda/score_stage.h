// Squared lengths of all rows and the scores of the positives, and the operands of float32 rows. A warp has kDots
// rows of one side.
#pragma once

#include "cuda/exact_dots.h"
#include "cuda/rank.h"

namespace goal_kernels::cuda {

template <typename Warp, typename Element>
struct Scoring {
  template <typename T>
  using Value = typename Warp::template Value<T>;
  using Dots = ExactDots<Warp, Element>;

  static GOAL_KERNELS_BOTH std::int64_t warps(const ScoreArguments& a) {
    return groups(a.image.count) + groups(a.text.count);
  }

  static GOAL_KERNELS_WARP void run(const ScoreArguments& a, std::int64_t warp) {
    const std::int64_t image_groups = groups(a.image.count);
    const bool image_side = warp < image_groups;
    const Rows& own = image_side ? a.image : a.text;
    const std::int64_t first = (image_side ? warp : warp - image_groups) * kDots;
    const Value<int> lane = Warp::lane();
    const Value<std::int64_t> row = convert<std::int64_t>(Dots::pair_of(lane)) + first;
    const Value<bool> inside = row < own.count, stores = inside & Dots::stores(lane);
    store(image_side ? a.image_squares : a.text_squares, row, Dots::of(own, row, own, row, inside, a.width), stores);
    if (!image_side) {
      const Value<std::int64_t> owner = load(a.owner, row, inside, std::int64_t{0});
      const Value<double> product = Dots::of(a.image, owner, a.text, row, inside, a.width);
      store(a.positive, row, convert<float>(product), stores);
    }
    if constexpr (sizeof(Element) == sizeof(float)) {
      bfloat16* const operand = static_cast<bfloat16*>(image_side ? a.image_operand : a.text_operand);
      const std::int64_t end = first + kDots < own.count ? first + kDots : own.count;
      for (std::int64_t r = first; r < end; ++r)
        split_row(static_cast<const float*>(own.data) + r * own.stride, a.width, operand + r * 2 * a.width);
    }
  }

 private:
  // x [width] -> out [2 width]: rounded to bfloat16, then what rounding left. By one warp.
  static GOAL_KERNELS_WARP void split_row(const float* x, int width, bfloat16* out) {
    using Pack = Packs<Warp, float, Dots::kPack>;
    using OperandPack = Packs<Warp, bfloat16, Dots::kPack>;
    for (int start = 0; start < width; start += Pack::kSpan) {
      const auto column = Pack::first_column() + start;
      const auto offset = convert<std::int64_t>(column);
      const auto inside = column < width;
      Value<float> low[Dots::kPack], high[Dots::kPack];
      Pack::load(x, offset, inside, low);
      GOAL_KERNELS_UNROLL
      for (int c = 0; c < Dots::kPack; ++c) {
        high[c] = rounded<bfloat16>(low[c]);
        low[c] = low[c] - high[c];
      }
      OperandPack::store(out, offset, inside, high);
      OperandPack::store(out + width, offset, inside, low);
    }
  }

  static GOAL_KERNELS_BOTH std::int64_t groups(std::int64_t rows) { return (rows + kDots - 1) / kDots; }
};

}  // namespace goal_kernels::cuda
