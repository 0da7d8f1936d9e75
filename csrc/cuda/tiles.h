// Products of tiles on Hopper GPUs, S = image text^T, and what is done with a tile while it is in registers: an
// *epilogue*, one object a warp. Mining (mine_epilogue.h) and ranking (rank_epilogue.h) are two of them. An
// epilogue has
//
//   Arguments                             a TileProducts and what the epilogue wants besides
//   (arguments, shape, consumer, warp)    both live longer than it does
//   begin_pass(item, block)               before the first tile of a column block in a segment
//   begin_tile(item, tile, block)         while the tile is multiplied; `tile`: its number in the segment
//   finish_tile(score, item, tile, block) fragments of the tile, see layout.h
//   finish_pass(item, block)              after its last tile
#pragma once

#include "cuda/element.h"

namespace goal_kernels::cuda {

enum class Operand { kBfloat16, kFloat16 };

// On a GPU all pointers are device memory. Rows: image, N of them; columns: text, M. N, M, width >= 1,
// N and M < 2^31.
struct TileProducts {
  Rows image;  // of 16-bit numbers; data and stride * 2 bytes: multiples of 16
  Rows text;
  Operand operand;
  int width;   // split: multiple of 8
  bool split;  // rows are [high | low], each `width` wide: S = high high + high low + low high
  // Clusters of thread blocks that items are dealt to; 0: as many as the device runs at a time. Results do not depend
  // on it.
  int programs;
  // Thread blocks of a cluster, 1 or 2; 0: two where one would read more than the L2 cache gives. They change float32
  // sums, in the last bits, as the cut does.
  int members;
};

}  // namespace goal_kernels::cuda
