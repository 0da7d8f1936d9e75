// A tile kernel on the processor: its own roles, recorded and run by an emulated cluster of thread blocks, and its own
// epilogues, of emulated warps.
#pragma once

#include "cluster.h"
#include "cuda/dump.h"
#include "cuda/mine.h"
#include "cuda/mine_shape.h"
#include "cuda/rank.h"

namespace goal_kernels::cuda {

template <typename Epilogue>
class EmulatedEpilogues {
 public:
  EmulatedEpilogues(const typename Epilogue::Arguments& arguments, const MineShape& shape) {
    for (int consumer = 0; consumer < shape.members * kConsumers; ++consumer)
      for (int warp = 0; warp < kConsumerWarps; ++warp)
        warps_.emplace_back(arguments, shape, consumer % kConsumers, warp);
  }

  void operator()(int consumer, const Instruction& asked, const Accumulators& products) {
    for (int w = 0; w < kConsumerWarps; ++w) {
      Epilogue& warp = warps_[consumer * kConsumerWarps + w];
      if (asked.kind == Instruction::kBeginPass) {
        warp.begin_pass(asked.item, asked.block);
      } else if (asked.kind == Instruction::kBeginTile) {
        warp.begin_tile(asked.item, asked.tile, asked.block);
      } else if (asked.kind == Instruction::kFinishPass) {
        warp.finish_pass(asked.item, asked.block);
      } else {
        Lanes<float> score[kRegisters];
        for (int i = 0; i < kRegisters; ++i)
          for (int lane = 0; lane < kWarpLanes; ++lane) score[i][lane] = register_of(products, w, lane, i);
        warp.finish_tile(score, asked.item, asked.tile, asked.block);
      }
    }
  }

 private:
  std::vector<Epilogue> warps_;
};

inline MineShape shape_of(const TileProducts& products) {
  return mine_shape(products.image.count, products.text.count, products.width, products.split, products.members);
}

using Maps = std::array<TensorMap, 2>;

inline Maps maps_of(const TileProducts& products) {
  const int image_rows = rows_of_member(shape_of(products).members);
  return {slices_of(products.image, products, image_rows), slices_of(products.text, products, kTile)};
}

// One cluster, by programs and maps that may have been changed. seed: of the order in which things happen.
template <typename Epilogue>
void run_programs(const typename Epilogue::Arguments& arguments, const Programs& programs, const Maps& maps,
                  unsigned seed) {
  const MineShape shape = shape_of(arguments);
  EmulatedEpilogues<Epilogue> epilogues(arguments, shape);
  Cluster(maps, shape.members, shared_bytes(shape.resident()), seed, std::ref(epilogues)).run(programs);
}

// `programs` 0 means 1.
template <typename Epilogue>
void run_tiles(const typename Epilogue::Arguments& arguments) {
  const int programs = arguments.programs > 0 ? arguments.programs : 1;
  for (int program = 0; program < programs; ++program)
    run_programs<Epilogue>(arguments, record(shape_of(arguments), program, programs), maps_of(arguments), program);
}

// What the functions without "emulated" do on a GPU.
void mine_emulated(const MineArguments& arguments);
void score_emulated(const ScoreArguments& arguments);
void rank_emulated(const RankArguments& arguments);

}  // namespace goal_kernels::cuda
