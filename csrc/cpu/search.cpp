#include "search.h"

#include <cmath>
#include <limits>

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
void search_as(const SearchJob& job, const Isa& isa, int threads) {
  Matrix image = job.image, text = job.text;
  if (job.normalize) {
    T* const scales = static_cast<T*>(job.scales);
    row_scales(image, scales, *isa.row, threads);
    row_scales(text, scales + image.rows, *isa.row, threads);
    image.scale = scales;
    text.scale = scales + image.rows;
  }
  T* const positive = static_cast<T*>(job.positive);
  score_pairs(image, text, job.target, positive, *isa.row, threads);
  const bool summing = job.relative != Relative::none;
  const T threshold = summing ? relative_threshold(positive, image.rows, job.epsilon) : T(0);
  mine({image, text, job.target, job.image_ids, job.text_ids, job.relative, &threshold, job.beta,
        job.precision, job.row, job.column},
       isa, threads);
}

}  // namespace

void search(const SearchJob& job, const Isa& isa, int threads) {
  if (job.image.dtype == Dtype::float64)
    search_as<double>(job, isa, threads);
  else
    search_as<float>(job, isa, threads);
}

}  // namespace goal_kernels
