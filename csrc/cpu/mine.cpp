// Mining: the states of rows and columns around the tile loop.
//
// In:  image [N, D], text [M, D] in any dtype.
// Out: per row and column the largest allowed S, its lowest index, and the relative-similarity sums.
// Memory: besides the tile loop's at most 64 * 2048 column states, 32 bytes per row and 4 per column
//         (double: 56 and 8).
// Determinism: a chunk of rows has its own column states, merged in chunk order after each block of columns,
//         and row states that only it updates.
#include "mine.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "pairs.h"
#include "tile_loop.h"

namespace goal_kernels {
namespace {

constexpr std::int64_t kMergeColumns = 256;

template <typename T>
Extrema<T> operator+(const Extrema<T>& base, std::int64_t step) {
  return {base.value + step, base.index + step, base.count + step, base.ties + step,
          base.sum + step};
}

// Owns the states of `length` anchors.
template <typename T>
class States {
 public:
  explicit States(std::int64_t length)
      : value_(length), index_(length), count_(length), ties_(length), sum_(length) {}

  Extrema<T> view() const {
    return {value_.data(), index_.data(), count_.data(), ties_.data(), sum_.data()};
  }

  void reset(std::int64_t first, std::int64_t count, Relative kind) const {
    std::fill_n(value_.data() + first, count, -std::numeric_limits<T>::infinity());
    std::fill_n(index_.data() + first, count, Integer<T>{-1});
    if (kind == Relative::none) return;
    std::fill_n(count_.data() + first, count, Integer<T>{0});
    std::fill_n(ties_.data() + first, count, Integer<T>{0});
    std::fill_n(sum_.data() + first, count, 0.0);
  }

 private:
  Buffer<T> value_;
  Buffer<Integer<T>> index_;
  Buffer<Integer<T>> count_;
  Buffer<Integer<T>> ties_;
  Buffer<double> sum_;
};

template <typename T>
bool fits(const std::int64_t* ids, std::int64_t count) {
  using Limits = std::numeric_limits<Integer<T>>;
  return std::all_of(ids, ids + count,
                     [](std::int64_t id) { return id >= Limits::min() && id <= Limits::max(); });
}

// Ids as lane-wide integers: as they are if they fit, else their ranks.
template <typename T>
void narrow_ids(const MineJob& job, Integer<T>* row_id, Integer<T>* column_id) {
  const std::int64_t rows = job.image.rows, columns = job.text.rows;
  if (fits<T>(job.image_ids, rows) && fits<T>(job.text_ids, columns)) {
    std::copy_n(job.image_ids, rows, row_id);
    std::copy_n(job.text_ids, columns, column_id);
    return;
  }
  std::vector<std::int64_t> known(job.image_ids, job.image_ids + rows);
  known.insert(known.end(), job.text_ids, job.text_ids + columns);
  std::sort(known.begin(), known.end());
  known.erase(std::unique(known.begin(), known.end()), known.end());
  const auto rank = [&](std::int64_t id) {
    return Integer<T>(std::lower_bound(known.begin(), known.end(), id) - known.begin());
  };
  std::transform(job.image_ids, job.image_ids + rows, row_id, rank);
  std::transform(job.text_ids, job.text_ids + columns, column_id, rank);
}

// Writes the results of `count` anchors.
template <typename T>
void write_results(const Extrema<T>& state, const RelativeTerms<T>& relative, Relative kind,
            const AnchorOutput& out, std::int64_t first, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    const T value = state.value[i];
    static_cast<T*>(out.value)[first + i] = value;
    out.index[first + i] = state.index[i];
    if (kind == Relative::none) continue;
    const bool hardest_counted = value >= relative.threshold;
    std::int64_t others = state.count[i];
    double sum = state.sum[i];
    if (kind == Relative::linear) {
      // Without a hardest element at or above the threshold nothing is above it, except beside NaN.
      others = hardest_counted ? others - state.ties[i] : 0;
      // sum of (value - S) = count * (value - offset) - sum of (S - offset); ties contribute zero.
      const double gap = double(value) - double(relative.offset);
      const double total = double(state.count[i]) * gap - sum;
      sum = std::isinf(value) ? gap : std::max(total, 0.0);
    } else {
      others -= hardest_counted ? 1 : 0;
    }
    static_cast<T*>(out.sum)[first + i] = others > 0 ? T(sum) : T(0);
    out.count[first + i] = others;
  }
}

// The job of the tile loop.
template <typename T>
class Miner {
 public:
  Miner(const MineJob& job, const TileKernel<T>& kernel, int threads)
      : job_(job),
        kernel_(kernel),
        loop_(job.image, job.text, kernel, threads),
        relative_(relative_terms()),
        target_(job.image.rows),
        row_id_(job.image.rows),
        column_id_(job.text.rows + kernel.columns),
        rows_(job.image.rows),
        columns_(loop_.plan().chunks * block_columns()) {
    fill_targets();
    std::fill_n(row_id_.data(), job.image.rows, Integer<T>(0));
    std::fill_n(column_id_.data(), job.text.rows + kernel.columns, Integer<T>(1));
    if (job.image_ids != nullptr) narrow_ids<T>(job, row_id_.data(), column_id_.data());
    rows_.reset(0, job.image.rows, job.relative);
  }

  void run() {
    loop_.run(*this);
    write_results(rows_.view(), relative_, job_.relative, job_.row, 0, job_.image.rows);
  }

  void start(std::int64_t chunk) const {
    columns_.reset(chunk * block_columns(), block_columns(), job_.relative);
  }

  void tile(const TilePlace<T>& place, std::int64_t chunk, std::int64_t offset) const {
    const MineTile<T> tile{place,
                           job_.image_ids != nullptr,
                           target_.data() + place.first_row,
                           row_id_.data() + place.first_row,
                           column_id_.data() + place.first_column,
                           rows_.view() + place.first_row,
                           columns_.view() + (chunk * block_columns() + offset),
                           relative_};
    kernel_.mine[static_cast<int>(job_.relative)](tile);
  }

  void finish(std::int64_t first, std::int64_t count) const {
    parallel_for(ceil_div(count, kMergeColumns), loop_.workers(), [&](std::int64_t part, int) {
      const std::int64_t begin = part * kMergeColumns;
      const std::int64_t length = std::min(kMergeColumns, count - begin);
      const Extrema<T> total = columns_.view() + begin;
      for (std::int64_t chunk = 1; chunk < loop_.plan().chunks; ++chunk)
        kernel_.merge[static_cast<int>(job_.relative)](total, total + chunk * block_columns(),
                                                       relative_, length);
      write_results(total, relative_, job_.relative, job_.column, first + begin, length);
    });
  }

 private:
  std::int64_t block_columns() const { return loop_.plan().block_columns; }

  RelativeTerms<T> relative_terms() const {
    if (job_.relative == Relative::none) return {};
    const T threshold = *static_cast<const T*>(job_.threshold);
    return {threshold, std::isfinite(threshold) ? threshold : T(0), T(job_.beta)};
  }

  void fill_targets() const {
    for (std::int64_t i = 0; i < job_.image.rows; ++i) {
      const std::int64_t target = job_.target != nullptr ? job_.target[i] : i;
      target_[i] = target >= 0 && target < job_.text.rows ? Integer<T>(target) : Integer<T>(-1);
    }
  }

  const MineJob& job_;
  const TileKernel<T>& kernel_;
  const TileLoop<T> loop_;
  const RelativeTerms<T> relative_;
  Buffer<Integer<T>> target_;     // [N]
  Buffer<Integer<T>> row_id_;     // [N]
  Buffer<Integer<T>> column_id_;  // [M + one micro-tile]
  States<T> rows_;                // [N]
  States<T> columns_;             // [chunks, block_columns]
};

// The fastest product that is as precise as asked. bfloat16 values multiply exactly in any of them; half
// values have more digits than bfloat16 and fewer exponents than their own sums need.
const TileKernel<float>& choose_kernel(const MineJob& job, const Isa& isa) {
  const bool medium = job.image.dtype == Dtype::float32 && job.precision == Precision::medium;
  if (isa.bfloat16 != nullptr && (medium || job.image.dtype == Dtype::bfloat16)) return *isa.bfloat16;
  const bool high = job.image.dtype == Dtype::float32 && job.precision != Precision::highest;
  if (isa.split != nullptr && high) return *isa.split;
  return isa.exact->float32;
}

// Whether S is rougher than a product of the inputs in float: scaled bfloat16 values are rounded again.
bool is_rough(const MineJob& job, const Isa& isa, const TileKernel<float>& kernel) {
  const bool exact_values = job.image.dtype == Dtype::bfloat16 && job.image.scale == nullptr;
  return &kernel != &isa.exact->float32 && !exact_values;
}

}  // namespace

void mine(const MineJob& job, const Isa& isa, int threads) {
  check_sizes(job.image, job.text);
  if (job.image.dtype == Dtype::float64) {
    Miner<double>(job, isa.exact->float64, threads).run();
    return;
  }
  const TileKernel<float>& kernel = choose_kernel(job, isa);
  Miner<float>(job, kernel, threads).run();
  if (!is_rough(job, isa, kernel)) return;
  score_pairs(job.image, job.text, job.row.index, job.row.value, *isa.row, threads);
  score_pairs(job.text, job.image, job.column.index, job.column.value, *isa.row, threads);
}

}  // namespace goal_kernels
