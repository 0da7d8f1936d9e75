// Squared lengths of all rows and the scores of the positives, and the operands of float32 rows. A warp has kDots
// rows of one side.
#pragma once

#include "cuda/exact_dots.h"
#include "cuda/operand.h"
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
    const Value<bool> inside = row < own.count, speaks = inside & Dots::speaks(lane);
    store(image_side ? a.image_squares : a.text_squares, row, Dots::of(own, row, own, row, inside, a.width), speaks);
    if (!image_side) {
      const Value<std::int64_t> owner = load(a.owner, row, inside, std::int64_t{0});
      const Value<double> product = Dots::of(a.image, owner, a.text, row, inside, a.width);
      store(a.positive, row, convert<float>(product), speaks);
    }
    if constexpr (sizeof(Element) == sizeof(float)) {
      bfloat16* const operand = static_cast<bfloat16*>(image_side ? a.image_operand : a.text_operand);
      const std::int64_t end = first + kDots < own.count ? first + kDots : own.count;
      for (std::int64_t r = first; r < end; ++r)
        write_operand<Warp, float, Dots::kPack>(static_cast<const float*>(own.data) + r * own.stride, a.width, 1.0f,
                                                true, operand + r * 2 * a.width, a.width);
    }
  }

 private:
  static GOAL_KERNELS_BOTH std::int64_t groups(std::int64_t rows) { return (rows + kDots - 1) / kDots; }
};

}  // namespace goal_kernels::cuda
