// Screening: candidates by a bfloat16 product, decided in float.
//
// Bound: lengths.h. The largest element of a row has S~ within the slack of the largest S~ of the row; likewise for
//         columns.
// Memory: besides the tile loop's 192 KiB of candidates per worker, those that remain (about one or two per
//         row and column, at most 8192 per chunk and block), at most 64 * 2048 column maxima, 8 bytes per row
//         and 8 per column.
// Determinism: which elements remain in the end depends on S~ alone; the decision compares float values and
//         then indices, so the order does not matter. Whether a chunk gives up depends on that chunk, whether
//         the job does on what remains of all.
#include "screen.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "exclusion_table.h"
#include "lengths.h"
#include "pairs.h"
#include "tile_loop.h"

namespace goal_kernels {
namespace {

struct Element {
  std::int64_t row;
  std::int64_t column;
  float value;
};

// The candidates of a worker's current chunk and block.
class OpenCandidates {
 public:
  explicit OpenCandidates(std::int64_t room) : row_(room), column_(room), value_(room) {}

  Candidates<float> at(std::int64_t i) const { return {row_.data() + i, column_.data() + i, value_.data() + i}; }

  Element operator[](std::int64_t i) const { return {row_[i], column_[i], value_[i]}; }

  void move(std::int64_t from, std::int64_t to) const {
    row_[to] = row_[from];
    column_[to] = column_[from];
    value_[to] = value_[from];
  }

 private:
  Buffer<std::int32_t> row_;
  Buffer<std::int32_t> column_;
  Buffer<float> value_;
};

// Room for the candidates of a chunk in a block, and how many of them may remain.
constexpr std::int64_t kOpenCandidates = 1 << 14;
constexpr std::int64_t kMaxLeft = kOpenCandidates / 2;
// How many elements per row or column may be computed in float: usual are one or two, and this many cost less
// than the product in float of the smallest job.
constexpr std::int64_t kMaxPerAnchor = 16;
constexpr float kLowest = -std::numeric_limits<float>::infinity();

// The best candidate of an anchor: by its value in float, then by index.
struct Decision {
  float value = kLowest;
  std::int64_t index = -1;

  void offer(float other, std::int64_t other_index) {
    const bool better = index < 0 || other > value || (other == value && other_index < index);
    value = better ? other : value;
    index = better ? other_index : index;
  }

  void write(const AnchorOutput& out, std::int64_t anchor) const {
    static_cast<float*>(out.value)[anchor] = value;
    out.index[anchor] = index;
  }
};

// The job of the tile loop.
class Screener {
 public:
  Screener(const MineJob& job, const Isa& isa, const float* row_slack, const float* column_slack,
           int threads)
      : job_(job),
        row_kernel_(isa.row->float32),
        kernel_(*isa.bfloat16),
        loop_(job.image, job.text, kernel_, threads),
        exclusions_(job.image.rows, job.text.rows, job.target, {job.image_ids, job.text_ids}, kernel_.columns),
        row_slack_(row_slack),
        column_slack_(column_slack),
        row_best_(job.image.rows),
        column_best_(loop_.plan().chunks * loop_.plan().block_columns),
        lists_(loop_.plan().chunks),
        open_(static_cast<std::size_t>(loop_.workers())) {
    for (auto& open : open_) open = std::make_unique<OpenCandidates>(kOpenCandidates);
    std::fill_n(row_best_.data(), job.image.rows, kLowest);
  }

  // False if too many candidates remained.
  bool run() {
    loop_.run(*this);
    if (!gave_up_) decide_rows();
    return !gave_up_;
  }

  void start(std::int64_t chunk, int worker) {
    std::fill_n(column_best(chunk), loop_.plan().block_columns, kLowest);
    lists_[chunk].open = open_[worker].get();
    lists_[chunk].count = 0;
  }

  void tile(const TilePlace<float>& place, std::int64_t chunk, std::int64_t offset) {
    List& list = lists_[chunk];
    list.first_column = place.first_column - offset;
    const std::int64_t room = kernel_.rows * kernel_.columns + kVectorRoom;
    if (list.count + room > kOpenCandidates) drop_behind(chunk);
    if (gave_up_) return;
    list.count += kernel_.screen(ScreenTile<float>{
        place, exclusions_.at(place), row_best_.data() + place.first_row, row_slack_ + place.first_row,
        column_best(chunk) + offset, column_slack_ + place.first_column, list.open->at(list.count)});
  }

  void stop(std::int64_t chunk) {
    drop_behind(chunk);
    List& list = lists_[chunk];
    list.block.clear();
    for (std::int64_t i = 0; i < list.count; ++i) list.block.push_back((*list.open)[i]);
  }

  void finish(std::int64_t first, std::int64_t count) {
    if (gave_up_) return;
    const std::int64_t chunks = loop_.plan().chunks;
    float* const best = column_best(0);  // of all chunks from here on
    for (std::int64_t chunk = 1; chunk < chunks; ++chunk)
      for (std::int64_t c = 0; c < count; ++c) best[c] = std::max(best[c], column_best(chunk)[c]);
    parallel_for(chunks, loop_.workers(), [&](std::int64_t chunk, int) { sort_out(chunk, first); });
    if (too_many(&List::block, count)) return;
    parallel_for(chunks, loop_.workers(), [&](std::int64_t chunk, int) { decide(lists_[chunk].block); });
    std::vector<Decision> decisions(static_cast<std::size_t>(count));
    for (const List& list : lists_)
      for (const Element& e : list.block) decisions[e.column - first].offer(e.value, e.row);
    for (std::int64_t c = 0; c < count; ++c) decisions[c].write(job_.column, first + c);
  }

 private:
  // Candidates of one chunk of rows.
  struct List {
    OpenCandidates* open = nullptr;  // in the current block of columns; the worker's
    std::int64_t count = 0;          // of them
    std::int64_t first_column = 0;   // of the block
    std::vector<Element> block;      // left of them
    std::vector<Element> rows;       // left of all blocks for the rows
  };

  float* column_best(std::int64_t chunk) const {
    return column_best_.data() + chunk * loop_.plan().block_columns;
  }

  bool leads_row(const Element& e) const { return e.value >= row_best_[e.row] - row_slack_[e.row]; }

  // `best`: of the columns from `first` on.
  bool leads_column(const Element& e, const float* best, std::int64_t first) const {
    return e.value >= best[e.column - first] - column_slack_[e.column];
  }

  float exact(const Element& e) const { return row_kernel_.dot(job_.image, e.row, job_.text, e.column); }

  // Drops the open candidates that better elements of their row and of their column within the chunk have left
  // behind; gives up when too many remain.
  void drop_behind(std::int64_t chunk) {
    List& list = lists_[chunk];
    const float* const best = column_best(chunk);
    std::int64_t kept = 0;
    for (std::int64_t i = 0; i < list.count; ++i) {
      const Element e = (*list.open)[i];
      if (leads_row(e) || leads_column(e, best, list.first_column)) list.open->move(i, kept++);
    }
    list.count = kept;
    if (list.count > kMaxLeft) gave_up_ = true;
  }

  // Keeps in `block` what leads its column in all chunks, and adds what leads its row so far to `rows`.
  void sort_out(std::int64_t chunk, std::int64_t first) {
    List& list = lists_[chunk];
    std::size_t kept = 0;
    for (const Element& e : list.block) {
      if (leads_row(e)) list.rows.push_back(e);
      if (leads_column(e, column_best(0), first)) list.block[kept++] = e;
    }
    list.block.resize(kept);
  }

  // Gives up when the chunks' lists have more elements to compute in float than the anchors are worth.
  bool too_many(std::vector<Element> List::*elements, std::int64_t anchors) {
    std::int64_t total = 0;
    for (const List& list : lists_) total += static_cast<std::int64_t>((list.*elements).size());
    if (total > kMaxPerAnchor * anchors) gave_up_ = true;
    return gave_up_;
  }

  void decide(std::vector<Element>& elements) const {
    for (Element& e : elements) e.value = exact(e);
  }

  void decide_rows() {
    parallel_for(loop_.plan().chunks, loop_.workers(), [&](std::int64_t chunk, int) {
      std::vector<Element>& rows = lists_[chunk].rows;
      const auto behind = [&](const Element& e) { return !leads_row(e); };
      rows.erase(std::remove_if(rows.begin(), rows.end(), behind), rows.end());
    });
    if (too_many(&List::rows, job_.image.rows)) return;
    parallel_for(loop_.plan().chunks, loop_.workers(), [&](std::int64_t chunk, int) {
      const std::int64_t begin = loop_.first_row(chunk), end = loop_.first_row(chunk + 1);
      std::vector<Decision> decisions(static_cast<std::size_t>(end - begin));
      decide(lists_[chunk].rows);
      for (const Element& e : lists_[chunk].rows) decisions[e.row - begin].offer(e.value, e.column);
      for (std::int64_t r = begin; r < end; ++r) decisions[r - begin].write(job_.row, r);
    });
  }

  const MineJob& job_;
  const RowKernel<float>& row_kernel_;
  const TileKernel<float>& kernel_;
  const TileLoop<float> loop_;
  const ExclusionTable<float> exclusions_;
  const float* row_slack_;     // [N]
  const float* column_slack_;  // [M + one micro-tile]
  Buffer<float> row_best_;     // [N]
  Buffer<float> column_best_;  // [chunks, block_columns]
  std::vector<List> lists_;    // [chunks]
  std::vector<std::unique_ptr<OpenCandidates>> open_;  // [workers]
  std::atomic<bool> gave_up_{false};
};

}  // namespace

bool screen(const MineJob& job, const Isa& isa, int threads) {
  const bool precise = holds_float(job) && job.precision != Precision::medium;
  if (!precise || isa.bfloat16 == nullptr || job.relative != Relative::none) return false;
  if (!worth_screening(job.image, job.text)) return false;
  const std::int64_t width = job.image.width;
  const Lengths rows(job.image, 0, *isa.row, threads);
  const Lengths columns(job.text, isa.bfloat16->columns, *isa.row, threads);
  if (!rows.bounded() || !columns.bounded()) return false;
  const auto row_slack = rows.slack(columns, width), column_slack = columns.slack(rows, width);
  return Screener(job, isa, row_slack->data(), column_slack->data(), threads).run();
}

}  // namespace goal_kernels
