// Where everything is while mining: lanes and registers of matrix fragments, passes and items of work, k
// slices and shared memory. One set of functions for the GPU and its emulation.
#pragma once

#include <cstdint>

#include "warp.h"

namespace goal_kernels::cuda {

constexpr int kTile = 128;        // rows of a tile, columns of a block
constexpr int kSlice = 64;        // elements of a k slice: 128 bytes, the widest swizzle
constexpr int kSlotBytes = kTile * kSlice * 2;
constexpr int kResidentSlots = 8;  // k slices of a column block that stay while row tiles go by
constexpr int kRingSlots = 6;      // k slices on their way
constexpr int kSlots = kRingSlots + kResidentSlots;  // the ring's first
constexpr int kConsumers = 2;      // warpgroups that multiply, one after the other
constexpr int kConsumerWarps = 4;          // of a warpgroup
constexpr int kMostTiles = 64;  // of a segment
constexpr int kMostMembers = 2;  // thread blocks of a cluster

// --- Fragments: accumulators of two wgmma m64n128k16, 128 registers a thread -------------------------------
//
// A thread has 4 rows (`row slices`, ascending) and 32 columns (`indices`, ascending) of a tile. Lanes are int
// or a policy's vector of lanes.
constexpr int kRowSlices = 4;
constexpr int kIndices = 32;
constexpr int kRegisters = kRowSlices * kIndices;

GOAL_KERNELS_BOTH constexpr int fragment_register(int slice, int index) {
  return 64 * (slice >> 1) + 4 * (index >> 1) + 2 * (slice & 1) + (index & 1);
}

template <typename Int>
GOAL_KERNELS_BOTH Int fragment_row(int warp, Int lane, same<Int> slice) {
  return (slice >> 1) * 64 + (slice & 1) * 8 + (lane >> 2) + 16 * warp;
}

template <typename Int>
GOAL_KERNELS_BOTH Int fragment_column(Int lane, same<Int> index) {
  return (index >> 1) * 8 + (lane & 3) * 2 + (index & 1);
}

// The lane, read again: the compiler cannot keep what follows from it in registers while tiles are multiplied,
// where there are none to spare.
template <typename Warp>
GOAL_KERNELS_WARP typename Warp::template Value<int> lane_anew() {
#ifdef __CUDACC__
  int lane;
  asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
  return lane;
#else
  return Warp::lane();
#endif
}

// --- Work ---------------------------------------------------------------------------------------------------
//
// Rows are cut into segments of tiles, columns into groups of blocks. An item is a segment times a group, done
// by one cluster of thread blocks; in a pass each member takes the segment times one block of the group. The cut
// depends on the sizes alone, never on the grid, so neither do the sums.
//
// Members multiply the same images by different texts, so each loads a part of every image slice for all of them: with
// two, the images of a tile cross from the L2 cache once for both. Where the last pass has fewer blocks than there are
// members, the others go through it with texts beyond the end, which are zeros, and no epilogue.
struct MineShape {
  std::int64_t rows, columns;
  int tiles, blocks;                 // of all rows, of all columns
  int segment_tiles, segments;       // tiles of a segment
  int members;                       // thread blocks of a cluster, at most kMostMembers
  int group_blocks, groups;          // blocks of a group, a multiple of `members` but for the last
  int chunk_segments;                // segments taken together, so that their rows stay in the L2 cache
  int slices;                        // k slices of a row
  bool split;

  GOAL_KERNELS_BOTH int items() const { return segments * groups; }
  // k slices of a column block: those of `high`, then those of `low`.
  GOAL_KERNELS_BOTH int text_slices() const { return split ? 2 * slices : slices; }
  GOAL_KERNELS_BOTH int resident() const {
    return text_slices() < kResidentSlots ? text_slices() : kResidentSlots;
  }
  // Products of k slices in a tile.
  GOAL_KERNELS_BOTH int steps() const { return split ? 3 * slices : slices; }
  // Slots of the ring that a tile goes through: every image slice, and the text slices that do not stay.
  GOAL_KERNELS_BOTH int ring_slots() const {
    // The high text slices, some of which stay, are used twice.
    const int again = split ? resident_before(slices) : 0;
    return 2 * steps() - resident() - again;
  }
  // How many of the text slices before `slice` stay: as evenly spread as can be, so that loads are too.
  GOAL_KERNELS_BOTH int resident_before(int slice) const { return slice * resident() / text_slices(); }
};

struct Item {
  int segment, group;
  int first_tile, tiles;
  int first_block, blocks;
};

GOAL_KERNELS_BOTH Item item_at(const MineShape& shape, int item) {
  const int chunk_items = shape.chunk_segments * shape.groups;
  const int first = item / chunk_items * shape.chunk_segments;
  const int within = item % chunk_items;
  const int left = shape.segments - first;
  const int segments = left < shape.chunk_segments ? left : shape.chunk_segments;
  Item result;
  result.segment = first + within % segments;
  result.group = within / segments;
  result.first_tile = result.segment * shape.segment_tiles;
  result.first_block = result.group * shape.group_blocks;
  const int tiles_left = shape.tiles - result.first_tile;
  const int blocks_left = shape.blocks - result.first_block;
  result.tiles = tiles_left < shape.segment_tiles ? tiles_left : shape.segment_tiles;
  result.blocks = blocks_left < shape.group_blocks ? blocks_left : shape.group_blocks;
  return result;
}

// --- Steps: the products of k slices in one tile -----------------------------------------------------------
class StepWalker {
 public:
  GOAL_KERNELS_BOTH explicit StepWalker(const MineShape& shape)
      : slices_(shape.slices), text_slices_(shape.text_slices()), resident_(shape.resident()),
        steps_(shape.steps()) {}

  GOAL_KERNELS_BOTH int index() const { return index_; }
  GOAL_KERNELS_BOTH bool done() const { return index_ == steps_; }
  GOAL_KERNELS_BOTH bool first() const { return index_ == 0; }
  // Which half of a split row, and where in it, in slices.
  GOAL_KERNELS_BOTH int image_half() const { return index_ >= 2 * slices_; }
  GOAL_KERNELS_BOTH int text_half() const { return text_ >= slices_; }
  GOAL_KERNELS_BOTH int slice() const { return text_half() ? text_ - slices_ : text_; }
  // Whether the text slice of this step stays; its slot then.
  GOAL_KERNELS_BOTH bool resident() const { return rest_ + resident_ >= text_slices_; }
  GOAL_KERNELS_BOTH int resident_slot() const { return kRingSlots + slot_; }
  GOAL_KERNELS_BOTH bool first_use() const { return index_ < text_slices_; }
  GOAL_KERNELS_BOTH bool last_use() const { return steps_ == text_slices_ || index_ >= slices_; }

  GOAL_KERNELS_BOTH void advance() {
    slot_ += resident();
    rest_ += resident_;
    rest_ -= rest_ >= text_slices_ ? text_slices_ : 0;
    ++text_;
    if (++index_ == text_slices_) text_ = slot_ = rest_ = 0;  // high text slices again
  }

 private:
  int slices_, text_slices_, resident_, steps_;
  int index_ = 0;
  int text_ = 0;  // text slice
  int slot_ = 0;  // resident text slices before it
  int rest_ = 0;  // (text_ * resident_) mod text_slices_
};

}  // namespace goal_kernels::cuda
