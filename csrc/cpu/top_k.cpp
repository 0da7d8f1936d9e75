// Top-k search: lists of candidates around the tile loop.
//
// In:  query [N, D], corpus [M, D] in any dtype.
// Out: per query the k largest allowed S, their columns, how many there are.
// Method: each row has a list. What is not below its floor, and not above its ceiling, is added to it; a full list is
//         shortened to what may still be among the k largest, which raises the floor. S may be exact, or a product of
//         rounded values S~ with |S~ - S| <= slack / 2 (lengths.h): then what lies within the slack of the k-th
//         largest S~ stays, and what stays in the end, or is too much to be kept, is computed again in float.
// Memory: kListBytes of lists, besides the tile loop's; 8 bytes per row and column for lengths, 4 per column for ids.
// Determinism: a list depends on its row alone, since a row meets the columns in order; giving up on rounded values
//         depends on what all lists needed up to the end of a block of columns.
#include "top_k.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "exclusion_table.h"
#include "lengths.h"
#include "pairs.h"
#include "tile_loop.h"

namespace goal_kernels {
namespace {

constexpr std::int64_t kListBytes = std::int64_t{128} << 20;
// Beside the k largest a list has room for three times as many again, which is what rounding leaves undecided among
// real embeddings for k = 100, and for the first elements of a search.
constexpr std::int64_t kListFactor = 4;
constexpr std::int64_t kListExtra = 96;
// One in so many elements of S may be computed again before the end: a dot product takes as long as the exact product
// of ten to fifteen.
constexpr std::int64_t kElementsPerDecision = 64;

template <typename T>
constexpr T kLowest = -std::numeric_limits<T>::infinity();

// Larger first, NaN above all.
template <typename T>
bool above(T a, T b) {
  return a > b || (a != a && b == b);
}

template <typename T>
T next_up(T value) {
  return std::nextafter(value, std::numeric_limits<T>::infinity());
}

template <typename T>
T next_down(T value) {
  return std::nextafter(value, kLowest<T>);
}

// How S is multiplied. slack [rows of the job], or null where S is exact.
template <typename T>
struct Product {
  const TileKernel<T>& kernel;
  const RowKernel<T>& row;
  const T* slack;
};

// Elements of one row, columns ascending. Columns of elements that were computed again are stored as ~column.
template <typename T>
struct RowList {
  T* value;
  Integer<T>* column;
  std::int64_t count;

  bool decided(std::int64_t i) const { return column[i] < 0; }

  std::int64_t column_at(std::int64_t i) const { return decided(i) ? ~column[i] : column[i]; }

  // Keeps what `stays(i)` says, in order.
  template <typename Stays>
  void keep(const Stays& stays) {
    std::int64_t kept = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      if (!stays(i)) continue;
      value[kept] = value[i];
      column[kept++] = column[i];
    }
    count = kept;
  }
};

// The job of the tile loop. Searches all rows of a job whose lists fit into memory.
template <typename T>
class Finder {
 public:
  Finder(const TopKJob& job, const Product<T>& product, int threads)
      : job_(job),
        product_(product),
        loop_(job.query, job.corpus, product.kernel, threads),
        exclusions_(job.query.rows, job.corpus.rows, {job.query_ids, job.corpus_ids}, product.kernel.columns),
        full_(list_length(job)),
        room_(full_ + product.kernel.columns + kVectorRoom),
        floor_(job.query.rows),
        ceiling_(job.query.rows),
        count_(job.query.rows),
        value_(job.query.rows * room_),
        column_(job.query.rows * room_),
        scratch_(static_cast<std::size_t>(loop_.workers())),
        chunk_scratch_(static_cast<std::size_t>(loop_.plan().chunks)) {
    const std::int64_t rows = job.query.rows;
    std::fill_n(floor_.data(), rows, kLowest<T>);
    std::fill_n(count_.data(), rows, Integer<T>(0));
    for (std::int64_t r = 0; r < rows; ++r)
      ceiling_[r] = screened() ? next_up(max_score(r) + error(r)) : max_score(r);
  }

  static std::int64_t list_length(const TopKJob& job) {
    return kListFactor * std::min(job.k, job.corpus.rows) + kListExtra;
  }

  // False if S is known too roughly.
  bool run() {
    loop_.run(*this);
    if (gave_up_) return false;
    parallel_for(loop_.plan().chunks, loop_.workers(), [&](std::int64_t chunk, int worker) {
      const std::int64_t end = loop_.first_row(chunk + 1);
      for (std::int64_t r = loop_.first_row(chunk); r < end; ++r) write(r, scratch_[worker]);
    });
    return true;
  }

  void start(std::int64_t chunk, int worker) { chunk_scratch_[chunk] = &scratch_[worker]; }

  void tile(const TilePlace<T>& place, std::int64_t chunk, std::int64_t) {
    if (gave_up_) return;
    const std::int64_t first = place.first_row;
    const ListTile<T> tile{place,
                           exclusions_.at(place),
                           floor_.data() + first,
                           nullptr,
                           ceiling_.data() + first,
                           count_.data() + first,
                           value_.data() + first * room_,
                           column_.data() + first * room_,
                           room_,
                           Integer<T>(full_)};
    if (!product_.kernel.list(tile)) return;
    for (std::int64_t r = first; r < first + place.rows; ++r)
      if (count_[r] > full_) shorten(r, *chunk_scratch_[chunk]);
  }

  void stop(std::int64_t) const {}

  void finish(std::int64_t, std::int64_t) {
    const double elements = double(job_.query.rows) * double(job_.corpus.rows);
    if (double(decisions_) > elements / kElementsPerDecision) gave_up_ = true;
  }

 private:
  using Scratch = std::vector<T>;

  bool screened() const { return product_.slack != nullptr; }

  T error(std::int64_t row) const { return product_.slack[row] / 2; }

  T max_score(std::int64_t row) const {
    const T bound = job_.max_score == nullptr ? -kLowest<T> : static_cast<const T*>(job_.max_score)[row];
    return bound == bound ? bound : -kLowest<T>;
  }

  RowList<T> list_of(std::int64_t row) const {
    return {value_.data() + row * room_, column_.data() + row * room_, count_[row]};
  }

  // The k-th largest value; there are more than k.
  T kth_largest(const RowList<T>& list, Scratch& scratch) const {
    scratch.assign(list.value, list.value + list.count);
    const auto order = [](T a, T b) { return above(a, b); };
    std::nth_element(scratch.begin(), scratch.begin() + (job_.k - 1), scratch.end(), order);
    return scratch[job_.k - 1];
  }

  // Keeps the k best of more, whose values are exact. Returns the k-th largest value.
  T keep_best(RowList<T>& list, Scratch& scratch) const {
    const T kth = kth_largest(list, scratch);
    const auto better = [&](std::int64_t i) { return above(list.value[i], kth); };
    std::int64_t ties = job_.k;
    for (std::int64_t i = 0; i < list.count; ++i) ties -= better(i) ? 1 : 0;
    list.keep([&](std::int64_t i) { return better(i) || (!above(kth, list.value[i]) && ties-- > 0); });
    return kth;
  }

  void decide(const RowList<T>& list, std::int64_t row, std::int64_t i) const {
    list.value[i] = product_.row.dot(job_.query, row, job_.corpus, list.column[i]);
    list.column[i] = ~list.column[i];
  }

  // Computes again what may lie on either side of the ceiling. Returns how much that was.
  std::int64_t decide_near_ceiling(RowList<T>& list, std::int64_t row) const {
    const T bound = max_score(row), near = next_down(bound - error(row));
    if (bound == -kLowest<T>) return 0;
    std::int64_t decisions = 0;
    list.keep([&](std::int64_t i) {
      if (list.decided(i) || list.value[i] < near) return true;
      decide(list, row, i);
      ++decisions;
      return !(list.value[i] > bound);
    });
    return decisions;
  }

  std::int64_t decide_all(const RowList<T>& list, std::int64_t row) const {
    std::int64_t decisions = 0;
    for (std::int64_t i = 0; i < list.count; ++i) {
      if (list.decided(i)) continue;
      decide(list, row, i);
      ++decisions;
    }
    return decisions;
  }

  // Drops what cannot be among the k largest.
  void shorten(std::int64_t row, Scratch& scratch) {
    RowList<T> list = list_of(row);
    std::int64_t decisions = screened() ? decide_near_ceiling(list, row) : 0;
    if (list.count > job_.k && !screened()) {
      floor_[row] = next_up(keep_best(list, scratch));
    } else if (list.count > job_.k) {
      raise_floor(list, row, kth_largest(list, scratch));
      if (list.count > (job_.k + full_) / 2) {
        decisions += decide_all(list, row);
        raise_floor(list, row, keep_best(list, scratch));
      }
    }
    decisions_.fetch_add(decisions, std::memory_order_relaxed);
    count_[row] = Integer<T>(list.count);
  }

  // `kth`: the k-th largest value of a list of S~.
  void raise_floor(RowList<T>& list, std::int64_t row, T kth) const {
    const T floor = floor_[row] = next_down(kth - product_.slack[row]);
    list.keep([&](std::int64_t i) { return !(list.value[i] < floor); });
  }

  void write(std::int64_t row, Scratch& scratch) const {
    RowList<T> list = list_of(row);
    if (screened()) {
      decide_near_ceiling(list, row);
      if (list.count > job_.k) raise_floor(list, row, kth_largest(list, scratch));
      decide_all(list, row);
    }
    if (list.count > job_.k) keep_best(list, scratch);
    std::vector<std::int64_t> order(static_cast<std::size_t>(list.count));
    std::iota(order.begin(), order.end(), std::int64_t{0});
    std::sort(order.begin(), order.end(), [&](std::int64_t i, std::int64_t j) {
      return above(list.value[i], list.value[j]) || (!above(list.value[j], list.value[i]) && i < j);
    });
    T* const score = static_cast<T*>(job_.score) + row * job_.k;
    std::int64_t* const index = job_.index + row * job_.k;
    for (std::int64_t i = 0; i < list.count; ++i) {
      score[i] = list.value[order[i]];
      index[i] = list.column_at(order[i]);
    }
    std::fill(score + list.count, score + job_.k, kLowest<T>);
    std::fill(index + list.count, index + job_.k, std::int64_t{-1});
    job_.count[row] = list.count;
  }

  const TopKJob& job_;
  const Product<T>& product_;
  const TileLoop<T> loop_;
  const ExclusionTable<T> exclusions_;
  const std::int64_t full_;  // elements of a list that is shortened
  const std::int64_t room_;
  Buffer<T> floor_;             // [N]; below it nothing is added
  Buffer<T> ceiling_;           // [N]; nor above it
  Buffer<Integer<T>> count_;    // [N]
  Buffer<T> value_;             // [N, room]
  Buffer<Integer<T>> column_;   // [N, room]
  std::vector<Scratch> scratch_;         // [workers]
  std::vector<Scratch*> chunk_scratch_;  // [chunks], the worker's
  std::atomic<std::int64_t> decisions_{0};
  bool gave_up_ = false;  // set between blocks of columns only
};

// Rows [first, first + count) of a job.
template <typename T>
TopKJob part_of(const TopKJob& job, std::int64_t first, std::int64_t count) {
  TopKJob part = job;
  part.query.data = static_cast<const char*>(job.query.data) + first * job.query.stride * element_bytes(job.query.dtype);
  part.query.rows = count;
  if (job.query.scale != nullptr) part.query.scale = static_cast<const T*>(job.query.scale) + first;
  if (job.query_ids != nullptr) part.query_ids += first;
  if (job.max_score != nullptr) part.max_score = static_cast<const T*>(job.max_score) + first;
  part.score = static_cast<T*>(job.score) + first * job.k;
  part.index += first * job.k;
  part.count += first;
  return part;
}

// Calls search(part) for parts of the rows whose lists fit into memory.
template <typename T, typename Search>
void search_parts(const TopKJob& job, const Search& search) {
  const std::int64_t row_bytes = Finder<T>::list_length(job) * std::int64_t(sizeof(T) + sizeof(Integer<T>));
  const std::int64_t parts = ceil_div(job.query.rows * row_bytes, kListBytes);
  for (std::int64_t part = 0; part < parts; ++part) {
    const std::int64_t first = part * job.query.rows / parts, end = (part + 1) * job.query.rows / parts;
    if (end > first) search(part_of<T>(job, first, end - first));
  }
}

template <typename T>
const char* find_exact(const TopKJob& job, const TileKernel<T>& kernel, const RowKernel<T>& row, int threads) {
  search_parts<T>(job, [&](const TopKJob& part) { Finder<T>(part, {kernel, row, nullptr}, threads).run(); });
  return "exact";
}

const char* find_float(const TopKJob& job, const Isa& isa, int threads) {
  const RowKernel<float>& row = isa.row->float32;
  const bool is_bfloat16 = job.query.dtype == Dtype::bfloat16 && job.query.scale == nullptr;
  if (is_bfloat16 && isa.bfloat16 != nullptr) {
    find_exact(job, *isa.bfloat16, row, threads);
    return "bfloat16";
  }
  const TileKernel<float>& exact = isa.exact->float32;
  if (is_bfloat16 || isa.bfloat16 == nullptr || !worth_screening(job.query, job.corpus))
    return find_exact(job, exact, row, threads);
  const Lengths columns(job.corpus, 0, *isa.row, threads);
  bool screening = columns.bounded();
  const bool worthwhile = screening;
  search_parts<float>(job, [&](const TopKJob& part) {
    if (screening) {
      const Lengths rows(part.query, 0, *isa.row, threads);
      const auto slack = rows.slack(columns, job.query.width);
      screening = rows.bounded() &&
                  Finder<float>(part, {*isa.bfloat16, row, slack->data()}, threads).run();
      if (screening) return;
    }
    Finder<float>(part, {exact, row, nullptr}, threads).run();
  });
  return worthwhile && screening ? "screened" : "exact";
}

// Scales that normalise the rows, which have none yet.
template <typename T>
class Normalized {
 public:
  Normalized(const Matrix& matrix, bool normalize, const Isa& isa, int threads)
      : scale_(normalize ? matrix.rows : 0), matrix_(matrix) {
    if (!normalize) return;
    row_scales(matrix, scale_.data(), *isa.row, threads);
    matrix_.scale = scale_.data();
  }

  const Matrix& matrix() const { return matrix_; }

 private:
  Buffer<T> scale_;
  Matrix matrix_;
};

}  // namespace

const char* top_k(const TopKJob& job, const Isa& isa, int threads) {
  check_sizes(job.query, job.corpus);
  if (job.k < 1) throw std::invalid_argument("k: expected at least 1, got " + std::to_string(job.k));
  TopKJob scaled = job;
  if (job.query.dtype == Dtype::float64) {
    const Normalized<double> query(job.query, job.normalize, isa, threads);
    const Normalized<double> corpus(job.corpus, job.normalize, isa, threads);
    scaled.query = query.matrix();
    scaled.corpus = corpus.matrix();
    return find_exact(scaled, isa.exact->float64, isa.row->float64, threads);
  }
  const Normalized<float> query(job.query, job.normalize, isa, threads);
  const Normalized<float> corpus(job.corpus, job.normalize, isa, threads);
  scaled.query = query.matrix();
  scaled.corpus = corpus.matrix();
  return find_float(scaled, isa, threads);
}

}  // namespace goal_kernels
