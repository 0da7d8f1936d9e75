#include "mine_shape.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "mine.h"

namespace goal_kernels::cuda {

namespace {

// What the cut balances the work for. The grid may be any other; only the tail would be longer.
constexpr std::int64_t kMultiprocessors = 132;
constexpr int kMostGroups = 64;
// What a multiprocessor can read of the L2 cache in a cycle, as far as we know; and cycles of the products of a step.
constexpr std::int64_t kL2Bytes = 46;
constexpr std::int64_t kStepCycles = 512;
constexpr std::int64_t kChunkBytes = 8 << 20;  // rows that are live at a time; both halves of the L2 hold them

template <class Int>
Int ceil_div(Int a, Int b) {
  return (a + b - 1) / b;
}

// Time of the slowest multiprocessor in quarters of a tile. A pass costs a quarter for the columns' results, and
// half a tile if it has an odd last one, which nothing overlaps.
std::int64_t cost(const MineShape& shape, std::int64_t segment_tiles) {
  const std::int64_t items = ceil_div<std::int64_t>(shape.tiles, segment_tiles) * shape.groups;
  const std::int64_t rounds = ceil_div(items, kMultiprocessors / shape.members);
  return rounds * (shape.group_blocks / shape.members) * (4 * segment_tiles + 1 + 2 * (segment_tiles % 2));
}

int best_segment_tiles(const MineShape& shape) {
  int best = 1;
  for (int candidate = 2; candidate <= kMostTiles && candidate < shape.tiles + 2; candidate += 2)
    if (cost(shape, candidate) <= cost(shape, best)) best = candidate;
  return best;
}

}  // namespace

MineShape mine_shape(std::int64_t rows, std::int64_t columns, int width, bool split, int members) {
  if (members < 0 || members > kMostMembers)
    throw std::invalid_argument("members: expected 0, 1 or 2, got " + std::to_string(members));
  MineShape shape{};
  shape.rows = rows;
  shape.columns = columns;
  shape.tiles = static_cast<int>(ceil_div<std::int64_t>(rows, kTile));
  shape.blocks = static_cast<int>(ceil_div<std::int64_t>(columns, kTile));
  shape.slices = ceil_div(width, kSlice);
  shape.split = split;
  const std::int64_t tile_bytes = std::int64_t{shape.ring_slots()} * kSlotBytes;
  const bool shares = shape.blocks > 1 && tile_bytes > kL2Bytes * kStepCycles * shape.steps();
  shape.members = members > 0 ? members : shares ? kMostMembers : 1;
  shape.group_blocks = ceil_div(shape.blocks, kMostGroups * shape.members) * shape.members;
  shape.groups = ceil_div(shape.blocks, shape.group_blocks);
  shape.segment_tiles = best_segment_tiles(shape);
  shape.segments = ceil_div(shape.tiles, shape.segment_tiles);
  const std::int64_t segment_bytes =
      std::int64_t{shape.segment_tiles} * shape.slices * (split ? 2 : 1) * kSlotBytes;
  shape.chunk_segments = static_cast<int>(
      std::clamp<std::int64_t>(kChunkBytes / segment_bytes, 1, shape.segments));
  return shape;
}

}  // namespace goal_kernels::cuda
