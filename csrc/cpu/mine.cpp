// Mining driver: loops, threads and memory around the micro-kernels of tile_kernel.cpp.
//
// In:  image [N, D], text [M, D] in float, bfloat16, half (accumulated in float) or double.
// Out: per row and column the largest allowed S, its lowest index, and the relative-similarity sums.
// Work: 2 N M D FLOPs. S is never stored.
// Memory passes: text packed once; image packed once per block of text columns, ceil(M / 2048) times.
// Memory: 8 MiB of packed text, 0.5 MiB per worker of packed image, at most 64 * 2048 column states,
//         32 bytes per row and 4 per column (double: 56 and 8).
// Determinism: rows are cut into chunks that depend on N alone. A chunk has its own column states, merged in
//         chunk order after each block of columns, and row states that only it updates, column blocks in
//         order. Which worker runs a chunk does not matter.
#include "mine.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "buffer.h"
#include "parallel.h"

namespace goal_kernels {
namespace {

constexpr std::int64_t kMaxBlockColumns = 2048;
constexpr std::int64_t kPackedTextBytes = std::int64_t{8} << 20;   // a share of the last-level cache
constexpr std::int64_t kPackedImageBytes = std::int64_t{1} << 19;  // half of a 1 MiB second-level cache
constexpr std::int64_t kMaxChunks = 64;
constexpr std::int64_t kMinChunks = 16;
constexpr std::int64_t kMergeColumns = 256;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

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

  void reset(std::int64_t first, std::int64_t count) const {
    std::fill_n(value_.data() + first, count, -std::numeric_limits<T>::infinity());
    std::fill_n(index_.data() + first, count, Integer<T>{-1});
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

// How the rows and columns are cut. Depends on the sizes and the micro-tile only.
struct Plan {
  std::int64_t groups;         // micro-rows
  std::int64_t chunks;         // of consecutive groups
  std::int64_t pack_groups;    // groups packed at a time
  std::int64_t block_columns;  // a multiple of the micro-columns

  std::int64_t first_group(std::int64_t chunk) const { return chunk * groups / chunks; }
};

template <typename T>
Plan make_plan(const MineJob& job, const TileKernel<T>& kernel) {
  const std::int64_t width_bytes = job.image.width * std::int64_t{sizeof(T)};
  Plan plan;
  plan.groups = ceil_div(job.image.rows, kernel.rows);
  // Multiples of 8 chunks of about 4 groups or more: even shares for few workers, panels reused.
  const std::int64_t wanted = std::clamp(plan.groups / 32 * 8, kMinChunks, kMaxChunks);
  plan.chunks = std::min(plan.groups, wanted);
  plan.pack_groups = std::max<std::int64_t>(1, kPackedImageBytes / (width_bytes * kernel.rows));
  plan.pack_groups = std::min(plan.pack_groups, ceil_div(plan.groups, plan.chunks));
  const std::int64_t panels = std::clamp<std::int64_t>(
      kPackedTextBytes / (width_bytes * kernel.columns), 1, kMaxBlockColumns / kernel.columns);
  plan.block_columns = std::min(panels, ceil_div(job.text.rows, kernel.columns)) * kernel.columns;
  return plan;
}

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
void finish(const Extrema<T>& state, const RelativeTerms<T>& relative, Relative kind,
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

template <typename T>
class Miner {
 public:
  Miner(const MineJob& job, const TileKernel<T>& kernel, int threads)
      : job_(job),
        kernel_(kernel),
        plan_(make_plan(job, kernel)),
        workers_(worker_count(double(job.image.rows) * double(job.text.rows) * double(job.image.width),
                              threads)),
        target_(job.image.rows),
        row_id_(job.image.rows),
        column_id_(job.text.rows + kernel.columns),
        rows_(job.image.rows),
        columns_(plan_.chunks * plan_.block_columns),
        packed_text_(plan_.block_columns * job.text.width),
        packed_image_(workers_ * packed_image_size()) {}

  void run() {
    prepare();
    for (std::int64_t first = 0; first < job_.text.rows; first += plan_.block_columns) {
      const std::int64_t count = std::min(plan_.block_columns, job_.text.rows - first);
      pack_text(first, count);
      parallel_for(plan_.chunks, workers_, [&](std::int64_t chunk, int worker) {
        mine_chunk(chunk, first, count, packed_image_.data() + worker * packed_image_size());
      });
      merge_columns(first, count);
    }
    finish(rows_.view(), relative_, job_.relative, job_.row, 0, job_.image.rows);
  }

 private:
  std::int64_t packed_image_size() const {
    return plan_.pack_groups * kernel_.rows * job_.image.width;
  }

  void prepare() {
    const std::int64_t rows = job_.image.rows, columns = job_.text.rows;
    relative_ = {};
    if (job_.relative != Relative::none) {
      const T threshold = *static_cast<const T*>(job_.threshold);
      relative_ = {threshold, std::isfinite(threshold) ? threshold : T(0), T(job_.beta)};
    }
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t target = job_.target != nullptr ? job_.target[i] : i;
      target_[i] = target >= 0 && target < columns ? Integer<T>(target) : Integer<T>(-1);
    }
    std::fill_n(row_id_.data(), rows, Integer<T>(0));
    std::fill_n(column_id_.data(), columns + kernel_.columns, Integer<T>(1));
    if (job_.image_ids != nullptr) narrow_ids<T>(job_, row_id_.data(), column_id_.data());
    rows_.reset(0, rows);
  }

  void pack_text(std::int64_t first, std::int64_t count) {
    const std::int64_t panels = ceil_div(count, kernel_.columns);
    parallel_for(panels, workers_, [&](std::int64_t panel, int) {
      const std::int64_t begin = panel * kernel_.columns;
      const std::int64_t width = std::min<std::int64_t>(kernel_.columns, count - begin);
      T* packed = packed_text_.data() + begin * job_.text.width;
      kernel_.pack_columns(job_.text, first + begin, width, packed);
    });
  }

  // All rows of a chunk against columns [first, first + count).
  void mine_chunk(std::int64_t chunk, std::int64_t first, std::int64_t count, T* packed) {
    columns_.reset(chunk * plan_.block_columns, plan_.block_columns);
    const std::int64_t end = plan_.first_group(chunk + 1);
    for (std::int64_t group = plan_.first_group(chunk); group < end; group += plan_.pack_groups) {
      const std::int64_t groups = std::min(plan_.pack_groups, end - group);
      const std::int64_t begin = group * kernel_.rows;
      const std::int64_t rows = std::min(groups * kernel_.rows, job_.image.rows - begin);
      for (std::int64_t r = 0; r < rows; r += kernel_.rows)
        kernel_.pack_rows(job_.image, begin + r, std::min<std::int64_t>(kernel_.rows, rows - r),
                          packed + r * job_.image.width);
      for (std::int64_t c = 0; c < count; c += kernel_.columns)
        mine_panel(chunk, first, c, std::min<std::int64_t>(kernel_.columns, count - c), begin,
                   rows, packed);
    }
  }

  // `rows` packed rows from `begin` on against one panel, `offset` columns into the block.
  void mine_panel(std::int64_t chunk, std::int64_t first, std::int64_t offset, std::int64_t columns,
                  std::int64_t begin, std::int64_t rows, const T* packed) {
    Tile<T> tile;
    tile.packed_columns = packed_text_.data() + offset * job_.text.width;
    tile.depth = job_.image.width;
    tile.columns = static_cast<int>(columns);
    tile.has_ids = job_.image_ids != nullptr;
    tile.first_column = Integer<T>(first + offset);
    tile.column_id = column_id_.data() + first + offset;
    tile.column = columns_.view() + (chunk * plan_.block_columns + offset);
    tile.relative = relative_;
    for (std::int64_t r = 0; r < rows; r += kernel_.rows) {
      tile.packed_rows = packed + r * job_.image.width;
      tile.rows = static_cast<int>(std::min<std::int64_t>(kernel_.rows, rows - r));
      tile.first_row = Integer<T>(begin + r);
      tile.target = target_.data() + begin + r;
      tile.row_id = row_id_.data() + begin + r;
      tile.row = rows_.view() + (begin + r);
      kernel_.run[static_cast<int>(job_.relative)](tile);
    }
  }

  void merge_columns(std::int64_t first, std::int64_t count) {
    parallel_for(ceil_div(count, kMergeColumns), workers_, [&](std::int64_t part, int) {
      const std::int64_t begin = part * kMergeColumns;
      const std::int64_t length = std::min(kMergeColumns, count - begin);
      const Extrema<T> total = columns_.view() + begin;
      for (std::int64_t chunk = 1; chunk < plan_.chunks; ++chunk)
        kernel_.merge[static_cast<int>(job_.relative)](total, total + chunk * plan_.block_columns,
                                                       relative_, length);
      finish(total, relative_, job_.relative, job_.column, first + begin, length);
    });
  }

  const MineJob& job_;
  const TileKernel<T>& kernel_;
  const Plan plan_;
  const int workers_;
  RelativeTerms<T> relative_;
  Buffer<Integer<T>> target_;     // [N]
  Buffer<Integer<T>> row_id_;     // [N]
  Buffer<Integer<T>> column_id_;  // [M + one micro-tile]
  States<T> rows_;                // [N]
  States<T> columns_;             // [chunks, block_columns]
  Buffer<T> packed_text_;         // [block_columns / micro columns, D, micro columns]
  Buffer<T> packed_image_;        // [workers, pack_groups, D, micro rows]
};

}  // namespace

void mine(const MineJob& job, const TileKernels& kernels, int threads) {
  constexpr std::int64_t limit = std::numeric_limits<std::int32_t>::max() - kMaxBlockColumns;
  for (const std::int64_t size : {job.image.rows, job.text.rows, job.image.width})
    if (size < 1 || size > limit)
      throw std::invalid_argument("image, text: expected 1 to " + std::to_string(limit) +
                                  " rows and columns, got " + std::to_string(size));
  if (job.image.dtype == Dtype::float64)
    Miner<double>(job, kernels.float64, threads).run();
  else
    Miner<float>(job, kernels.float32, threads).run();
}

}  // namespace goal_kernels
