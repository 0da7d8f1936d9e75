// Gradient driver. Each output row is an ordered sum of weighted rows of the other side:
//
//   grad_image[i] = g (b_row[i] Y[hardest_text[i]] - c[i] Y[target[i]]
//                      + sum over k with hardest_image[k] = i of b_col[k] Y[k])
//   grad_text[j]  = g (b_col[j] X[hardest_image[j]] - sum over i with target[i] = j of c[i] X[i]
//                      + sum over i with hardest_text[i] = j of b_row[i] X[i])
//
// Both are three lists of edges (destination, source, weight), sorted by destination with a stable counting
// sort, so the order of every sum is fixed by the inputs.
// Bytes: about (2 N + 2 M) rows read and N + M written for the usual square case.
// Memory: 16 bytes per edge and 8 per row, plus one row per kRunTerms terms of rows with more than that.
// Determinism: rows with many terms are cut into runs of kRunTerms, added in order; workers only take runs.
#include "apply.h"

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

#include "buffer.h"
#include "parallel.h"

namespace goal_kernels {
namespace {

// A row that is the hardest negative of thousands is shared by several workers in runs of this many terms.
constexpr std::int64_t kRunTerms = 256;
constexpr std::int64_t kRunsPerItem = 16;

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
TermLists<T> sort_edges(const Edges<T> (&lists)[3], std::int64_t rows, std::int64_t sources) {
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
    for (std::int64_t e = 0; e < list.count; ++e)
      if (exists(list, e))
        result.terms[next[list.to(e)]++] = {list.from(e), list.sign * list.weight[e]};
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

// grad [rows, D] contiguous = scale * ordered sums of rows of `source`.
template <typename T>
void gather(const Matrix& source, const TermLists<T>& lists, T scale, const RowKernel<T>& kernel,
            int threads, std::size_t element_bytes, void* grad) {
  const std::int64_t width = source.width;
  const Runs runs = cut(lists.begin);
  const std::int64_t total = static_cast<std::int64_t>(runs.all.size());
  const int workers = worker_count(double(lists.terms.size()) * double(width), threads);
  const Buffer<T> scratch(runs.scratch_rows * width);
  const Buffer<T> accumulators(workers * width);
  const auto store = [&](const T* accumulator, std::int64_t row) {
    char* out = static_cast<char*>(grad) + static_cast<std::size_t>(row * width) * element_bytes;
    kernel.store(accumulator, scale, width, source.dtype, out);
  };
  parallel_for((total + kRunsPerItem - 1) / kRunsPerItem, workers, [&](std::int64_t item, int worker) {
    const std::int64_t end = std::min((item + 1) * kRunsPerItem, total);
    for (std::int64_t r = item * kRunsPerItem; r < end; ++r) {
      const Run& run = runs.all[r];
      const bool whole = run.scratch < 0;
      T* sum = whole ? accumulators.data() + worker * width : scratch.data() + run.scratch * width;
      kernel.sum_terms(source, lists.terms.data() + run.begin, run.count, sum);
      if (whole) store(sum, run.row);
    }
  });
  const std::int64_t splits = static_cast<std::int64_t>(runs.split.size());
  parallel_for(splits, workers, [&](std::int64_t s, int) {
    const std::size_t first = runs.split[s];
    T* sum = scratch.data() + runs.all[first].scratch * width;
    for (std::size_t r = first + 1; r < runs.all.size() && runs.all[r].row == runs.all[first].row; ++r)
      kernel.add(scratch.data() + runs.all[r].scratch * width, width, sum);
    store(sum, runs.all[first].row);
  });
}

void check_range(const char* name, const std::int64_t* index, std::int64_t count, std::int64_t limit) {
  for (std::int64_t i = 0; i < count; ++i)
    if (index[i] < -1 || index[i] >= limit)
      throw std::invalid_argument(std::string(name) + ": expected indices in [-1, " +
                                  std::to_string(limit) + "), got " + std::to_string(index[i]) +
                                  " at position " + std::to_string(i) +
                                  "; pass the indices that mining returned");
}

template <typename T>
void apply_as(const ApplyJob& job, const RowKernel<T>& kernel, int threads, std::size_t element_bytes) {
  const std::int64_t rows = job.image.rows, columns = job.text.rows;
  const T* positive = static_cast<const T*>(job.positive_weight);
  const T* row_weight = static_cast<const T*>(job.row_weight);
  const T* column_weight = static_cast<const T*>(job.column_weight);
  const T scale = *static_cast<const T*>(job.scale);
  if (job.grad_image != nullptr) {
    const Edges<T> edges[3] = {{nullptr, job.hardest_text, row_weight, T(1), rows},
                               {nullptr, job.target, positive, T(-1), rows},
                               {job.hardest_image, nullptr, column_weight, T(1), columns}};
    const TermLists<T> lists = sort_edges(edges, rows, columns);
    gather(job.text, lists, scale, kernel, threads, element_bytes, job.grad_image);
  }
  if (job.grad_text != nullptr) {
    const Edges<T> edges[3] = {{nullptr, job.hardest_image, column_weight, T(1), columns},
                               {job.target, nullptr, positive, T(-1), rows},
                               {job.hardest_text, nullptr, row_weight, T(1), rows}};
    const TermLists<T> lists = sort_edges(edges, columns, rows);
    gather(job.image, lists, scale, kernel, threads, element_bytes, job.grad_text);
  }
}

}  // namespace

void apply(const ApplyJob& job, const RowKernels& kernels, int threads) {
  check_range("hardest_text", job.hardest_text, job.image.rows, job.text.rows);
  check_range("hardest_image", job.hardest_image, job.text.rows, job.image.rows);
  if (job.image.dtype == Dtype::float64)
    apply_as<double>(job, kernels.float64, threads, sizeof(double));
  else
    apply_as<float>(job, kernels.float32, threads,
                    job.image.dtype == Dtype::float32 ? sizeof(float) : sizeof(std::uint16_t));
}

}  // namespace goal_kernels
