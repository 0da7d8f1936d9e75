// Gradient driver. Each output row is an ordered sum of weighted rows of the other side:
//
//   grad_image[i] = g (b_row[i] Y[hardest_text[i]] - c[i] Y[target[i]]
//                      + sum over k with hardest_image[k] = i of b_col[k] Y[k])
//   grad_text[j]  = g (b_col[j] X[hardest_image[j]] - sum over i with target[i] = j of c[i] X[i]
//                      + sum over i with hardest_text[i] = j of b_row[i] X[i])
//
// Both are three lists of edges (destination, source, weight), sorted by destination with a stable counting
// sort, so the order of every sum is fixed by the inputs. With scales, X and Y stand for the scaled rows and
// each gradient row is taken to its raw row while it is in cache (docs/derivation.md, section 8).
// Bytes: about (2 N + 2 M) rows read and N + M written for the usual square case; with scales N + M more read.
// Memory: 16 bytes per edge and 8 per row, plus one row per kRunTerms terms of rows with more than that.
// Determinism: rows with many terms are cut into runs of kRunTerms, added in order; workers only take runs.
#include "apply.h"

#include <algorithm>
#include <cstddef>
#include <deque>
#include <vector>

#include "buffer.h"
#include "check_range.h"
#include "parallel.h"

namespace goal_kernels {
namespace {

// A row that is the hardest negative of thousands is shared by several workers in runs of this many terms.
constexpr std::int64_t kRunTerms = 256;
constexpr std::int64_t kRunsPerItem = 16;
// A multiply-add of a gather waits for memory: it counts as this many when deciding about threads.
constexpr double kWorkPerTerm = 8;

template <typename T>
struct Edges {
  const std::int64_t* destination;  // null: e
  const std::int64_t* source;       // null: e
  const T* weight;
  T sign;
  std::int64_t count;

  std::int64_t to(std::int64_t e) const { return destination != nullptr ? destination[e] : e; }
  std::int64_t from(std::int64_t e) const { return source != nullptr ? source[e] : e; }
};

// Terms of each output row, in the order of the edge lists.
template <typename T>
struct TermLists {
  std::vector<std::int64_t> begin;  // [rows + 1]
  std::vector<Term<T>> terms;
};

template <typename T>
TermLists<T> sort_edges(const Edges<T> (&lists)[3], std::int64_t rows, const Matrix& source) {
  const std::int64_t sources = source.rows;
  const T* const scale = static_cast<const T*>(source.scale);
  const auto exists = [&](const Edges<T>& list, std::int64_t e) {
    const std::int64_t to = list.to(e), from = list.from(e);
    return to >= 0 && to < rows && from >= 0 && from < sources;
  };
  TermLists<T> result{std::vector<std::int64_t>(static_cast<std::size_t>(rows) + 1), {}};
  std::vector<std::int64_t>& begin = result.begin;
  for (const Edges<T>& list : lists)
    for (std::int64_t e = 0; e < list.count; ++e)
      if (exists(list, e)) ++begin[list.to(e) + 1];
  for (std::int64_t r = 0; r < rows; ++r) begin[r + 1] += begin[r];
  result.terms.resize(static_cast<std::size_t>(begin[rows]));
  std::vector<std::int64_t> next(begin.begin(), begin.end() - 1);
  for (const Edges<T>& list : lists)
    for (std::int64_t e = 0; e < list.count; ++e) {
      if (!exists(list, e)) continue;
      const std::int64_t from = list.from(e);
      const T sign = scale != nullptr ? list.sign * scale[from] : list.sign;
      result.terms[next[list.to(e)]++] = {from, sign * list.weight[e]};
    }
  return result;
}

// Consecutive terms of one output row. Runs of a row with several leave their sums in scratch.
struct Run {
  std::int64_t row;
  std::int64_t begin;
  std::int64_t count;
  std::int64_t scratch;  // row of scratch, -1: the whole output row
};

struct Runs {
  std::vector<Run> all;
  std::vector<std::size_t> split;  // where in `all` each row with several runs begins
  std::int64_t scratch_rows = 0;
};

Runs cut(const std::vector<std::int64_t>& begin) {
  Runs runs;
  for (std::size_t row = 0; row + 1 < begin.size(); ++row) {
    const std::int64_t first = begin[row], end = begin[row + 1];
    const bool whole = end - first <= kRunTerms;
    if (!whole) runs.split.push_back(runs.all.size());
    const std::int64_t number = static_cast<std::int64_t>(row);
    if (whole) runs.all.push_back({number, first, end - first, -1});
    for (std::int64_t at = first; !whole && at < end; at += kRunTerms)
      runs.all.push_back({number, at, std::min(kRunTerms, end - at), runs.scratch_rows++});
  }
  return runs;
}

// The gradient of one side: grad [rows, D] contiguous = g * ordered sums of rows of the other side.
template <typename T>
class Side {
 public:
  Side(const Matrix& own, const Matrix& source, const Edges<T> (&edges)[3], void* grad)
      : own_(own),
        source_(source),
        grad_(static_cast<char*>(grad)),
        lists_(sort_edges(edges, own.rows, source)),
        runs_(cut(lists_.begin)),
        scratch_(runs_.scratch_rows * own.width) {}

  std::int64_t items() const { return (total() + kRunsPerItem - 1) / kRunsPerItem; }
  std::int64_t splits() const { return static_cast<std::int64_t>(runs_.split.size()); }
  double work() const { return kWorkPerTerm * double(lists_.terms.size()) * double(own_.width); }

  // Finishes the rows of one run and leaves the sums of longer rows in scratch. accumulator: [D].
  void run(std::int64_t item, T factor, const RowKernel<T>& kernel, T* accumulator) const {
    const std::int64_t end = std::min((item + 1) * kRunsPerItem, total());
    for (std::int64_t r = item * kRunsPerItem; r < end; ++r) {
      const Run& run = runs_.all[r];
      const Term<T>* terms = lists_.terms.data() + run.begin;
      if (run.scratch >= 0) {
        kernel.sum_terms(source_, terms, run.count, scratch_.data() + run.scratch * own_.width);
      } else if (run.count <= kFewTerms && own_.scale == nullptr) {
        kernel.gather(source_, terms, run.count, factor, out(run.row));
      } else {
        kernel.sum_terms(source_, terms, run.count, accumulator);
        finish(accumulator, run.row, factor, kernel);
      }
    }
  }

  // Adds the runs of one long row.
  void join(std::int64_t split, T factor, const RowKernel<T>& kernel) const {
    const std::size_t first = runs_.split[split];
    const std::int64_t row = runs_.all[first].row;
    T* sum = scratch_.data() + runs_.all[first].scratch * own_.width;
    for (std::size_t r = first + 1; r < runs_.all.size() && runs_.all[r].row == row; ++r)
      kernel.add(scratch_.data() + runs_.all[r].scratch * own_.width, own_.width, sum);
    finish(sum, row, factor, kernel);
  }

 private:
  std::int64_t total() const { return static_cast<std::int64_t>(runs_.all.size()); }

  void* out(std::int64_t row) const { return grad_ + row * own_.width * element_bytes(own_.dtype); }

  void finish(const T* sum, std::int64_t row, T factor, const RowKernel<T>& kernel) const {
    if (own_.scale != nullptr)
      kernel.store_projected(sum, factor, own_, row, out(row));
    else
      kernel.store(sum, factor, own_.width, own_.dtype, out(row));
  }

  const Matrix& own_;
  const Matrix& source_;
  char* const grad_;
  const TermLists<T> lists_;
  const Runs runs_;
  const Buffer<T> scratch_;
};

// All sides at once: a parallel region costs as much as a hundred rows.
template <typename T>
void gather_sides(const std::deque<Side<T>>& sides, std::int64_t width, T factor,
                  const RowKernel<T>& kernel, int threads) {
  double work = 0;
  std::int64_t items = 0, splits = 0;
  for (const Side<T>& side : sides) {
    work += side.work();
    items += side.items();
    splits += side.splits();
  }
  const int workers = worker_count(work, threads);
  const Buffer<T> accumulators(workers * width);
  parallel_for(items, workers, [&](std::int64_t item, int worker) {
    const bool first = item < sides.front().items();
    const std::int64_t own_item = first ? item : item - sides.front().items();
    (first ? sides.front() : sides.back())
        .run(own_item, factor, kernel, accumulators.data() + worker * width);
  });
  parallel_for(splits, workers, [&](std::int64_t split, int) {
    const bool first = split < sides.front().splits();
    const std::int64_t own_split = first ? split : split - sides.front().splits();
    (first ? sides.front() : sides.back()).join(own_split, factor, kernel);
  });
}

template <typename T>
void apply_as(const ApplyJob& job, const RowKernel<T>& kernel, int threads) {
  const std::int64_t rows = job.image.rows, columns = job.text.rows;
  const T* positive = static_cast<const T*>(job.positive_weight);
  const T* row_weight = static_cast<const T*>(job.row_weight);
  const T* column_weight = static_cast<const T*>(job.column_weight);
  std::deque<Side<T>> sides;
  if (job.grad_image != nullptr) {
    const Edges<T> edges[3] = {{nullptr, job.hardest_text, row_weight, T(1), rows},
                               {nullptr, job.target, positive, T(-1), rows},
                               {job.hardest_image, nullptr, column_weight, T(1), columns}};
    sides.emplace_back(job.image, job.text, edges, job.grad_image);
  }
  if (job.grad_text != nullptr) {
    const Edges<T> edges[3] = {{nullptr, job.hardest_image, column_weight, T(1), columns},
                               {job.target, nullptr, positive, T(-1), rows},
                               {job.hardest_text, nullptr, row_weight, T(1), rows}};
    sides.emplace_back(job.text, job.image, edges, job.grad_text);
  }
  if (!sides.empty())
    gather_sides(sides, job.image.width, *static_cast<const T*>(job.grad_loss), kernel, threads);
}

}  // namespace

void apply(const ApplyJob& job, const RowKernels& kernels, int threads) {
  constexpr const char* remedy = "pass the indices that mining returned";
  check_range("hardest_text", job.hardest_text, job.image.rows, -1, job.text.rows, remedy);
  check_range("hardest_image", job.hardest_image, job.text.rows, -1, job.image.rows, remedy);
  if (job.image.dtype == Dtype::float64)
    apply_as<double>(job, kernels.float64, threads);
  else
    apply_as<float>(job, kernels.float32, threads);
}

}  // namespace goal_kernels
