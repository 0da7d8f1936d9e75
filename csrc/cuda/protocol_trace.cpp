#include "protocol_trace.h"

#include <stdexcept>

namespace goal_kernels::cuda {

namespace {

// Counts passes as it goes, so that what a load brings has a name of its own.
template <int Ring>
class TraceMachine {
 public:
  static constexpr int kRing = Ring;

  void wait(Barrier barrier, int index, int parity) {
    steps.push_back({ProtocolStep::kWait, barrier, index, parity, {}});
  }
  void arrive(Barrier barrier, int index) {
    steps.push_back({ProtocolStep::kArrive, barrier, index, 0, {}});
  }
  void load_image(Barrier barrier, int slot, int tile, int block, const StepWalker& step) {
    load(barrier, slot, image_content(tile, block, step));
  }
  void load_text(Barrier barrier, int slot, int tile, int block, const StepWalker& step) {
    load(barrier, slot, text_content(barrier == Barrier::kFull ? tile : -1, block, step));
  }
  void begin_pass(const Item&, int block) { block_ = block; }
  void begin_tile(const Item& item, int tile, int) { tile_ = item.first_tile + tile; }
  void multiply(int image_slot, int text_slot, const StepWalker& step) {
    const bool streamed = text_slot < kRingSlots;
    steps.push_back({ProtocolStep::kMultiply, Barrier::kFull, 0, 0,
                     {{image_slot, image_content(tile_, block_, step)},
                      {text_slot, text_content(streamed ? tile_ : -1, block_, step)}}});
  }
  template <int Pending>
  void retire() {
    steps.push_back({ProtocolStep::kRetire, Barrier::kFull, Pending, 0, {}});
  }
  void finish_tile(const Item&, int, int) {}
  void finish_pass(const Item&, int) {}

  std::vector<ProtocolStep> steps;

 private:
  void load(Barrier barrier, int slot, std::int64_t content) {
    steps.push_back({ProtocolStep::kLoad, barrier, slot, 0, {{slot, content}, {}}});
  }
  static std::int64_t name(int tile, int block, const StepWalker& step, int operand) {
    return ((((std::int64_t{tile} + 1) * 1024 + block) * 256 + step.index()) * 2) + operand;
  }
  static std::int64_t image_content(int tile, int block, const StepWalker& step) {
    return name(tile, block, step, 0);
  }
  // A text slice that stays is the same in every step and tile that uses it.
  static std::int64_t text_content(int tile, int block, const StepWalker& step) {
    if (tile >= 0) return name(tile, block, step, 1);
    return (((std::int64_t{block} * 2 + step.text_half()) * 256) + step.slice()) * 2 + 1;
  }

  int block_ = 0, tile_ = 0;
};

template <int Ring>
std::vector<ProtocolStep> trace(const MineShape& shape, int role, int program, int programs) {
  TraceMachine<Ring> machine;
  if (role == 0)
    produce(machine, shape, program, programs);
  else
    consume(machine, shape, role - 1, program, programs);
  return machine.steps;
}

}  // namespace

std::vector<ProtocolStep> protocol_trace(const MineShape& shape, int role, int program, int programs, int ring) {
  if (ring == kRingSlots) return trace<kRingSlots>(shape, role, program, programs);
  if (ring == 4) return trace<4>(shape, role, program, programs);
  throw std::invalid_argument("protocol_trace: no ring of this size");
}

}  // namespace goal_kernels::cuda
