// The loop over all micro-tiles of S = image . text^T, shared by every job: cutting, packing, threads.
//
// Work: 2 N M D FLOPs. S is never stored.
// Memory passes: text packed once; image packed once per block of text columns.
// Memory: at most 8 MiB of packed text, 0.5 MiB per worker of packed image.
// Determinism: rows are cut into chunks that depend on the sizes alone. A chunk meets the blocks of columns
//         in order, its rows and columns in order. Which worker runs a chunk does not matter.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

#include "buffer.h"
#include "parallel.h"
#include "tile_kernel.h"

namespace goal_kernels {

constexpr std::int64_t kMaxBlockColumns = 2048;
constexpr std::int64_t kPackedTextBytes = std::int64_t{8} << 20;   // a share of the last-level cache
constexpr std::int64_t kPackedImageBytes = std::int64_t{1} << 19;  // half of a 1 MiB second-level cache
constexpr std::int64_t kMaxChunks = 64;
constexpr std::int64_t kMinChunks = 16;

// Throws std::invalid_argument for sizes that the lanes' integers cannot count.
inline void check_sizes(const Matrix& image, const Matrix& text) {
  constexpr std::int64_t limit = std::numeric_limits<std::int32_t>::max() - kMaxBlockColumns;
  for (const std::int64_t size : {image.rows, text.rows, image.width})
    if (size < 1 || size > limit)
      throw std::invalid_argument("image, text: expected 1 to " + std::to_string(limit) +
                                  " rows and columns, got " + std::to_string(size));
}

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// How rows and columns are cut.
struct Plan {
  std::int64_t row_bytes;      // of a packed row or column
  std::int64_t groups;         // micro-tiles of rows
  std::int64_t chunks;         // of consecutive groups
  std::int64_t pack_groups;    // groups packed at a time
  std::int64_t block_columns;  // a multiple of the micro-tile's

  std::int64_t first_group(std::int64_t chunk) const { return chunk * groups / chunks; }
};

template <typename T>
Plan make_plan(const Matrix& image, const Matrix& text, const TileKernel<T>& kernel) {
  Plan plan;
  plan.row_bytes = ceil_div(image.width, kernel.depth_step) * kernel.depth_step * kernel.value_bytes;
  plan.groups = ceil_div(image.rows, kernel.rows);
  // Multiples of 8 chunks of about 8 groups or more: even shares for few workers, panels reused, and not
  // too many states of the same columns.
  const std::int64_t wanted = std::clamp(plan.groups / 64 * 8, kMinChunks, kMaxChunks);
  plan.chunks = std::min(plan.groups, wanted);
  plan.pack_groups = std::max<std::int64_t>(1, kPackedImageBytes / (plan.row_bytes * kernel.rows));
  plan.pack_groups = std::min(plan.pack_groups, ceil_div(plan.groups, plan.chunks));
  const std::int64_t panels = std::clamp<std::int64_t>(
      kPackedTextBytes / (plan.row_bytes * kernel.columns), 1, kMaxBlockColumns / kernel.columns);
  plan.block_columns = std::min(panels, ceil_div(text.rows, kernel.columns)) * kernel.columns;
  return plan;
}

// The text may be across. A Job has, all called with indices of this plan:
//   void start(chunk, worker)         before the rows of a chunk meet a block of columns
//   void tile(place, chunk, offset)   one micro-tile, `offset` columns into the block
//   void stop(chunk)                  after the last of them
//   void finish(first, count)         after all rows met columns [first, first + count)
// `start`, `tile` and `stop` of different chunks run at the same time.
template <typename T>
class TileLoop {
 public:
  TileLoop(const Matrix& image, const Matrix& text, const TileKernel<T>& kernel, int threads)
      : image_(image),
        text_(text),
        kernel_(kernel),
        plan_(make_plan(image, text, kernel)),
        workers_(worker_count(double(image.rows) * double(text.rows) * double(image.width), threads)),
        packed_text_(plan_.block_columns * plan_.row_bytes),
        packed_image_(workers_ * packed_image_bytes()) {}

  const Plan& plan() const { return plan_; }
  int workers() const { return workers_; }
  std::int64_t first_row(std::int64_t chunk) const {
    return std::min(plan_.first_group(chunk) * kernel_.rows, image_.rows);
  }

  template <typename Job>
  void run(Job& job) const {
    for (std::int64_t first = 0; first < text_.rows; first += plan_.block_columns) {
      const std::int64_t count = std::min(plan_.block_columns, text_.rows - first);
      pack_text(first, count);
      parallel_for(plan_.chunks, workers_, [&](std::int64_t chunk, int worker) {
        job.start(chunk, worker);
        kernel_.enter();
        run_chunk(job, chunk, first, count, packed_image_.data() + worker * packed_image_bytes());
        kernel_.leave();
        job.stop(chunk);
      });
      job.finish(first, count);
    }
  }

 private:
  std::int64_t packed_image_bytes() const { return plan_.pack_groups * kernel_.rows * plan_.row_bytes; }

  void pack_text(std::int64_t first, std::int64_t count) const {
    const std::int64_t panels = ceil_div(count, kernel_.columns);
    parallel_for(panels, workers_, [&](std::int64_t panel, int) {
      const std::int64_t begin = panel * kernel_.columns;
      const std::int64_t columns = std::min<std::int64_t>(kernel_.columns, count - begin);
      const auto pack = text_.across ? kernel_.pack_across : kernel_.pack_columns;
      pack(text_, first + begin, columns, packed_text_.data() + begin * plan_.row_bytes);
    });
  }

  // All rows of a chunk against columns [first, first + count).
  template <typename Job>
  void run_chunk(Job& job, std::int64_t chunk, std::int64_t first, std::int64_t count,
                 char* packed) const {
    const std::int64_t end = plan_.first_group(chunk + 1);
    for (std::int64_t group = plan_.first_group(chunk); group < end; group += plan_.pack_groups) {
      const std::int64_t groups = std::min(plan_.pack_groups, end - group);
      const std::int64_t begin = group * kernel_.rows;
      const std::int64_t rows = std::min(groups * kernel_.rows, image_.rows - begin);
      for (std::int64_t r = 0; r < rows; r += kernel_.rows)
        kernel_.pack_rows(image_, begin + r, std::min<std::int64_t>(kernel_.rows, rows - r),
                          packed + r * plan_.row_bytes);
      for (std::int64_t offset = 0; offset < count; offset += kernel_.columns) {
        const std::int64_t columns = std::min<std::int64_t>(kernel_.columns, count - offset);
        for (std::int64_t r = 0; r < rows; r += kernel_.rows)
          job.tile(TilePlace<T>{packed + r * plan_.row_bytes,
                                packed_text_.data() + offset * plan_.row_bytes, image_.width,
                                static_cast<int>(std::min<std::int64_t>(kernel_.rows, rows - r)),
                                static_cast<int>(columns), Integer<T>(begin + r),
                                Integer<T>(first + offset)},
                   chunk, offset);
      }
    }
  }

  const Matrix& image_;
  const Matrix& text_;
  const TileKernel<T>& kernel_;
  const Plan plan_;
  const int workers_;
  Buffer<char> packed_text_;   // [block_columns / micro columns] panels
  Buffer<char> packed_image_;  // [workers, pack_groups] groups
};

}  // namespace goal_kernels
