#include "forward.h"

#include "buffer.h"
#include "search.h"

namespace goal_kernels {
namespace {

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
  // The last two vectors lie as `scales` does.
  search({job.image, job.text, nullptr, job.image_ids, job.text_ids, job.normalize, kind, job.rule.epsilon,
          job.rule.beta, job.precision, vector(kPositive), row, column, vector(kImageScale)},
         isa, threads);
  weigh({job.rule, job.image.dtype, count, vector(kPositive), row, column, job.value,
         vector(kPositiveWeight), vector(kRowWeight), vector(kColumnWeight)},
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
