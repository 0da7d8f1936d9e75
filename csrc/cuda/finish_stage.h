// The work of `finish` as a template over the warp policy: a warp per row and column of the same number.
#pragma once

#include "cuda/facts.h"
#include "cuda/finish.h"

namespace goal_kernels::cuda {

// One anchor as mined. sum, count: as in `Mined`.
struct Anchor {
  float value;
  std::int32_t index;  // -1: no negative
  float sum;
  std::int32_t count;
};

template <typename Warp, typename Element, int kPack>
class Finishing {
 public:
  static GOAL_KERNELS_BOTH std::int64_t warps(const FinishArguments& a) {
    return a.mined.image.count > a.mined.text.count ? a.mined.image.count : a.mined.text.count;
  }
  static GOAL_KERNELS_WARP void run(const FinishArguments& a, std::int64_t warp) {
    const Finishing finishing(a);
    if (warp < a.mined.image.count) finishing.anchor(true, warp);
    if (warp < a.mined.text.count) finishing.anchor(false, warp);
  }

  GOAL_KERNELS_WARP explicit Finishing(const FinishArguments& a) : a_(a), facts_{0.0f, 0.0f}, wide_(false) {
    if (a.mined.kind == MineKind::kNone) return;
    facts_ = read_facts<Warp>(a.mined.facts, a.mined.parts, a.mined.epsilon);
    wide_ = wide_range(facts_, a.mined.kind == MineKind::kLinear, a.mined.slope);
  }

  // Reads anchor i of a side, and writes it to the output.
  GOAL_KERNELS_WARP Anchor anchor(bool rows, std::int64_t i) const {
    const std::int64_t packed = (rows ? a_.mined.row_keys : a_.mined.column_keys)[i];
    const std::int32_t key = Keys<Scalar>::key_of(packed);
    const float mined = Keys<Scalar>::decode(key);
    Anchor result{mined, Keys<Scalar>::index_of(packed), 0.0f, 0};
    if (a_.mined.kind != MineKind::kNone) add_sums(rows, i, key, mined, result);
    if (a_.rescore && result.index >= 0) rescore(similarity(rows, i, result.index), result);
    write(rows ? a_.row : a_.column, i, result);
    return result;
  }

 private:
  template <typename T>
  using Value = typename Warp::template Value<T>;

  GOAL_KERNELS_WARP void add_sums(bool rows, std::int64_t i, std::int32_t key, float mined,
                                  Anchor& result) const {
    const MineArguments& m = a_.mined;
    const float* const sums = rows ? m.row_sums : m.column_sums;
    const std::int32_t count = (rows ? m.row_counts : m.column_counts)[i];
    if (wide_) {  // from `resum`, as they are
      result.sum = sums[i];
      result.count = count;
      return;
    }
    const std::int64_t length = rows ? m.image.count : m.text.count;
    const std::int64_t* const tops = rows ? m.row_tops : m.column_tops;
    const int parts = rows ? a_.row_parts : a_.column_parts;
    const bool itself = mined >= facts_.threshold;
    Value<double> total = 0.0;
    Value<int> tied = 0;
    for (int start = 0; start < parts; start += kWarpLanes) {
      const Value<int> part = Warp::lane() + start;
      const Value<std::int64_t> offset = convert<std::int64_t>(part) * length + i;
      total = total + convert<double>(load(sums, offset, part < parts, 0.0f));
      if (tops == nullptr) continue;
      const Value<std::int64_t> top = load(tops, offset, part < parts, kNothing);
      const Value<bool> here = (Keys<Warp>::key_of(top) == key) & (part < parts);
      tied = tied + select(here, convert<int>(top & std::int64_t(kMagnitude)), Value<int>(0));
    }
    const double sum = warp_sum<Warp, double>(total);
    if (m.kind == MineKind::kLinear) {
      result.count = count - warp_sum<Warp, int>(tied);
      const double lever = static_cast<double>(mined) - static_cast<double>(facts_.threshold);
      result.sum = positive_part(double(count) * lever - sum, result.count);
    } else {
      // exp(-beta (n - S)) from exp(beta (S - threshold)); the hardest one's own is 1.
      const float scale = exp2_of(m.slope * (facts_.threshold - mined));
      result.count = count - (itself ? 1 : 0);
      result.sum = positive_part(sum * double(scale) - 1.0, result.count);
    }
  }

  // The hardest similarity as it is, and sums that are relative to it.
  GOAL_KERNELS_WARP void rescore(float exact, Anchor& anchor) const {
    const float shift = exact - anchor.value;
    anchor.value = exact;
    if (anchor.count == 0 || !(absolute(shift) < kInfinity)) return;
    if (a_.mined.kind == MineKind::kLinear)
      anchor.sum = positive_part(double(anchor.sum) + double(anchor.count) * shift, anchor.count);
    else
      anchor.sum *= exp2_of(-a_.mined.slope * shift);
  }

  // Rounding may leave less than nothing of terms that are far below the hardest one.
  static GOAL_KERNELS_WARP float positive_part(double sum, std::int32_t count) {
    return count > 0 && sum > 0.0 ? static_cast<float>(sum) : 0.0f;
  }

  GOAL_KERNELS_WARP float similarity(bool rows, std::int64_t i, std::int64_t j) const {
    const std::int64_t row = rows ? i : j, column = rows ? j : i;
    const Element* const x = static_cast<const Element*>(a_.image.data) + row * a_.image.stride;
    const Element* const y = static_cast<const Element*>(a_.text.data) + column * a_.text.stride;
    const float product = row_dot<Warp, Element, kPack>(x, y, a_.width);
    return a_.image_scale == nullptr ? product : product * a_.image_scale[row] * a_.text_scale[column];
  }

  static GOAL_KERNELS_WARP void write(const AnchorOutput& out, std::int64_t i, const Anchor& anchor) {
    store_one(out.value + i, anchor.value);
    store_one(out.index + i, anchor.index);
    if (out.sum == nullptr) return;
    store_one(out.sum + i, anchor.sum);
    store_one(out.count + i, anchor.count);
  }

  const FinishArguments& a_;
  Facts facts_;
  bool wide_;
};

}  // namespace goal_kernels::cuda
