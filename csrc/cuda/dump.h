// The products themselves, S = image text^T, written to memory: what tests of the tile kernels look at. A hardest
// negative can hide an error that moves rows and columns together; this does not.
#pragma once

#include "layout.h"
#include "tiles.h"

struct CUstream_st;  // what cudaStream_t points to

namespace goal_kernels::cuda {

struct DumpArguments : TileProducts {
  float* scores;  // [N, M]
};

template <typename Warp>
class DumpEpilogue {
 public:
  using Arguments = DumpArguments;
  using Int = typename Warp::template Value<int>;
  using Scores = typename Warp::template Value<float>[kRegisters];

  GOAL_KERNELS_WARP DumpEpilogue(const DumpArguments& arguments, const MineShape& shape, int, int warp)
      : arguments_(arguments), shape_(shape), warp_(warp) {}

  GOAL_KERNELS_WARP void begin_pass(const Item&, int) {}
  GOAL_KERNELS_WARP void begin_tile(const Item&, int, int) {}
  GOAL_KERNELS_WARP void finish_tile(const Scores& score, const Item& item, int tile, int block) {
    const Int lane = lane_anew<Warp>();
    GOAL_KERNELS_UNROLL
    for (int slice = 0; slice < kRowSlices; ++slice) {
      const auto row = convert<std::int64_t>(fragment_row<Int>(warp_, lane, slice) + (item.first_tile + tile) * kTile);
      GOAL_KERNELS_UNROLL
      for (int i = 0; i < kIndices; ++i) {
        const auto column = convert<std::int64_t>(fragment_column<Int>(lane, i) + block * kTile);
        const auto inside = (row < shape_.rows) & (column < shape_.columns);
        store(arguments_.scores, row * shape_.columns + column, score[fragment_register(slice, i)], inside);
      }
    }
  }
  GOAL_KERNELS_WARP void finish_pass(const Item&, int) {}

 private:
  const DumpArguments& arguments_;
  const MineShape& shape_;
  int warp_;
};

// Enqueues it on `stream`. Throws std::runtime_error with the name of a CUDA error. Needs compute capability 9.0.
void dump(const DumpArguments& arguments, CUstream_st* stream);

}  // namespace goal_kernels::cuda
