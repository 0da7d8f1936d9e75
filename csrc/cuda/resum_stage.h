// The work of `resum` as a template over the warp policy: a warp has a few anchors and walks along all candidates,
// a candidate per lane.
#pragma once

#include "cuda/element.h"
#include "cuda/facts.h"
#include "cuda/resum.h"

namespace goal_kernels::cuda {

constexpr int kResumAnchors = 8;

template <typename Warp, typename Element>
class Resumming {
 public:
  static GOAL_KERNELS_BOTH std::int64_t groups(std::int64_t anchors) {
    return (anchors + kResumAnchors - 1) / kResumAnchors;
  }
  static GOAL_KERNELS_BOTH std::int64_t warps(const MineArguments& a) {
    return groups(a.image.count) + groups(a.text.count);
  }
  static GOAL_KERNELS_WARP void run(const MineArguments& a, std::int64_t warp) {
    const Facts facts = read_facts<Warp>(a.facts, a.parts, a.epsilon);
    if (!wide_range(facts, a.kind == MineKind::kLinear, a.slope)) return;
    const std::int64_t row_groups = groups(a.image.count);
    const bool rows = warp < row_groups;
    Resumming(a, rows, (rows ? warp : warp - row_groups) * kResumAnchors).sum(facts.threshold);
  }

 private:
  template <typename T>
  using Value = typename Warp::template Value<T>;
  static constexpr int kPack = kWholePack<Element>;
  using Pack = Packs<Warp, Element, kPack>;

  GOAL_KERNELS_WARP Resumming(const MineArguments& a, bool rows, std::int64_t first)
      : a_(a),
        rows_(rows),
        first_(first),
        anchors_(rows ? a.image : a.text),
        candidates_(rows ? a.text : a.image) {}

  // Row of anchor r; the last one's for those beyond, whose sums go nowhere.
  GOAL_KERNELS_WARP std::int64_t anchor(int r) const {
    return first_ + r < anchors_.count ? first_ + r : anchors_.count - 1;
  }

  // Similarity of every anchor and each lane's candidate.
  GOAL_KERNELS_WARP void score(Value<std::int64_t> candidate, Value<float> (&out)[kResumAnchors]) const {
    GOAL_KERNELS_UNROLL
    for (int r = 0; r < kResumAnchors; ++r) out[r] = 0.0f;
    add_product(candidate, 0, 0, out);
    if (!a_.split) return;
    add_product(candidate, 0, a_.width, out);
    add_product(candidate, a_.width, 0, out);
  }

  // Product of the parts of the rows that start at these elements.
  GOAL_KERNELS_WARP void add_product(Value<std::int64_t> candidate, int anchor_part, int candidate_part,
                                     Value<float> (&out)[kResumAnchors]) const {
    const Element* const left = static_cast<const Element*>(anchors_.data) + anchor_part;
    const Element* const right = static_cast<const Element*>(candidates_.data) + candidate_part;
    const Value<std::int64_t> offset = candidate * candidates_.stride;
    for (int start = 0; start < a_.width; start += kPack) {
      Value<float> other[kPack];
      Pack::load(right, offset + start, candidate >= 0, other);
      GOAL_KERNELS_UNROLL
      for (int r = 0; r < kResumAnchors; ++r) {
        Value<float> own[kPack];
        const Value<std::int64_t> same_row = anchor(r) * anchors_.stride + start;
        Pack::load(left, same_row, candidate >= 0, own);
        GOAL_KERNELS_UNROLL
        for (int c = 0; c < kPack; ++c) out[r] = fused(own[c], other[c], out[r]);
      }
    }
  }

  GOAL_KERNELS_WARP Value<bool> allowed(std::int64_t anchor, Value<std::int64_t> candidate,
                                        Value<bool> exists) const {
    Value<bool> result = exists;
    const std::int64_t* const target = a_.target;
    if (target == nullptr) {
      result = result & (candidate != anchor);
    } else if (rows_) {
      result = result & (candidate != target[anchor]);
    } else {
      result = result & (load(target, candidate, exists, std::int64_t(-1)) != anchor);
    }
    if (a_.image_ids == nullptr) return result;
    const std::int64_t* const own = rows_ ? a_.image_ids : a_.text_ids;
    const std::int64_t* const theirs = rows_ ? a_.text_ids : a_.image_ids;
    return result & (load(theirs, candidate, exists, std::int64_t(0)) != own[anchor]);
  }

  GOAL_KERNELS_WARP void sum(float threshold) const {
    const std::int64_t* const keys = rows_ ? a_.row_keys : a_.column_keys;
    std::int64_t hardest[kResumAnchors];
    float best[kResumAnchors];
    Value<std::int64_t> chosen = 0;  // lane r: the hardest one of anchor r
    GOAL_KERNELS_UNROLL
    for (int r = 0; r < kResumAnchors; ++r) {
      hardest[r] = Keys<Scalar>::index_of(keys[anchor(r)]);
      chosen = select(Warp::lane() == r, Value<std::int64_t>(hardest[r] < 0 ? 0 : hardest[r]), chosen);
    }
    Value<float> similarity[kResumAnchors], total[kResumAnchors];
    Value<int> number[kResumAnchors];
    score(chosen, similarity);
    GOAL_KERNELS_UNROLL
    for (int r = 0; r < kResumAnchors; ++r) {
      best[r] = lane_value(similarity[r], r);
      total[r] = 0.0f;
      number[r] = 0;
    }
    for (std::int64_t start = 0; start < candidates_.count; start += kWarpLanes) {
      const Value<std::int64_t> candidate = convert<std::int64_t>(Warp::lane()) + start;
      const Value<bool> exists = candidate < candidates_.count;
      score(select(exists, candidate, Value<std::int64_t>(0)), similarity);
      GOAL_KERNELS_UNROLL
      for (int r = 0; r < kResumAnchors; ++r) {
        const Value<bool> kept = allowed(anchor(r), candidate, exists) & (candidate != hardest[r]) &
                                 (similarity[r] >= threshold);
        add(kept, best[r] - similarity[r], total[r], number[r]);
      }
    }
    write(total, number);
  }

  // A gap below 0 is the mining's rounding, of a candidate as hard as the hardest one; a NaN stays.
  GOAL_KERNELS_WARP void add(Value<bool> kept, Value<float> gap, Value<float>& total, Value<int>& number) const {
    Value<bool> counted = kept;
    Value<float> term = gap;
    if (a_.kind == MineKind::kLinear) {
      counted = counted & (gap > 0.0f);
    } else {
      term = exp2_of(select(gap < 0.0f, Value<float>(0.0f), gap) * -a_.slope);
    }
    total = total + select(counted, term, Value<float>(0.0f));
    number = number + select(counted, Value<int>(1), Value<int>(0));
  }

  GOAL_KERNELS_WARP void write(const Value<float> (&total)[kResumAnchors],
                               const Value<int> (&number)[kResumAnchors]) const {
    GOAL_KERNELS_UNROLL
    for (int r = 0; r < kResumAnchors; ++r) {
      const float sum = warp_sum<Warp, float>(total[r]);
      const int count = warp_sum<Warp, int>(number[r]);
      if (first_ + r >= anchors_.count) continue;
      store_one((rows_ ? a_.row_sums : a_.column_sums) + first_ + r, sum);
      store_one((rows_ ? a_.row_counts : a_.column_counts) + first_ + r, count);
    }
  }

  const MineArguments& a_;
  const bool rows_;
  const std::int64_t first_;
  const Rows anchors_;
  const Rows candidates_;
};

}  // namespace goal_kernels::cuda
