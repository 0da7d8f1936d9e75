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

#include "buffer.h"
#include "check_range.h"
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
        begin_(blocks_ * rows + 2),
        terms_(job.count) {}

  // A stable counting sort by block of the source, then by row.
  void sort() const {
    const auto list = [&](std::int64_t e) { return from_[e] / kSliceRows * rows_ + to_[e]; };
    const std::int64_t lists = blocks_ * rows_;
    std::fill_n(begin_.data(), lists + 2, 0);
    for (std::int64_t e = 0; e < count_; ++e) ++begin_[list(e) + 2];
    for (std::int64_t i = 1; i <= lists; ++i) begin_[i + 1] += begin_[i];
    // begin_[i + 1] is where list i begins, until its elements are in place: then where the next one does.
    for (std::int64_t e = 0; e < count_; ++e)
      terms_[begin_[list(e) + 1]++] = {static_cast<Integer<T>>(from_[e] % kSliceRows), weight_[e]};
  }

  // Columns [first, first + slice) of gradient rows [begin, end). packed: [kSliceRows, slice].
  void add(std::int64_t first, std::int64_t begin, std::int64_t end, const RowKernel<T>& kernel, T* packed) const {
    const std::int64_t width = std::min(kSlice<T>, source_.width - first);
    for (std::int64_t block = 0; block < blocks_; ++block) {
      const std::int64_t* const lists = begin_.data() + block * rows_;
      if (lists[begin] == lists[end]) continue;
      const std::int64_t row = block * kSliceRows;
      kernel.pack_slice(source_, row, std::min(kSliceRows, source_.rows - row), first, packed);
      for (std::int64_t r = begin; r < end; ++r) {
        const std::int64_t count = lists[r + 1] - lists[r];
        const T* const ahead = grad_ + std::min(r + kRowsAhead, end - 1) * source_.width + first;
        for (std::int64_t d = 0; d < width; d += 64 / static_cast<std::int64_t>(sizeof(T)))
          __builtin_prefetch(ahead + d, 1);
        T* const sum = grad_ + r * source_.width + first;
        if (count > 0) kernel.add_slice(packed, terms_.data() + lists[r], count, sum, width);
      }
    }
  }

  std::int64_t rows() const { return rows_; }

 private:
  const Matrix& source_;
  const std::int64_t rows_, count_;
  const std::int64_t* const to_;
  const std::int64_t* const from_;
  const T* const weight_;
  T* const grad_;
  const std::int64_t blocks_;
  const Buffer<std::int64_t> begin_;  // [blocks, rows] and two more
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

}  // namespace

void add_listed(const ListedJob& job, const RowKernels& kernels, int threads) {
  check_sizes(job.rows, job.columns);
  constexpr const char* remedy = "pass the indices that `above` returned";
  check_range("row", job.row, job.count, 0, job.rows.rows, remedy);
  check_range("column", job.column, job.count, 0, job.columns.rows, remedy);
  if (job.rows.dtype == Dtype::float64)
    add_listed_as<double>(job, kernels.float64, threads);
  else
    add_listed_as<float>(job, kernels.float32, threads);
}

}  // namespace goal_kernels
