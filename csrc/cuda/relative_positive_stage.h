// R+ of an anchor (docs/derivation.md, eq. 5) as templates over the warp policy: by going through all positives, or
// by looking up prefix sums of the sorted ones.
#pragma once

#include "cuda/finish.h"
#include "cuda/warp.h"

namespace goal_kernels::cuda {

struct RelativePair {
  float row;
  float column;
};

// The largest float that is not above a double; NaN stays.
GOAL_KERNELS_BOTH float float_below(double value) {
#if defined(__CUDA_ARCH__)
  return __double2float_rd(value);
#else
  const float near = static_cast<float>(value);
  return static_cast<double>(near) > value ? std::nextafter(near, -INFINITY) : near;
#endif
}

// Anchor i of both directions, whose hardest negatives have these values: O(B) for the warp.
template <typename Warp>
GOAL_KERNELS_WARP RelativePair relative_positive_of_all(const WeighArguments& a, std::int64_t i, float row_value,
                                                        float column_value) {
  using Float = typename Warp::template Value<float>;
  using Int = typename Warp::template Value<int>;
  constexpr int kBlock = 8;  // terms added first, so that errors do not grow with B
  const bool linear = a.rule.pair == Pair::linear_ms;
  const float p = a.positive[i], alpha = static_cast<float>(a.rule.alpha);
  const float row_limit = float_below(static_cast<double>(row_value) + a.rule.epsilon);
  const float column_limit = float_below(static_cast<double>(column_value) + a.rule.epsilon);
  const int count = static_cast<int>(a.finish.mined.image.count), self = static_cast<int>(i);
  Float row_total = 0.0f, column_total = 0.0f;
  Int row_number = 0, column_number = 0;
  for (int base = 0; base < count; base += kBlock * kWarpLanes) {
    Float row_part = 0.0f, column_part = 0.0f;
    GOAL_KERNELS_UNROLL
    for (int step = 0; step < kBlock; ++step) {
      const Int k = Warp::lane() + (base + step * kWarpLanes);
      const Float q = load(a.positive, k, k < count, NAN);  // no comparison with NaN holds
      const Float gap = p - q;
      const Float term = linear ? gap : exp_of(gap * alpha);
      // Exact ties of the anchor's own positive, itself among them, have v = 0: not counted.
      const auto other = linear ? q != p : k != self;
      const auto in_row = (q <= row_limit) & other;
      const auto in_column = (q <= column_limit) & other;
      row_part = row_part + select(in_row, term, Float(0.0f));
      column_part = column_part + select(in_column, term, Float(0.0f));
      row_number = row_number + select(in_row, Int(1), Int(0));
      column_number = column_number + select(in_column, Int(1), Int(0));
    }
    row_total = row_total + row_part;
    column_total = column_total + column_part;
  }
  const float row_sum = warp_sum<Warp, float>(row_total), column_sum = warp_sum<Warp, float>(column_total);
  const int rows = warp_sum<Warp, int>(row_number), columns = warp_sum<Warp, int>(column_number);
  return {rows > 0 ? row_sum / static_cast<float>(rows) : 0.0f,
          columns > 0 ? column_sum / static_cast<float>(columns) : 0.0f};
}

// Prefix sums over one chunk of the pool, and the sum of the chunk.
template <typename Warp>
struct PoolSumming {
  template <typename T>
  using Value = typename Warp::template Value<T>;

  static GOAL_KERNELS_BOTH std::int64_t warps(const WeighArguments& a) {
    return (a.finish.mined.image.count + kPoolChunk - 1) / kPoolChunk;
  }
  static GOAL_KERNELS_WARP void run(const WeighArguments& a, std::int64_t chunk) {
    const std::int64_t count = a.finish.mined.image.count, first = chunk * kPoolChunk;
    const double base = a.pool[0];  // the smallest, so that no exponential exceeds 1
    double before = 0.0;
    for (std::int64_t start = first; start < first + kPoolChunk; start += kWarpLanes) {
      const Value<std::int64_t> k = convert<std::int64_t>(Warp::lane()) + start;
      const Value<bool> mask = k < count;
      const Value<double> q = convert<double>(load(a.pool, k, mask, 0.0f));
      const Value<double> term = a.rule.pair == Pair::linear_ms ? q : exp_of((q - base) * -a.rule.alpha);
      const Value<double> sums = prefix_sums<Warp>(select(mask, term, Value<double>(0.0))) + before;
      store(a.pool_sums, k, sums, mask);
      before = lane_value(sums, kWarpLanes - 1);
    }
    store_one(a.pool_offsets + chunk, before);
  }

  // Inclusive, over the lanes.
  template <typename Policy>
  static GOAL_KERNELS_WARP typename Policy::template Value<double> prefix_sums(
      typename Policy::template Value<double> value) {
    const typename Policy::template Value<int> lane = Policy::lane();
    GOAL_KERNELS_UNROLL
    for (int step = 1; step < kWarpLanes; step *= 2) {
      const auto other = shuffle(value, (lane - step) & (kWarpLanes - 1));
      value = value + select(lane >= step, other, Value<double>(0.0));
    }
    return value;
  }
};

// Sums of chunks -> what comes before each chunk. One warp.
template <typename Warp>
struct PoolOffsets {
  template <typename T>
  using Value = typename Warp::template Value<T>;

  static GOAL_KERNELS_BOTH std::int64_t warps(const WeighArguments&) { return 1; }
  static GOAL_KERNELS_WARP void run(const WeighArguments& a, std::int64_t) {
    const std::int64_t chunks = PoolSumming<Warp>::warps(a);
    double before = 0.0;
    for (std::int64_t start = 0; start < chunks; start += kWarpLanes) {
      const Value<std::int64_t> k = convert<std::int64_t>(Warp::lane()) + start;
      const Value<double> own = load(a.pool_offsets, k, k < chunks, 0.0);
      const Value<double> sums = PoolSumming<Warp>::template prefix_sums<Warp>(own) + before;
      store(a.pool_offsets, k, sums - own, k < chunks);
      before = lane_value(sums, kWarpLanes - 1);
    }
  }
};

// R+ by looking up the sorted positives.
struct PoolLookup {
  const WeighArguments& a;

  // Mean over the other positives up to n + epsilon, for an anchor of positive p; 0 if there are none.
  GOAL_KERNELS_WARP float operator()(float positive, float n) const {
    const double p = positive, limit = static_cast<double>(n) + a.rule.epsilon;
    const std::int64_t within = limit != limit ? 0 : position(limit, true);
    double total;
    std::int64_t counted = within;
    if (a.rule.pair == Pair::linear_ms) {
      // Exact ties of the anchor's own positive, itself among them, have v = 0: not counted.
      const std::int64_t first = position(p, false), last = position(p, true);
      counted -= (last < within ? last : within) - (first < within ? first : within);
      total = double(within) * p - sum_of(within);
    } else {
      const int own = p <= limit ? 1 : 0;
      counted -= own;
      total = exp_of(a.rule.alpha * (p - double(a.pool[0]))) * sum_of(within) - own;
    }
    return counted > 0 ? static_cast<float>(total / double(counted)) : 0.0f;
  }

 private:
  // How many of the pool are below `value`, or not above it.
  GOAL_KERNELS_WARP std::int64_t position(double value, bool including) const {
    std::int64_t low = 0, high = a.finish.mined.image.count;
    while (low < high) {
      const std::int64_t middle = (low + high) / 2;
      const double q = a.pool[middle];
      const bool before = including ? q <= value : q < value;
      low = before ? middle + 1 : low;
      high = before ? high : middle;
    }
    return low;
  }

  GOAL_KERNELS_WARP double sum_of(std::int64_t count) const {
    return count == 0 ? 0.0 : a.pool_sums[count - 1] + a.pool_offsets[(count - 1) / kPoolChunk];
  }
};

}  // namespace goal_kernels::cuda
