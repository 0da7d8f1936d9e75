// The weight elements as formulas on scalars, for every native backend; docs/derivation.md, section 2.
//
// Twins of goal_kernels/elements.py and weights.py, operation by operation in T. T is double on the CPU.
#pragma once

#include <cmath>
#include <limits>

#if defined(__CUDACC__)
#define GOAL_KERNELS_FORMULA __host__ __device__ inline
#else
#define GOAL_KERNELS_FORMULA inline
#endif

namespace goal_kernels {

enum class Triplet { constant, nca, circle, hinge };
enum class Pair { constant, linear, sigmoid, linear_ms, sigmoid_ms };

struct WeightRule {
  Triplet triplet;
  Pair pair;
  double tau;
  double alpha;
  double beta;
  double lam;
  double epsilon;
  double margin;
  bool rows;     // whether the image anchors count
  bool columns;  // whether the text anchors count
};

// a, b (eq. 7 and 8) and the value of one anchor.
template <typename T>
struct AnchorWeights {
  T positive;
  T negative;
  T value;
};

constexpr double kCircleOffset = 0.5;  // constants.py has the same

template <typename T>
GOAL_KERNELS_FORMULA T sigmoid(T x) {
  return T(1) / (T(1) + std::exp(-x));
}

template <typename T>
GOAL_KERNELS_FORMULA T triplet_weight(const WeightRule& rule, T p, T n) {
  switch (rule.triplet) {
    case Triplet::constant:
      return T(1);
    case Triplet::nca:
      return sigmoid(T(-rule.tau) * (p - n));
    case Triplet::circle:
      return sigmoid(T(-rule.tau) * (p * (T(2) - p) - n * n - T(kCircleOffset)));
    case Triplet::hinge:
      break;
  }
  const T violated = T(rule.margin) + n - p;
  return std::isnan(violated) ? violated : T(violated > T(0));
}

// 1 / x, finite for x = 0: a triplet weight of 0 times infinity would be NaN. NaN stays NaN.
template <typename T>
GOAL_KERNELS_FORMULA T reciprocal(T x) {
  constexpr T kSmallest = std::numeric_limits<T>::min();
  return T(1) / (x < kSmallest ? kSmallest : x);
}

template <typename T>
struct PairWeights {
  T positive;
  T negative;
};

template <typename T>
GOAL_KERNELS_FORMULA PairWeights<T> pair_weights(const WeightRule& rule, T p, T n, T relative_positive,
                                                 T relative_negative) {
  const T alpha = T(rule.alpha), beta = T(rule.beta), lam = T(rule.lam);
  switch (rule.pair) {
    case Pair::constant:
      return {T(1), T(1)};
    case Pair::linear:
      return {T(1) - p, n};
    case Pair::sigmoid:
      return {sigmoid(-alpha * (p - lam)), sigmoid(beta * (n - lam))};
    case Pair::linear_ms:
      return {(T(1) - relative_positive) * (T(1) - p), (T(1) + relative_negative) * n};
    case Pair::sigmoid_ms:
      break;
  }
  return {reciprocal(std::exp(alpha * (p - lam)) + relative_positive),
          reciprocal(std::exp(-beta * (n - lam)) + relative_negative)};
}

// The violation; for hinge x constant the hinge loss itself.
template <typename T>
GOAL_KERNELS_FORMULA T reported_value(const WeightRule& rule, T p, T n) {
  if (rule.triplet != Triplet::hinge || rule.pair != Pair::constant) return n - p;
  const T violated = T(rule.margin) + n - p;
  return violated <= T(0) ? T(0) : violated;  // NaN stays NaN
}

template <typename T>
GOAL_KERNELS_FORMULA AnchorWeights<T> anchor_weights(const WeightRule& rule, T p, T n, T relative_positive,
                                                     T relative_negative) {
  const T triplet = triplet_weight(rule, p, n);
  const PairWeights<T> pair = pair_weights(rule, p, n, relative_positive, relative_negative);
  return {triplet * pair.positive, triplet * pair.negative, reported_value(rule, p, n)};
}

}  // namespace goal_kernels
