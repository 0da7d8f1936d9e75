#include "sample.h"

#include <cmath>
#include <limits>

#include "parallel.h"

namespace goal_kernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::int64_t kRun = 64;  // candidates whose bounds are computed before any noise

// The finaliser of splitmix64, of which the upper 52 bits count.
inline std::uint64_t number_of(std::uint64_t word) {
  word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9u;
  word = (word ^ (word >> 27)) * 0x94D049BB133111EBu;
  return (word ^ (word >> 31)) >> 12;
}

inline double noise(std::uint64_t number) {
  return -std::log(-std::log((double(number) + 0.5) * 0x1p-52));
}

// At least the noise: -log(-log u) <= -log(1 - u) for u = (number + 0.5) / 2^52, and 1 - u is at least the power
// of two that its exponent tells. The factor is log 2 rounded up by far more than the logarithms' errors.
inline double noise_bound(std::uint64_t number) {
  constexpr double log2_above = 0.6931471806;
  constexpr int bias = 1023;
  const double rest = double((std::uint64_t{1} << 52) - number) - 0.5;
  std::uint64_t bits;
  std::memcpy(&bits, &rest, sizeof bits);
  return double(52 + bias - std::int64_t(bits >> 52)) * log2_above;
}

template <typename T>
void sample_row(const SampleJob& job, std::int64_t anchor) {
  const T* const score = static_cast<const T*>(job.score.data) + anchor * job.score.stride;
  const std::uint64_t own = job.anchor_word[anchor];
  double best = -kInfinity;
  std::int64_t place = -1;
  for (std::int64_t begin = 0; begin < job.score.width && !std::isnan(best); begin += kRun) {
    const std::int64_t count = std::min(kRun, job.score.width - begin);
    std::uint64_t number[kRun];
    double mean[kRun], most[kRun];
    for (std::int64_t i = 0; i < count; ++i) {
      number[i] = number_of(own + job.candidate_word[begin + i]);
      mean[i] = double(score[begin + i]) / job.temperature;
      most[i] = mean[i] + noise_bound(number[i]);
    }
    for (std::int64_t i = 0; i < count; ++i) {
      if (most[i] < best) continue;
      const double key = mean[i] + noise(number[i]);
      if (!(key > best || std::isnan(key))) continue;
      best = key;
      place = begin + i;
      if (std::isnan(key)) break;
    }
  }
  job.key[anchor] = best;
  job.index[anchor] = place;
}

}  // namespace

void sample(const SampleJob& job, int threads) {
  const double work = double(job.score.rows) * double(job.score.width) * 16;  // multiply-adds take as long
  parallel_rows(job.score.rows, work, threads, [&](std::int64_t anchor) {
    if (job.score.dtype == Dtype::float64)
      sample_row<double>(job, anchor);
    else
      sample_row<float>(job, anchor);
  });
}

}  // namespace goal_kernels
