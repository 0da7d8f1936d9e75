// Tile products on the processor as a GPU would make them: the same passes, steps, fragments and epilogues, with
// products summed in float. It is sequential: barriers do nothing.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "mine_shape.h"
#include "protocol.h"
#include "tiles.h"

namespace goal_kernels::cuda {

// A matrix as k slices of tiles, zeros where there is no element or row, as the copy engine delivers them.
class Slices {
 public:
  Slices(const Rows& matrix, Operand operand, int width)
      : matrix_(matrix), operand_(operand), width_(width) {}

  // out [kSlice][kTile]: transposed for the product.
  void load(int tile, int slice, int half, float (*out)[kTile]) const {
    if (operand_ == Operand::kBfloat16)
      load_elements<bfloat16>(tile, slice, half, out);
    else
      load_elements<float16>(tile, slice, half, out);
  }

 private:
  template <typename Element>
  void load_elements(int tile, int slice, int half, float (*out)[kTile]) const {
    const auto* data = static_cast<const Element*>(matrix_.data);
    for (int r = 0; r < kTile; ++r) {
      const std::int64_t row = std::int64_t{tile} * kTile + r;
      for (int e = 0; e < kSlice; ++e) {
        const int element = slice * kSlice + e;
        const bool inside = row < matrix_.count && element < width_;
        const std::int64_t place = row * matrix_.stride + std::int64_t{half} * width_ + element;
        out[e][r] = inside ? to_float(data[place]) : 0.0f;
      }
    }
  }

  Rows matrix_;
  Operand operand_;
  int width_;
};

template <typename Epilogue>
class HostConsumer {
 public:
  static constexpr int kRing = kRingSlots;

  HostConsumer(const typename Epilogue::Arguments& arguments, const MineShape& shape, int consumer)
      : image_(arguments.image, arguments.operand, arguments.width),
        text_(arguments.text, arguments.operand, arguments.width) {
    for (int warp = 0; warp < kConsumerWarps; ++warp) warps_.emplace_back(arguments, shape, consumer, warp);
  }

  void wait(Barrier, int, int) {}
  void arrive(Barrier, int) {}
  template <int Pending>
  void retire() {}

  void begin_pass(const Item& item, int block) {
    block_ = block;
    for (auto& warp : warps_) warp.begin_pass(item, block);
  }
  void begin_tile(const Item& item, int tile, int block) {
    for (auto& warp : warps_) warp.begin_tile(item, tile, block);
    tile_ = item.first_tile + tile;
    product_.fill({});
  }
  void multiply(int, int, const StepWalker& step) {
    image_.load(tile_, step.slice(), step.image_half(), image_slice_.data());
    text_.load(block_, step.slice(), step.text_half(), text_slice_.data());
    for (int e = 0; e < kSlice; ++e)
      for (int r = 0; r < kTile; ++r)
        for (int c = 0; c < kTile; ++c) product_[r][c] += image_slice_[e][r] * text_slice_[e][c];
  }
  void finish_tile(const Item& item, int tile, int block) {
    for (int warp = 0; warp < kConsumerWarps; ++warp) {
      fill_fragments(warp);
      warps_[warp].finish_tile(score_, item, tile, block);
    }
  }
  void finish_pass(const Item& item, int block) {
    for (auto& warp : warps_) warp.finish_pass(item, block);
  }

 private:
  void fill_fragments(int warp) {
    for (int slice = 0; slice < kRowSlices; ++slice)
      for (int i = 0; i < kIndices; ++i)
        for (int lane = 0; lane < kWarpLanes; ++lane)
          score_[fragment_register(slice, i)][lane] =
              product_[fragment_row(warp, lane, slice)][fragment_column(lane, i)];
  }

  Slices image_, text_;
  std::vector<Epilogue> warps_;
  int tile_ = 0, block_ = 0;
  std::array<std::array<float, kTile>, kTile> product_;
  std::array<float[kTile], kSlice> image_slice_, text_slice_;
  Lanes<float> score_[kRegisters];
};

// `programs` 0 means 1.
template <typename Epilogue>
void run_tiles(const typename Epilogue::Arguments& arguments) {
  const MineShape shape =
      mine_shape(arguments.image.count, arguments.text.count, arguments.width, arguments.split);
  const int programs = arguments.programs > 0 ? arguments.programs : 1;
  for (int program = 0; program < programs; ++program)
    for (int consumer = 0; consumer < kConsumers; ++consumer) {
      const auto machine = std::make_unique<HostConsumer<Epilogue>>(arguments, shape, consumer);
      consume(*machine, shape, consumer, program, programs);
    }
}

}  // namespace goal_kernels::cuda
