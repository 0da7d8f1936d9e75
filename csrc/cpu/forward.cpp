#include "forward.h"

#include <cmath>
#include <limits>

#include "buffer.h"
#include "pairs.h"

namespace goal_kernels {
namespace {

// Smallest existing positive - epsilon (docs/derivation.md, eq. 6); NaN if one is NaN.
template <typename T>
T relative_threshold(const T* positive, std::int64_t count, double epsilon) {
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  T smallest = kInfinity;
  for (std::int64_t i = 0; i < count; ++i) {
    const T p = positive[i];
    if (std::isnan(p)) return p;
    if (p < smallest && p != -kInfinity) smallest = p;
  }
  return smallest - T(epsilon);
}

template <typename T>
void forward_as(const ForwardJob& job, const Isa& isa, int threads) {
  const std::int64_t count = job.image.rows;
  const Relative kind = relative_of(job.rule.pair);
  const std::int64_t sums = kind == Relative::none ? 0 : count;
  const Buffer<T> sum(2 * sums);
  const Buffer<std::int64_t> number(2 * sums);
  const auto vector = [&](ForwardVector row) { return static_cast<T*>(job.vectors) + row * count; };
  const AnchorOutput row{vector(kRowValue), job.hardest, sum.data(), number.data()};
  const AnchorOutput column{vector(kColumnValue), job.hardest + count, sum.data() + sums,
                            number.data() + sums};
  Matrix image = job.image, text = job.text;
  if (job.normalize) {
    row_scales(image, vector(kImageScale), *isa.row, threads);
    row_scales(text, vector(kTextScale), *isa.row, threads);
    image.scale = vector(kImageScale);
    text.scale = vector(kTextScale);
  }
  T* const positive = vector(kPositive);
  score_pairs(image, text, nullptr, positive, *isa.row, threads);
  const T threshold = relative_threshold(positive, count, job.rule.epsilon);
  mine({image, text, nullptr, job.image_ids, job.text_ids, kind, &threshold, job.rule.beta, job.precision,
        row, column},
       isa, threads);
  weigh({job.rule, image.dtype, count, positive, row, column, job.value, vector(kPositiveWeight),
         vector(kRowWeight), vector(kColumnWeight)},
        threads);
}

}  // namespace

void forward(const ForwardJob& job, const Isa& isa, int threads) {
  if (job.image.dtype == Dtype::float64)
    forward_as<double>(job, isa, threads);
  else
    forward_as<float>(job, isa, threads);
}

}  // namespace goal_kernels
