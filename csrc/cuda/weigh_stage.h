// The work of `weigh` as a template over the warp policy: a warp per pair, its image and its text anchor.
#pragma once

#include "cuda/finish_stage.h"
#include "cuda/relative_positive_stage.h"

namespace goal_kernels::cuda {

template <typename Warp, typename Element, int kPack>
class Weighing {
 public:
  static GOAL_KERNELS_BOTH std::int64_t warps(const WeighArguments& a) { return a.finish.mined.image.count; }

  static GOAL_KERNELS_WARP void run(const WeighArguments& a, std::int64_t i) {
    const Finishing<Warp, Element, kPack> finishing(a.finish);
    const Anchor row = finishing.anchor(true, i), column = finishing.anchor(false, i);
    RelativePair relative{0.0f, 0.0f};
    if (a.rule.pair == Pair::linear_ms || a.rule.pair == Pair::sigmoid_ms) {
      if (a.pool == nullptr) {
        relative = relative_positive_of_all<Warp>(a, i, row.value, column.value);
      } else {
        const PoolLookup look_up{a};
        relative = {look_up(a.positive[i], row.value), look_up(a.positive[i], column.value)};
      }
    }
    const AnchorWeights<float> left = weights(a, a.rule.rows, i, row, relative.row);
    const AnchorWeights<float> right = weights(a, a.rule.columns, i, column, relative.column);
    store_one(a.positive_weight + i, left.positive + right.positive);
    store_one(a.row_weight + i, left.negative);
    store_one(a.column_weight + i, right.negative);
    store_one(a.anchor_values + i, static_cast<double>(left.value) + static_cast<double>(right.value));
    add_values(a, i);
  }

 private:
  template <typename T>
  using Value = typename Warp::template Value<T>;

  static GOAL_KERNELS_WARP AnchorWeights<float> weights(const WeighArguments& a, bool counts, std::int64_t i,
                                                        const Anchor& anchor, float relative_positive) {
    if (!counts || anchor.index < 0) return {0.0f, 0.0f, 0.0f};
    const float relative_negative = anchor.count > 0 ? anchor.sum / static_cast<float>(anchor.count) : 0.0f;
    return anchor_weights(a.rule, a.positive[i], anchor.value, relative_positive, relative_negative);
  }

  // The last warp of a group adds the group's values, and that of the last group those of all groups: one order
  // of additions, whichever warp is last.
  static GOAL_KERNELS_WARP void add_values(const WeighArguments& a, std::int64_t i) {
    const std::int64_t count = warps(a), groups = (count + kValueGroup - 1) / kValueGroup;
    const std::int64_t group = i / kValueGroup, first = group * kValueGroup;
    const std::int64_t size = count - first < kValueGroup ? count - first : kValueGroup;
    if (take_ticket(a.tickets + 1 + group) != size - 1) return;
    store_one(a.group_values + group, sum_of(a.anchor_values + first, size));
    if (take_ticket(a.tickets) != groups - 1) return;
    store_one(a.value, static_cast<float>(sum_of(a.group_values, groups)));
  }

  static GOAL_KERNELS_WARP double sum_of(const double* values, std::int64_t count) {
    Value<double> total = 0.0;
    for (std::int64_t start = 0; start < count; start += kWarpLanes) {
      const Value<std::int64_t> k = convert<std::int64_t>(Warp::lane()) + start;
      total = total + load_shared_result(values, k, k < count, 0.0);
    }
    return warp_sum<Warp, double>(total);
  }
};

}  // namespace goal_kernels::cuda
