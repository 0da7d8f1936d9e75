#include "weigh.h"

#include <limits>
#include <optional>
#include <vector>

#include "parallel.h"
#include "relative_positive.h"

namespace goal_kernels {
namespace {

constexpr std::int64_t kAnchorsPerItem = 1024;
constexpr double kWorkPerAnchor = 512;  // an anchor's exponentials and searches, in multiply-adds

template <typename T>
class Weigher {
 public:
  explicit Weigher(const WeighJob& job) : job_(job), positive_(static_cast<const T*>(job.positive)) {
    const Relative kind = relative_of(job.rule.pair);
    if (kind != Relative::none)
      relative_positive_.emplace(kind, job.rule.epsilon, job.rule.alpha, positive_, job.count);
  }

  void run(int threads) const {
    const std::int64_t items = (job_.count + kAnchorsPerItem - 1) / kAnchorsPerItem;
    std::vector<double> values(static_cast<std::size_t>(items));
    const int workers = worker_count(double(job_.count) * kWorkPerAnchor, threads);
    parallel_for(items, workers, [&](std::int64_t item, int) {
      const std::int64_t begin = item * kAnchorsPerItem;
      values[item] = weigh_anchors(begin, std::min(begin + kAnchorsPerItem, job_.count));
    });
    double value = 0;
    for (const double part : values) value += part;
    *static_cast<T*>(job_.value) = T(value);
  }

 private:
  // Anchors [begin, end) of both sides; returns the sum of their values.
  double weigh_anchors(std::int64_t begin, std::int64_t end) const {
    double value = 0;
    for (std::int64_t i = begin; i < end; ++i) {
      const AnchorWeights<double> row = weigh_anchor(job_.rule.rows, job_.row, i);
      const AnchorWeights<double> column = weigh_anchor(job_.rule.columns, job_.column, i);
      static_cast<T*>(job_.positive_weight)[i] = T(row.positive + column.positive);
      static_cast<T*>(job_.row_weight)[i] = T(row.negative);
      static_cast<T*>(job_.column_weight)[i] = T(column.negative);
      value += row.value + column.value;
    }
    return value;
  }

  AnchorWeights<double> weigh_anchor(bool counts, const AnchorOutput& mined, std::int64_t i) const {
    if (!counts || mined.index[i] < 0) return {};
    const double p = double(positive_[i]), n = double(static_cast<const T*>(mined.value)[i]);
    double relative_positive = 0, relative_negative = 0;
    if (relative_positive_) {
      relative_positive = (*relative_positive_)(p, n);
      if (mined.count[i] > 0) relative_negative = mean_of(mined, i);
    }
    return anchor_weights(job_.rule, p, n, relative_positive, relative_negative);
  }

  // R-. Exponentials that are too small for the dtype of their sum count as its smallest normal number.
  double mean_of(const AnchorOutput& mined, std::int64_t i) const {
    constexpr double kSmallest = std::numeric_limits<T>::min();
    const double mean = double(static_cast<const T*>(mined.sum)[i]) / double(mined.count[i]);
    return job_.rule.pair == Pair::sigmoid_ms && mean < kSmallest ? kSmallest : mean;
  }

  const WeighJob& job_;
  const T* const positive_;
  std::optional<RelativePositive> relative_positive_;
};

}  // namespace

Relative relative_of(Pair pair) {
  if (pair == Pair::linear_ms) return Relative::linear;
  return pair == Pair::sigmoid_ms ? Relative::exponential : Relative::none;
}

void weigh(const WeighJob& job, int threads) {
  if (job.dtype == Dtype::float64)
    Weigher<double>(job).run(threads);
  else
    Weigher<float>(job).run(threads);
}

}  // namespace goal_kernels
