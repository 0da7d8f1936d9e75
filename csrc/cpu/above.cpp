// Elements above a bound: lists of candidates around the tile loop.
//
// Method: as in top_k.cpp, with bounds that stay. S may be exact, or a product of rounded values S~ with
//         |S~ - S| <= slack / 2 (lengths.h): then bounds are lower by that, and what is found near them, or all of
//         it, is computed again in float.
// Memory: 12 bytes a candidate, 24 in double, besides the tile loop's; addresses for a whole block of columns more.
// Determinism: what is listed of a row depends on it alone; giving up on the sum over all after a block of columns.
#include "above.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "exclusion_table.h"
#include "lengths.h"
#include "pairs.h"
#include "tile_loop.h"

namespace goal_kernels {
namespace {

// The job of the tile loop. slack [R] and [N]: how far S may lie from its product; null: it is exact.
template <typename T>
class Lister {
 public:
  Lister(const AboveJob& job, const TileKernel<T>& kernel, const RowKernel<T>& row, const T* row_slack,
         const T* column_slack, int threads)
      : job_(job),
        row_(row),
        row_slack_(row_slack),
        column_slack_(column_slack),
        kernel_(kernel),
        loop_(job.rows, job.columns, kernel, threads),
        exclusions_(job.rows.rows, job.columns.rows, job.target, {job.row_ids, job.column_ids}, kernel.columns),
        room_(kernel.columns + kVectorRoom),
        row_floor_(job.rows.rows),
        column_floor_(job.columns.rows + kernel.columns),
        ceiling_(kernel.rows),
        count_(loop_.workers() * kernel.rows),
        value_(loop_.workers() * kernel.rows * room_),
        column_(loop_.workers() * kernel.rows * room_),
        next_(job.rows.rows),
        worker_(static_cast<std::size_t>(loop_.plan().chunks)),
        found_(static_cast<std::size_t>(loop_.plan().chunks)) {
    lower(static_cast<const T*>(job.row_bound), row_slack, job.rows.rows, row_floor_.data());
    lower(static_cast<const T*>(job.column_bound), column_slack, job.columns.rows, column_floor_.data());
    std::fill_n(column_floor_.data() + job.columns.rows, kernel.columns, kInfinity);
    std::fill_n(ceiling_.data(), kernel.rows, kInfinity);
    make_room();
  }

  std::int64_t run() {
    loop_.run(*this);
    if (gave_up_) return -1;
    const auto every_chunk = [&](const auto& work) {
      parallel_for(loop_.plan().chunks, loop_.workers(), [&](std::int64_t chunk, int) { work(chunk); });
    };
    every_chunk([&](std::int64_t chunk) { decide(chunk); });
    std::vector<std::int64_t> begin(found_.size() + 1);
    for (std::size_t chunk = 0; chunk < found_.size(); ++chunk)
      begin[chunk + 1] = begin[chunk] + static_cast<std::int64_t>(found_[chunk].size());
    if (begin.back() > job_.room) return -1;
    every_chunk([&](std::int64_t chunk) { order(chunk, begin[chunk]); });
    return begin.back();
  }

  void start(std::int64_t chunk, int worker) { worker_[chunk] = worker; }

  void tile(const TilePlace<T>& place, std::int64_t chunk, std::int64_t) {
    if (gave_up_) return;
    const std::int64_t own = worker_[chunk] * kernel_.rows;
    Integer<T>* const count = count_.data() + own;
    T* const value = value_.data() + own * room_;
    Integer<T>* const column = column_.data() + own * room_;
    std::fill_n(count, place.rows, Integer<T>(0));
    kernel_.list(ListTile<T>{place, exclusions_.at(place), row_floor_.data() + place.first_row,
                             column_floor_.data() + place.first_column, ceiling_.data(), count, value, column,
                             room_, std::numeric_limits<Integer<T>>::max()});
    for (int r = 0; r < place.rows; ++r)
      for (std::int64_t i = r * room_; i < r * room_ + count[r]; ++i)
        found_[chunk].push_back({place.first_row + Integer<T>(r), column[i], value[i]});
  }

  void stop(std::int64_t) const {}

  void finish(std::int64_t first, std::int64_t count) {
    std::size_t total = 0;
    for (const auto& found : found_) total += found.size();
    gave_up_ = total > static_cast<std::size_t>(job_.room);
    if (!gave_up_ && first + count < job_.columns.rows) make_room();
  }

 private:
  static constexpr T kInfinity = std::numeric_limits<T>::infinity();

  struct Element {
    Integer<T> row, column;
    T value;
  };

  static void lower(const T* bound, const T* slack, std::int64_t count, T* floor) {
    for (std::int64_t i = 0; i < count; ++i)
      floor[i] = slack == nullptr ? bound[i] : std::nextafter(bound[i] - slack[i] / 2, -kInfinity);
  }

  // For a block of columns of which every element is found: what runs in parallel must not allocate.
  void make_room() {
    const std::int64_t columns = std::min(loop_.plan().block_columns, job_.columns.rows);
    for (std::size_t chunk = 0; chunk < found_.size(); ++chunk) {
      const std::int64_t number = static_cast<std::int64_t>(chunk);
      const std::int64_t rows = loop_.first_row(number + 1) - loop_.first_row(number);
      found_[chunk].reserve(found_[chunk].size() + static_cast<std::size_t>(rows * columns));
    }
  }

  // Whether rounding leaves open on which side of a bound an element is.
  static bool open(T value, T bound, T slack) { return !(std::abs(value - bound) > slack / 2 * T(1.0001)); }

  // Computes candidates of a chunk again where that matters, and keeps what reaches a bound.
  void decide(std::int64_t chunk) {
    if (row_slack_ == nullptr) return;
    const T* const row_bound = static_cast<const T*>(job_.row_bound);
    const T* const column_bound = static_cast<const T*>(job_.column_bound);
    std::size_t kept = 0;
    for (Element element : found_[chunk]) {
      const Integer<T> r = element.row, c = element.column;
      if (job_.exact || open(element.value, row_bound[r], row_slack_[r]) ||
          open(element.value, column_bound[c], column_slack_[c]))
        element.value = row_.dot(job_.rows, r, job_.columns, c);
      if (!(element.value < row_bound[r] && element.value < column_bound[c])) found_[chunk][kept++] = element;
    }
    found_[chunk].resize(kept);
  }

  // Writes what was found, in the order of rows, from `begin` on. A row's elements are in that of columns already.
  void order(std::int64_t chunk, std::int64_t begin) {
    const std::int64_t first = loop_.first_row(chunk), end = loop_.first_row(chunk + 1);
    std::fill(next_.data() + first, next_.data() + end, 0);
    for (const Element& element : found_[chunk]) ++next_[element.row];
    for (std::int64_t r = first; r < end; ++r) begin += std::exchange(next_[r], begin);
    for (const Element& element : found_[chunk]) {
      const std::int64_t at = next_[element.row]++;
      job_.row[at] = element.row;
      job_.column[at] = element.column;
      static_cast<T*>(job_.value)[at] = element.value;
    }
  }

  const AboveJob& job_;
  const RowKernel<T>& row_;
  const T* row_slack_;     // [R]
  const T* column_slack_;  // [N]
  const TileKernel<T>& kernel_;
  const TileLoop<T> loop_;
  const ExclusionTable<T> exclusions_;
  const std::int64_t room_;  // elements of a row of a micro-tile
  Buffer<T> row_floor_;      // [R]
  Buffer<T> column_floor_;   // [N + one micro-tile]
  Buffer<T> ceiling_;        // [rows of a micro-tile]
  Buffer<Integer<T>> count_;   // [workers, rows of a micro-tile]
  Buffer<T> value_;            // [workers, rows of a micro-tile, room]
  Buffer<Integer<T>> column_;  // likewise
  Buffer<std::int64_t> next_;  // [R], where the next element of a row is written
  std::vector<int> worker_;    // of each chunk
  std::vector<std::vector<Element>> found_;  // by chunk; of a row in the order of columns
  bool gave_up_ = false;       // set between blocks of columns only
};

template <typename T>
std::int64_t list_exact(const AboveJob& job, const TileKernel<T>& kernel, const RowKernel<T>& row, int threads) {
  return Lister<T>(job, kernel, row, nullptr, nullptr, threads).run();
}

}  // namespace

std::int64_t above(const AboveJob& job, const Isa& isa, int threads) {
  check_sizes(job.rows, job.columns);
  if (job.rows.dtype == Dtype::float64) return list_exact(job, isa.exact->float64, isa.row->float64, threads);
  const RowKernel<float>& row = isa.row->float32;
  if (job.rows.dtype == Dtype::float32 && isa.bfloat16 != nullptr && worth_screening(job.rows, job.columns)) {
    const Lengths rows(job.rows, 0, *isa.row, threads), columns(job.columns, 0, *isa.row, threads);
    if (rows.bounded() && columns.bounded()) {
      const auto row_slack = rows.slack(columns, job.rows.width), column_slack = columns.slack(rows, job.rows.width);
      return Lister<float>(job, *isa.bfloat16, row, row_slack->data(), column_slack->data(), threads).run();
    }
  }
  return list_exact(job, isa.exact->float32, row, threads);
}

}  // namespace goal_kernels
