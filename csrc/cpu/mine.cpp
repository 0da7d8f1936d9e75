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

#include "exclusion_table.h"
#include "pairs.h"
#include "screen.h"
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
        exclusions_(job.image.rows, job.text.rows, job.target, {job.image_ids, job.text_ids}, kernel.columns),
        rows_(job.image.rows),
        columns_(loop_.plan().chunks * block_columns()) {
    rows_.reset(0, job.image.rows, job.relative);
  }

  void run() {
    loop_.run(*this);
    write_results(rows_.view(), relative_, job_.relative, job_.row, 0, job_.image.rows);
  }

  void start(std::int64_t chunk, int) const {
    columns_.reset(chunk * block_columns(), block_columns(), job_.relative);
  }

  void tile(const TilePlace<T>& place, std::int64_t chunk, std::int64_t offset) const {
    const MineTile<T> tile{place,
                           exclusions_.at(place),
                           rows_.view() + place.first_row,
                           columns_.view() + (chunk * block_columns() + offset),
                           relative_};
    kernel_.mine[static_cast<int>(job_.relative)](tile);
  }

  void stop(std::int64_t) const {}

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

  const MineJob& job_;
  const TileKernel<T>& kernel_;
  const TileLoop<T> loop_;
  const RelativeTerms<T> relative_;
  const ExclusionTable<T> exclusions_;
  States<T> rows_;     // [N]
  States<T> columns_;  // [chunks, block_columns]
};

// Whether packing would take about as long as multiplying: up to these sizes the direct product is the faster one on
// every instruction set (measured from 32 to 512 rows). It takes whole vectors; its sums have width / lanes terms, so
// long rows are left to sums of blocks.
bool suits_direct_product(const MineJob& job) {
  constexpr std::int64_t most_elements = 1 << 14, least_width = 128, most_width = 2048, lanes = 16;
  const std::int64_t width = job.image.width;
  return job.image.dtype == Dtype::float32 && job.image.scale == nullptr && job.relative == Relative::none &&
         job.image.rows * job.text.rows <= most_elements && width >= least_width && width <= most_width &&
         width % lanes == 0;
}

// The fastest product that is as precise as asked. bfloat16 values multiply exactly in any of them.
const TileKernel<float>& choose_kernel(const MineJob& job, const Isa& isa) {
  const bool as_bfloat16 = holds_float(job) ? job.precision == Precision::medium
                                            : job.image.dtype == Dtype::bfloat16;
  if (isa.bfloat16 != nullptr && as_bfloat16) return *isa.bfloat16;
  if (suits_direct_product(job)) return isa.exact->direct;
  const bool as_split = holds_float(job) && job.precision != Precision::highest;
  if (isa.split != nullptr && as_split) return *isa.split;
  return isa.exact->float32;
}

// The values at the mined indices in float. What mining took for NaN stays NaN: with an infinity a split
// product is NaN where one in float need not be, and a number there would not be the largest.
void recompute(const Matrix& anchors, const Matrix& others, const AnchorOutput& mined,
               const RowKernels& kernels, int threads) {
  const Buffer<float> exact(anchors.rows);
  score_pairs(anchors, others, mined.index, exact.data(), kernels, threads);
  float* value = static_cast<float*>(mined.value);
  for (std::int64_t i = 0; i < anchors.rows; ++i) value[i] = std::isnan(value[i]) ? value[i] : exact[i];
}

}  // namespace

const char* mine(const MineJob& job, const Isa& isa, int threads) {
  check_sizes(job.image, job.text);
  if (job.image.dtype == Dtype::float64) {
    Miner<double>(job, isa.exact->float64, threads).run();
    return "exact";
  }
  if (screen(job, isa, threads)) return "screened";
  const TileKernel<float>& kernel = choose_kernel(job, isa);
  Miner<float>(job, kernel, threads).run();
  if (&kernel == &isa.exact->direct) return "direct";
  const bool rough = holds_float(job) && &kernel != &isa.exact->float32;
  if (rough) {
    recompute(job.image, job.text, job.row, *isa.row, threads);
    recompute(job.text, job.image, job.column, *isa.row, threads);
  }
  return &kernel == isa.bfloat16 ? "bfloat16" : &kernel == isa.split ? "split" : "exact";
}

}  // namespace goal_kernels
