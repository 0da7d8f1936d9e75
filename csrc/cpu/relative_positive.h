// R+ of an anchor in O(log B), after sorting the positives of all; docs/derivation.md, eq. 5.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "tile_kernel.h"

namespace goal_kernels {

class RelativePositive {
 public:
  template <typename T>
  RelativePositive(Relative kind, double epsilon, double alpha, const T* positive, std::int64_t count)
      : kind_(kind), epsilon_(epsilon), alpha_(alpha), pool_(positive, positive + count) {
    // No comparison with NaN holds, so it is in no one's set; infinity is beyond every finite limit.
    for (double& p : pool_)
      if (std::isnan(p)) p = std::numeric_limits<double>::infinity();
    std::sort(pool_.begin(), pool_.end());
    sums_.reserve(pool_.size() + 1);
    sums_.push_back(0.0);
    for (const double q : pool_)
      sums_.push_back(sums_.back() + (kind == Relative::linear ? q : std::exp(-alpha * (q - pool_[0]))));
  }

  // Mean over the other positives up to n + epsilon, for an anchor of positive p; 0 if there are none.
  double operator()(double p, double n) const {
    const double limit = n + epsilon_;
    const std::int64_t within = std::isnan(limit) ? 0 : not_above(limit);
    return kind_ == Relative::linear ? linear(p, within) : exponential(p, within, p <= limit);
  }

 private:
  std::int64_t not_above(double value) const {
    return std::upper_bound(pool_.begin(), pool_.end(), value) - pool_.begin();
  }

  double linear(double p, std::int64_t within) const {
    // Exact ties of the anchor's own positive, itself among them, have v = 0: not counted.
    const std::int64_t first = std::lower_bound(pool_.begin(), pool_.end(), p) - pool_.begin();
    const std::int64_t ties = std::min(not_above(p), within) - std::min(first, within);
    return mean(double(within) * p - sums_[within], within - ties);
  }

  double exponential(double p, std::int64_t within, bool own) const {
    const double total = std::exp(alpha_ * (p - pool_[0])) * sums_[within] - (own ? 1.0 : 0.0);
    return mean(total, within - (own ? 1 : 0));
  }

  static double mean(double total, std::int64_t count) { return count > 0 ? total / double(count) : 0.0; }

  const Relative kind_;
  const double epsilon_;
  const double alpha_;
  std::vector<double> pool_;  // [B], ascending
  std::vector<double> sums_;  // [B + 1], prefix sums of the pool or of exp(-alpha (q - smallest))
};

}  // namespace goal_kernels
