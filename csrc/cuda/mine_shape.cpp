#include "mine_shape.h"

#include <algorithm>

#include "mine.h"

namespace goal_kernels::cuda {

namespace {

// What the cut balances the work for. The grid may be any other; only the tail would be longer.
constexpr std::int64_t kMultiprocessors = 132;
constexpr int kMostGroups = 64;
constexpr std::int64_t kChunkBytes = 8 << 20;  // rows that are live at a time; both halves of the L2 hold them

template <class Int>
Int ceil_div(Int a, Int b) {
  return (a + b - 1) / b;
}

// Time of the slowest multiprocessor in quarters of a tile. A pass costs a quarter for the columns' results, and
// half a tile if it has an odd last one, which nothing overlaps.
std::int64_t cost(std::int64_t tiles, std::int64_t groups, std::int64_t group_blocks, std::int64_t segment_tiles) {
  const std::int64_t rounds = ceil_div(ceil_div(tiles, segment_tiles) * groups, kMultiprocessors);
  return rounds * group_blocks * (4 * segment_tiles + 1 + 2 * (segment_tiles % 2));
}

int best_segment_tiles(int tiles, int groups, int group_blocks) {
  int best = 1;
  for (int candidate = 2; candidate <= kMostTiles && candidate < tiles + 2; candidate += 2)
    if (cost(tiles, groups, group_blocks, candidate) <= cost(tiles, groups, group_blocks, best)) best = candidate;
  return best;
}

}  // namespace

MineShape mine_shape(std::int64_t rows, std::int64_t columns, int width, bool split) {
  MineShape shape{};
  shape.rows = rows;
  shape.columns = columns;
  shape.tiles = static_cast<int>(ceil_div<std::int64_t>(rows, kTile));
  shape.blocks = static_cast<int>(ceil_div<std::int64_t>(columns, kTile));
  shape.group_blocks = ceil_div(shape.blocks, kMostGroups);
  shape.groups = ceil_div(shape.blocks, shape.group_blocks);
  shape.segment_tiles = best_segment_tiles(shape.tiles, shape.groups, shape.group_blocks);
  shape.segments = ceil_div(shape.tiles, shape.segment_tiles);
  shape.slices = ceil_div(width, kSlice);
  shape.split = split;
  const std::int64_t segment_bytes =
      std::int64_t{shape.segment_tiles} * shape.slices * (split ? 2 : 1) * kSlotBytes;
  shape.chunk_segments = static_cast<int>(
      std::clamp<std::int64_t>(kChunkBytes / segment_bytes, 1, shape.segments));
  return shape;
}

}  // namespace goal_kernels::cuda
