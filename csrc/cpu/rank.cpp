// Ranking: the best positives and the tallies around the tile loop.
//
// In:  image [N, D], text [M, D] in any dtype, the image of each text.
// Out: scores of the positives; per query the wrong candidates that score better and the same.
// Memory: besides the tile loop's at most 64 * 2048 column tallies, 24 bytes per row and 20 per column
//         (double: 44 and 36).
// Determinism: whole numbers, summed per chunk of rows; what a tile cannot tell is decided by a dot product
//         that depends on its two rows alone.
//
// How near S is: with gamma = error(D) and Cauchy-Schwarz, |S - dot| <= gamma |x| |y| where all numbers are
// normal. A process may also drop subnormal numbers (tiny: the least normal one): each of up to 8 D
// operations loses up to tiny, and each value of x up to tiny times one of y. Both fit into
// gamma (|x| + s) (|y| + s) with s = sqrt(8 D tiny / gamma). Nothing overflows on the way where
// |x| |y| <= max / 4; rows longer than its root are taken as unknown.
#include "rank.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "check_range.h"
#include "rank_tile.h"
#include "rounding.h"
#include "tile_loop.h"

namespace goal_kernels {
namespace {

// Over the bound above: for the roundings of the bound itself, and to spare.
constexpr double kSafety = 1.25;

// Owns what the queries of one side are compared with.
template <typename T>
class Bars {
 public:
  explicit Bars(std::int64_t length) : best_(length), above_(length), below_(length), reach_(length) {}

  void set_best(std::int64_t i, float best) const {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    best_[i] = best;
    above_[i] = T(std::nextafter(best, infinity));
    below_[i] = T(std::nextafter(best, -infinity));
  }

  void set_reach(std::int64_t i, double reach) const { reach_[i] = T(reach); }

  float best(std::int64_t i) const { return best_[i]; }

  Bar<T> from(std::int64_t first) const {
    return {best_.data() + first, above_.data() + first, below_.data() + first, reach_.data() + first};
  }

 private:
  Buffer<float> best_;
  Buffer<T> above_, below_, reach_;
};

// Owns the counts of `length` queries.
template <typename T>
class Tallies {
 public:
  explicit Tallies(std::int64_t length) : better_(length), ties_(length) {}

  void reset(std::int64_t first, std::int64_t count) const {
    std::fill_n(better_.data() + first, count, Integer<T>(0));
    std::fill_n(ties_.data() + first, count, Integer<T>(0));
  }

  Tally<T> from(std::int64_t first) const { return {better_.data() + first, ties_.data() + first}; }

 private:
  Buffer<Integer<T>> better_, ties_;
};

// The job of the tile loop.
template <typename T>
class Ranker {
 public:
  Ranker(const RankJob& job, const TileKernel<T>& kernel, int threads)
      : job_(job),
        kernel_(kernel),
        threads_(threads),
        loop_(job.image, job.text, kernel, threads),
        owner_(job.text.rows + kernel.columns),
        row_bars_(job.image.rows),
        column_bars_(job.text.rows + kernel.columns),
        rows_(job.image.rows),
        columns_(loop_.plan().chunks * block_columns()) {}

  void run() {
    score_positives();
    find_best();
    fill_reaches();
    rows_.reset(0, job_.image.rows);
    loop_.run(*this);
    const Tally<T> rows = rows_.from(0);
    std::copy_n(rows.better, job_.image.rows, job_.image_counts.better);
    std::copy_n(rows.ties, job_.image.rows, job_.image_counts.ties);
  }

  void start(std::int64_t chunk, int) const {
    columns_.reset(chunk * block_columns(), block_columns());
  }

  void tile(const TilePlace<T>& place, std::int64_t chunk, std::int64_t offset) const {
    kernel_.rank(RankTile<T>{place, &job_.image, &job_.text, owner_.data() + place.first_column,
                             row_bars_.from(place.first_row), column_bars_.from(place.first_column),
                             rows_.from(place.first_row),
                             columns_.from(chunk * block_columns() + offset)});
  }

  void stop(std::int64_t) const {}

  void finish(std::int64_t first, std::int64_t count) const {
    const CountOutput out{job_.text_counts.better + first, job_.text_counts.ties + first};
    std::fill_n(out.better, count, std::int64_t{0});
    std::fill_n(out.ties, count, std::int64_t{0});
    for (std::int64_t chunk = 0; chunk < loop_.plan().chunks; ++chunk) {
      const Tally<T> part = columns_.from(chunk * block_columns());
      for (std::int64_t j = 0; j < count; ++j) {
        out.better[j] += part.better[j];
        out.ties[j] += part.ties[j];
      }
    }
  }

 private:
  std::int64_t block_columns() const { return loop_.plan().block_columns; }

  void score_positives() const {
    const double work = double(job_.text.rows) * double(job_.text.width);
    parallel_rows(job_.text.rows, work, threads_, [&](std::int64_t j) {
      const std::int64_t i = job_.text_to_image[j];
      job_.positive[j] = static_cast<float>(kernel_.exact_dot(job_.image, i, job_.text, j));
      owner_[j] = Integer<T>(i);
      column_bars_.set_best(j, comparable(job_.positive[j]));
    });
    // Lanes beyond the last column are read, and then left out by their number.
    for (std::int64_t j = job_.text.rows; j < job_.text.rows + kernel_.columns; ++j) {
      owner_[j] = Integer<T>(-1);
      column_bars_.set_best(j, 0.0f);
      column_bars_.set_reach(j, 0.0);
    }
  }

  void find_best() const {
    for (std::int64_t i = 0; i < job_.image.rows; ++i)
      row_bars_.set_best(i, -std::numeric_limits<float>::infinity());
    for (std::int64_t j = 0; j < job_.text.rows; ++j) {
      const std::int64_t i = job_.text_to_image[j];
      if (column_bars_.best(j) > row_bars_.best(i)) row_bars_.set_best(i, column_bars_.best(j));
    }
  }

  // See the head of this file. S is compared with the dot product in double, which has an error of its own.
  void fill_reaches() const {
    using Limits = std::numeric_limits<T>;
    const std::int64_t width = job_.image.width;
    const double own = rounding_error<double>(kernel_.exact_dot_roundings(width));
    const double gamma = kSafety * (kernel_.error(width) + own);
    const double lost = std::sqrt(8 * double(width) * double(Limits::min()) / gamma);
    const double longest = std::sqrt(double(Limits::max())) / 2;
    const auto fill = [&](const Matrix& matrix, const Bars<T>& bars, double factor) {
      parallel_rows(matrix.rows, double(matrix.rows) * double(width), threads_, [&](std::int64_t i) {
        const double length = std::sqrt(kernel_.exact_dot(matrix, i, matrix, i));
        // This order of the comparison takes NaN as unknown.
        bars.set_reach(i, length <= longest ? factor * (length + lost)
                                            : std::numeric_limits<double>::infinity());
      });
    };
    fill(job_.image, row_bars_, gamma);
    fill(job_.text, column_bars_, 1.0);
  }

  const RankJob& job_;
  const TileKernel<T>& kernel_;
  const int threads_;
  const TileLoop<T> loop_;
  Buffer<Integer<T>> owner_;  // [M + one micro-tile]
  Bars<T> row_bars_;          // [N]
  Bars<T> column_bars_;       // [M + one micro-tile]
  Tallies<T> rows_;           // [N]
  Tallies<T> columns_;        // [chunks, block_columns]
};

// The fastest product whose error is still small: what it cannot tell apart costs a dot product in double.
const TileKernel<float>& choose_kernel(Dtype dtype, const Isa& isa) {
  if (dtype == Dtype::bfloat16 && isa.bfloat16 != nullptr) return *isa.bfloat16;
  if (dtype == Dtype::float32 && isa.split != nullptr) return *isa.split;
  return isa.exact->float32;
}

}  // namespace

void rank(const RankJob& job, const Isa& isa, int threads) {
  check_sizes(job.image, job.text);
  check_range("text_to_image", job.text_to_image, job.text.rows, 0, job.image.rows, "number the images from 0");
  if (job.image.dtype == Dtype::float64)
    Ranker<double>(job, isa.exact->float64, threads).run();
  else
    Ranker<float>(job, choose_kernel(job.image.dtype, isa), threads).run();
}

}  // namespace goal_kernels
