// Mining on the processor as a GPU would do it: the same passes, steps, fragments and epilogue, with products
// summed in float and nobody waiting for anybody.
#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "mine.h"
#include "mine_epilogue.h"
#include "mine_shape.h"
#include "protocol.h"

namespace goal_kernels::cuda {

namespace {

float widen_bfloat16(std::uint16_t bits) {
  const std::uint32_t wide = std::uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

float widen_float16(std::uint16_t bits) {
  const float sign = bits & 0x8000 ? -1.0f : 1.0f;
  const int exponent = bits >> 10 & 0x1f, fraction = bits & 0x3ff;
  if (exponent == 0x1f) return fraction ? NAN : sign * kInfinity;
  return sign * (exponent ? std::ldexp(1.0f + fraction / 1024.0f, exponent - 15) : std::ldexp(fraction, -24));
}

// A matrix as k slices of tiles, zeros where there is no element or row, as the copy engine delivers them.
class Slices {
 public:
  Slices(const MineMatrix& matrix, Operand operand, int width)
      : matrix_(matrix), operand_(operand), width_(width) {}

  // out [kSlice][kTile]: transposed for the product.
  void load(int tile, int slice, int half, float (*out)[kTile]) const {
    const auto* data = static_cast<const std::uint16_t*>(matrix_.data);
    for (int r = 0; r < kTile; ++r) {
      const std::int64_t row = std::int64_t{tile} * kTile + r;
      for (int e = 0; e < kSlice; ++e) {
        const int element = slice * kSlice + e;
        const bool inside = row < matrix_.rows && element < width_;
        const std::int64_t place = row * matrix_.row_stride + std::int64_t{half} * width_ + element;
        out[e][r] = !inside ? 0.0f
                    : operand_ == Operand::kBfloat16 ? widen_bfloat16(data[place])
                                                     : widen_float16(data[place]);
      }
    }
  }

 private:
  MineMatrix matrix_;
  Operand operand_;
  int width_;
};

template <MineKind kKind>
class HostConsumer {
 public:
  static constexpr int kRing = kRingSlots;

  HostConsumer(const MineArguments& arguments, const MineShape& shape, int consumer)
      : image_(arguments.image, arguments.operand, arguments.width),
        text_(arguments.text, arguments.operand, arguments.width) {
    for (int warp = 0; warp < kConsumerWarps; ++warp) warps_.emplace_back(arguments, shape, consumer, warp);
  }

  void wait(Barrier, int, int) {}
  void arrive(Barrier, int) {}
  template <int Pending>
  void retire() {}

  void begin_pass(const Item&, int block) {
    block_ = block;
    for (auto& warp : warps_) warp.begin_pass();
  }
  void begin_tile(const Item& item, int tile, int) {
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
      warps_[warp].finish_tile(score_, item, tile, block, warps_[warp].masked(item, tile, block));
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
  std::vector<Epilogue<HostWarp, kKind>> warps_;
  int tile_ = 0, block_ = 0;
  std::array<std::array<float, kTile>, kTile> product_;
  std::array<float[kTile], kSlice> image_slice_, text_slice_;
  Lanes<float> score_[kRegisters];
};

template <MineKind kKind>
void mine_programs(const MineArguments& arguments) {
  const MineShape shape =
      mine_shape(arguments.image.rows, arguments.text.rows, arguments.width, arguments.split);
  const int programs = arguments.programs > 0 ? arguments.programs : 1;
  for (int program = 0; program < programs; ++program)
    for (int consumer = 0; consumer < kConsumers; ++consumer) {
      const auto machine = std::make_unique<HostConsumer<kKind>>(arguments, shape, consumer);
      consume(*machine, shape, consumer, program, programs);
    }
}

}  // namespace

void mine_emulated(const MineArguments& arguments) {
  if (arguments.kind == MineKind::kNone) return mine_programs<MineKind::kNone>(arguments);
  if (arguments.kind == MineKind::kLinear) return mine_programs<MineKind::kLinear>(arguments);
  mine_programs<MineKind::kExponential>(arguments);
}

}  // namespace goal_kernels::cuda
