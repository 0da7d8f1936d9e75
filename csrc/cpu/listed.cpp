// Gradient rows of listed elements: sums of weighted rows of the other side, a slice of the width at a time.
//
// Method: elements are sorted by the row that they add to. A slice of kSliceBytes of up to kSliceRows rows of the
//         other side, 1 MiB, is copied together and stays in a second-level cache, while a list of elements that is
//         long reads every row of it many times; whole rows would come from the last level each time.
// Bytes: both matrices and gradients once for every kSliceRows rows of the other side, and 256 an element and slice
//        from the second level.
// Memory: 16 bytes an element, 32 in double; 1 MiB a worker.
// Determinism: a sum has the order of the list. Which worker takes a slice does not matter.
#include "listed.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "buffer.h"
#include "parallel.h"
#include "tile_loop.h"

namespace goal_kernels {
namespace {

constexpr std::int64_t kSliceRows = 4096;
// A multiply-add here counts as this many when deciding about threads: it is bound by loads.
constexpr double kWorkPerTerm = 2;

// One side: grad [rows, D] += for each element its weight times a row of `source`.
template <typename T>
class ListedSide {
 public:
  ListedSide(const ListedJob& job, const Matrix& source, std::int64_t rows, const std::int64_t* to,
             const std::int64_t* from, void* grad)
      : source_(source),
        rows_(rows),
        count_(job.count),
        to_(to),
        from_(from),
        weight_(static_cast<const T*>(job.weight)),
        grad_(static_cast<T*>(grad)),
        blocks_(ceil_div(source.rows, kSliceRows)),
        end_(blocks_ * rows + 1),
        terms_(job.count) {}

  // A stable counting sort by block of the source, then by row.
  void sort() const {
    const auto list = [&](std::int64_t e) { return from_[e] / kSliceRows * rows_ + to_[e]; };
    std::fill_n(end_.data(), blocks_ * rows_ + 1, 0);
    for (std::int64_t e = 0; e < count_; ++e) ++end_[list(e) + 1];
    for (std::int64_t i = 0; i < blocks_ * rows_; ++i) end_[i + 1] += end_[i];
    // end_[i] is where list i begins, until its elements are in place.
    for (std::int64_t e = 0; e < count_; ++e)
      terms_[end_[list(e)]++] = {static_cast<Integer<T>>(from_[e] % kSliceRows), weight_[e]};
  }

  // Columns [first, first + slice) of gradient rows [begin, end). packed: [kSliceRows, slice].
  void add(std::int64_t first, std::int64_t begin, std::int64_t end, const RowKernel<T>& kernel, T* packed) const {
    const std::int64_t width = std::min(kSlice<T>, source_.width - first);
    for (std::int64_t block = 0; block < blocks_; ++block) {
      std::int64_t at = begin_of(block * rows_ + begin);
      if (at == begin_of(block * rows_ + end)) continue;
      const std::int64_t row = block * kSliceRows;
      kernel.pack_slice(source_, row, std::min(kSliceRows, source_.rows - row), first, packed);
      for (std::int64_t r = begin; r < end; ++r) {
        const std::int64_t stop = end_[block * rows_ + r];
        const T* const ahead = grad_ + std::min(r + kRowsAhead, end - 1) * source_.width + first;
        for (std::int64_t d = 0; d < width; d += 64 / static_cast<std::int64_t>(sizeof(T)))
          __builtin_prefetch(ahead + d, 1);
        if (stop > at) kernel.add_slice(packed, terms_.data() + at, stop - at, grad_ + r * source_.width + first, width);
        at = stop;
      }
    }
  }

  std::int64_t rows() const { return rows_; }

 private:
  std::int64_t begin_of(std::int64_t list) const { return list == 0 ? 0 : end_[list - 1]; }

  const Matrix& source_;
  const std::int64_t rows_, count_;
  const std::int64_t* const to_;
  const std::int64_t* const from_;
  const T* const weight_;
  T* const grad_;
  const std::int64_t blocks_;
  const Buffer<std::int64_t> end_;  // [blocks, rows] and one more
  const Buffer<SliceTerm<T>> terms_;
};

template <typename T>
void add_listed_as(const ListedJob& job, const RowKernel<T>& kernel, int threads) {
  const ListedSide<T> sides[2] = {
      {job, job.columns, job.rows.rows, job.row, job.column, job.grad_rows},
      {job, job.rows, job.columns.rows, job.column, job.row, job.grad_columns},
  };
  const std::int64_t width = job.rows.width, slices = ceil_div(width, kSlice<T>);
  const int workers = worker_count(kWorkPerTerm * double(job.count) * double(width), threads);
  const std::int64_t ranges = ceil_div(workers, slices);  // of rows: work for everyone
  const Buffer<T> packed(workers * kSliceRows * kSlice<T>);
  parallel_for(2, workers, [&](std::int64_t side, int) { sides[side].sort(); });
  parallel_for(2 * slices * ranges, workers, [&](std::int64_t item, int worker) {
    const ListedSide<T>& side = sides[item % 2];
    const std::int64_t range = item / 2 % ranges, slice = item / 2 / ranges;
    side.add(slice * kSlice<T>, side.rows() * range / ranges, side.rows() * (range + 1) / ranges, kernel,
             packed.data() + worker * kSliceRows * kSlice<T>);
  });
}

void check_range(const char* name, const std::int64_t* index, std::int64_t count, std::int64_t limit) {
  for (std::int64_t i = 0; i < count; ++i)
    if (index[i] < 0 || index[i] >= limit)
      throw std::invalid_argument(std::string(name) + ": expected indices in [0, " + std::to_string(limit) +
                                  "), got " + std::to_string(index[i]) + " at position " + std::to_string(i) +
                                  "; pass the indices that `above` returned");
}

}  // namespace

void add_listed(const ListedJob& job, const RowKernels& kernels, int threads) {
  check_sizes(job.rows, job.columns);
  check_range("row", job.row, job.count, job.rows.rows);
  check_range("column", job.column, job.count, job.columns.rows);
  if (job.rows.dtype == Dtype::float64)
    add_listed_as<double>(job, kernels.float64, threads);
  else
    add_listed_as<float>(job, kernels.float32, threads);
}

}  // namespace goal_kernels
