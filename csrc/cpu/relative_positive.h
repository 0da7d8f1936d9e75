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
    // NaN compares false, so it joins no set of R+; infinity is beyond every finite limit.
    for (double& p : pool_)
      if (std::isnan(p)) p = kInfinity;
    std::sort(pool_.begin(), pool_.end());
    const std::size_t size = pool_.size();
    below_.resize(size + 1);
    if (kind == Relative::linear) {
      for (std::size_t k = 0; k < size; ++k) below_[k + 1] = below_[k] + pool_[k];
      return;
    }
    above_.resize(size + 1);
    below_[0] = above_[size] = -kInfinity;
    for (std::size_t k = 0; k < size; ++k) below_[k + 1] = log_add(below_[k], -alpha * pool_[k]);
    for (std::size_t k = size; k-- > 0;) above_[k] = log_add(above_[k + 1], -alpha * pool_[k]);
  }

  // Mean over the other positives up to n + epsilon, for an anchor of positive p; 0 if there are none.
  double operator()(double p, double n) const {
    const double limit = n + epsilon_;
    const std::int64_t within = std::isnan(limit) ? 0 : not_above(limit);
    return kind_ == Relative::linear ? linear(p, within) : exponential(p, within);
  }

 private:
  static constexpr double kInfinity = std::numeric_limits<double>::infinity();

  static double log_add(double a, double b) {
    const double top = std::max(a, b);
    return std::isinf(top) ? top : top + std::log1p(std::exp(std::min(a, b) - top));
  }

  // Positives below p in the sorted pool, p itself left out.
  std::int64_t smaller(double p) const {
    return std::lower_bound(pool_.begin(), pool_.end(), p) - pool_.begin();
  }

  std::int64_t not_above(double value) const {
    return std::upper_bound(pool_.begin(), pool_.end(), value) - pool_.begin();
  }

  double linear(double p, std::int64_t within) const {
    // Exact ties of the anchor's own positive, itself among them, have v = 0: not counted.
    const std::int64_t first = smaller(p);
    const std::int64_t ties = std::min(not_above(p), within) - std::min(first, within);
    return mean(double(within) * p - below_[within], within - ties);
  }

  // The anchor's own term is stepped over, not subtracted: beside it the others may be too small to be seen.
  double exponential(double p, std::int64_t within) const {
    const std::int64_t own = smaller(p);
    double total = std::exp(alpha_ * p + below_[std::min(own, within)]);
    if (within > own + 1)
      total += std::exp(alpha_ * p + above_[own + 1]) * -std::expm1(above_[within] - above_[own + 1]);
    return mean(total, within - (within > own ? 1 : 0));
  }

  static double mean(double total, std::int64_t count) { return count > 0 ? total / double(count) : 0.0; }

  const Relative kind_;
  const double epsilon_;
  const double alpha_;
  std::vector<double> pool_;  // [B], ascending
  // [B + 1]. Linear: sums of the first k. Exponential: logarithms of the sums of exp(-alpha q) over the first
  // k and from the k-th on.
  std::vector<double> below_;
  std::vector<double> above_;
};

}  // namespace goal_kernels
