// Elements above a bound: lists of candidates around the tile loop.
//
// Method: as in top_k.cpp, with bounds that stay. S may be exact, or a product of rounded values S~ with
//         |S~ - S| <= slack / 2 (lengths.h): then bounds are lower by that, and what is found near them, or all of
//         it, is computed again in float.
// Memory: pages of the lists that are written to, 8 bytes an element; besides the tile loop's.
// Determinism: a list depends on its row alone; giving up on the sum over all lists after a block of columns.
#include "above.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "exclusion_table.h"
#include "lengths.h"
#include "pairs.h"
#include "tile_loop.h"

namespace goal_kernels {
namespace {

constexpr std::int64_t kVectorRoom = 16;  // what a kernel may write beyond the last element

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
        exclusions_(mining_job(job), kernel.columns),
        room_(job.columns.rows + kernel.columns + kVectorRoom),
        row_floor_(job.rows.rows),
        column_floor_(job.columns.rows + kernel.columns),
        ceiling_(job.rows.rows),
        count_(job.rows.rows),
        value_(job.rows.rows * room_),
        column_(job.rows.rows * room_) {
    lower(static_cast<const T*>(job.row_bound), row_slack, job.rows.rows, row_floor_.data());
    lower(static_cast<const T*>(job.column_bound), column_slack, job.columns.rows, column_floor_.data());
    std::fill_n(column_floor_.data() + job.columns.rows, kernel.columns, kInfinity);
    std::fill_n(ceiling_.data(), job.rows.rows, kInfinity);
    std::fill_n(count_.data(), job.rows.rows, Integer<T>(0));
  }

  std::int64_t run() {
    loop_.run(*this);
    if (gave_up_) return -1;
    parallel_for(loop_.plan().chunks, loop_.workers(), [&](std::int64_t chunk, int) {
      for (std::int64_t r = first_row(chunk); r < first_row(chunk + 1); ++r) decide(r);
    });
    std::int64_t total = 0;
    for (std::int64_t r = 0; r < job_.rows.rows; total += count_[r++]) job_.count[r] = count_[r];
    if (total > job_.room) return -1;
    std::int64_t* index = job_.index;
    T* value = static_cast<T*>(job_.value);
    for (std::int64_t r = 0; r < job_.rows.rows; ++r) {
      index = std::copy_n(column_.data() + r * room_, count_[r], index);
      value = std::copy_n(value_.data() + r * room_, count_[r], value);
    }
    return total;
  }

  void start(std::int64_t, int) const {}

  void tile(const TilePlace<T>& place, std::int64_t, std::int64_t) {
    if (gave_up_) return;
    const std::int64_t first = place.first_row;
    kernel_.list(ListTile<T>{place, exclusions_.at(place), row_floor_.data() + first,
                             column_floor_.data() + place.first_column, ceiling_.data() + first,
                             count_.data() + first, value_.data() + first * room_,
                             column_.data() + first * room_, room_,
                             std::numeric_limits<Integer<T>>::max()});
  }

  void stop(std::int64_t) const {}

  void finish(std::int64_t, std::int64_t) {
    std::int64_t total = 0;
    for (std::int64_t r = 0; r < job_.rows.rows; ++r) total += count_[r];
    if (total > job_.room) gave_up_ = true;
  }

 private:
  static constexpr T kInfinity = std::numeric_limits<T>::infinity();

  static MineJob mining_job(const AboveJob& job) {
    MineJob result{};
    result.image = job.rows;
    result.text = job.columns;
    result.target = job.target;
    result.image_ids = job.row_ids;
    result.text_ids = job.column_ids;
    return result;
  }

  static void lower(const T* bound, const T* slack, std::int64_t count, T* floor) {
    for (std::int64_t i = 0; i < count; ++i)
      floor[i] = slack == nullptr ? bound[i] : std::nextafter(bound[i] - slack[i] / 2, -kInfinity);
  }

  std::int64_t first_row(std::int64_t chunk) const {
    return std::min(loop_.plan().first_group(chunk) * kernel_.rows, job_.rows.rows);
  }

  // Whether rounding leaves open on which side of a bound an element is.
  static bool open(T value, T bound, T slack) { return !(std::abs(value - bound) > slack / 2 * T(1.0001)); }

  // Computes candidates of a row again where that matters, and keeps what reaches a bound.
  void decide(std::int64_t r) const {
    if (row_slack_ == nullptr) return;
    const T bound = static_cast<const T*>(job_.row_bound)[r];
    const T* const column_bound = static_cast<const T*>(job_.column_bound);
    T* const value = value_.data() + r * room_;
    Integer<T>* const column = column_.data() + r * room_;
    std::int64_t kept = 0;
    for (std::int64_t i = 0; i < count_[r]; ++i) {
      const Integer<T> c = column[i];
      T s = value[i];
      if (job_.exact || open(s, bound, row_slack_[r]) || open(s, column_bound[c], column_slack_[c]))
        s = row_.dot(job_.rows, r, job_.columns, c);
      if (s < bound && s < column_bound[c]) continue;
      value[kept] = s;
      column[kept++] = c;
    }
    count_[r] = Integer<T>(kept);
  }

  const AboveJob& job_;
  const RowKernel<T>& row_;
  const T* row_slack_;     // [R]
  const T* column_slack_;  // [N]
  const TileKernel<T>& kernel_;
  const TileLoop<T> loop_;
  const ExclusionTable<T> exclusions_;
  const std::int64_t room_;  // elements of a list
  Buffer<T> row_floor_;      // [R]
  Buffer<T> column_floor_;   // [N + one micro-tile]
  Buffer<T> ceiling_;        // [R]
  Buffer<Integer<T>> count_;   // [R]
  Buffer<T> value_;            // [R, room]
  Buffer<Integer<T>> column_;  // [R, room]
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
