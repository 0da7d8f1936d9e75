// The work of `prepare` as templates over the warp policy. A block has kRangeRows rows of one side; its warps
// share them, then one warp finishes.
#pragma once

#include "cuda/facts.h"
#include "cuda/operand.h"
#include "cuda/prepare.h"

namespace goal_kernels::cuda {

constexpr int kPrepareWarps = 16;
constexpr int kPrepareRows = kRangeRows / kPrepareWarps;
constexpr float kShortestRow = 1e-12f;  // constants.py has the same

struct RowFacts {
  float positive;  // smallest
  float length;    // greatest
};

GOAL_KERNELS_BOTH RowFacts no_rows() { return {kInfinity, 0.0f}; }

// A NaN on either side stays.
GOAL_KERNELS_BOTH RowFacts merge(const RowFacts& a, const RowFacts& b) {
  return {a.positive != a.positive || a.positive < b.positive ? a.positive : b.positive,
          a.length != a.length || a.length > b.length ? a.length : b.length};
}

GOAL_KERNELS_BOTH float row_scale(float length) {
  return 1.0f / (length < kShortestRow ? kShortestRow : length);  // this order keeps NaN
}

template <typename Warp, typename Element, int kPack>
class Preparing {
 public:
  GOAL_KERNELS_WARP Preparing(const PrepareArguments& a, bool image_side, std::int64_t block)
      : a_(a), image_side_(image_side), block_(block), own_(image_side ? a.image : a.text) {}

  // The rows of one warp.
  GOAL_KERNELS_WARP RowFacts rows(int warp) const {
    const std::int64_t first = block_ * kRangeRows + warp * kPrepareRows;
    const std::int64_t end = first + kPrepareRows < own_.count ? first + kPrepareRows : own_.count;
    if (first >= end) return no_rows();
    const Value<int> lane = Warp::lane();
    const Value<bool> mask = lane < static_cast<int>(end - first);
    std::int32_t* const counts = image_side_ ? a_.row_counts : a_.column_counts;
    store((image_side_ ? a_.row_keys : a_.column_keys) + first, lane, kNothing, mask);
    if (counts != nullptr) store(counts + first, lane, 0, mask);
    RowFacts found = no_rows();
    for (std::int64_t row = first; row < end; ++row) found = merge(found, prepare_row(row));
    return found;
  }

  // By one warp, given the facts of all rows of the block.
  GOAL_KERNELS_WARP void finish(const RowFacts& found) const {
    if (image_side_) {
      store_one(a_.tickets + 1 + block_, 0);
      if (block_ == 0) store_one(a_.tickets, 0);
      store_one(a_.facts + block_, a_.threshold != nullptr ? *a_.threshold : found.positive);
      store_one(a_.facts + a_.parts + block_, found.length);
      range(a_.target, a_.target_ranges, 0, a_.text.count - 1);
      range(a_.image_ids, a_.image_ranges, INT64_MIN, INT64_MAX);
    } else {
      store_one(a_.facts + 2 * a_.parts + block_, found.length);
      range(a_.text_ids, a_.text_ranges, INT64_MIN, INT64_MAX);
    }
  }

 private:
  template <typename T>
  using Value = typename Warp::template Value<T>;
  using Pack = Packs<Warp, Element, kPack>;
  using Operand = typename OperandElement<Element>::type;

  GOAL_KERNELS_WARP static const Element* row_of(const Rows& matrix, std::int64_t row) {
    return static_cast<const Element*>(matrix.data) + row * matrix.stride;
  }

  GOAL_KERNELS_WARP RowFacts prepare_row(std::int64_t row) const {
    const Element* const x = row_of(own_, row);
    const float length = std::sqrt(row_dot<Warp, Element, kPack>(x, x, a_.width));
    const float scale = a_.normalize ? row_scale(length) : 1.0f;
    if (a_.normalize) store_one((image_side_ ? a_.image_scale : a_.text_scale) + row, scale);
    if (a_.form != OperandForm::kRows) {
      const bool split = a_.form == OperandForm::kSplit;
      const std::int64_t place = row * a_.operand_width * (split ? 2 : 1);
      Operand* const out = static_cast<Operand*>(image_side_ ? a_.image_operand : a_.text_operand) + place;
      write_operand<Warp, Element, kPack>(x, a_.width, scale, split, out, a_.operand_width);
    }
    RowFacts found{kInfinity, a_.normalize ? length * scale : length};
    if (image_side_) {
      const float positive = positive_of(x, row, scale);
      store_one(a_.positive + row, positive);
      if (positive != -kInfinity) found.positive = positive;
    }
    return found;
  }

  GOAL_KERNELS_WARP float positive_of(const Element* x, std::int64_t row, float scale) const {
    const std::int64_t column = a_.target != nullptr ? a_.target[row] : row;
    if (column < 0 || column >= a_.text.count) return -kInfinity;
    const Element* const y = row_of(a_.text, column);
    const float similarity = row_dot<Warp, Element, kPack>(x, y, a_.width);
    if (!a_.normalize) return similarity;
    const float length = std::sqrt(row_dot<Warp, Element, kPack>(y, y, a_.width));
    return similarity * scale * row_scale(length);
  }

  // Smallest and largest of the block's values within [low, high].
  GOAL_KERNELS_WARP void range(const std::int64_t* values, std::int64_t* out, std::int64_t low,
                               std::int64_t high) const {
    const std::int64_t blocks = (own_.count + kRangeRows - 1) / kRangeRows;
    if (values == nullptr || block_ >= blocks) return;
    Value<std::int64_t> least = INT64_MAX, most = INT64_MIN;
    for (int start = 0; start < kRangeRows; start += kWarpLanes) {
      const Value<std::int64_t> row = convert<std::int64_t>(Warp::lane() + start) + block_ * kRangeRows;
      const Value<bool> mask = row < own_.count;
      const Value<std::int64_t> value = load(values, row, mask, INT64_MIN);
      const Value<bool> exists = mask & (value >= low) & (value <= high);
      least = select(exists, minimum(least, value), least);
      most = select(exists, maximum(most, value), most);
    }
    store_one(out + block_, warp_min<Warp, std::int64_t>(least));
    store_one(out + blocks + block_, warp_max<Warp, std::int64_t>(most));
  }

  const PrepareArguments& a_;
  const bool image_side_;
  const std::int64_t block_;
  const Rows own_;
};

}  // namespace goal_kernels::cuda
