#include "protocol_trace.h"

#include <stdexcept>

namespace goal_kernels::cuda {

namespace {

// What a slot holds is named by the pass, the tile in it and the slice, so no two loads bring the same.
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
  void load_image(Barrier barrier, int slot, int tile, const StepWalker& step) {
    tile_ = tile;
    load(barrier, slot, image_content(step));
  }
  void load_text(Barrier barrier, int slot, int, const StepWalker& step) {
    load(barrier, slot, text_content(slot, step));
  }
  void begin_pass(const Item&, int) { ++pass_; }
  void begin_tile(const Item& item, int tile, int) { tile_ = item.first_tile + tile; }
  void multiply(int image_slot, int text_slot, const StepWalker& step) {
    steps.push_back({ProtocolStep::kMultiply, Barrier::kFull, 0, 0,
                     {{image_slot, image_content(step)}, {text_slot, text_content(text_slot, step)}}});
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
  std::int64_t image_content(const StepWalker& step) const { return name(tile_, step.index(), 0); }
  // A text slice that stays is the same in every tile of the pass, and every step that uses it.
  std::int64_t text_content(int slot, const StepWalker& step) const {
    if (slot < kRingSlots) return name(tile_, step.index(), 1);
    return name(-1, 2 * step.slice() + step.text_half(), 1);
  }
  std::int64_t name(int tile, int step, int operand) const {
    return ((std::int64_t{pass_} * 4096 + tile + 1) * 4096 + step) * 2 + operand;
  }

  int pass_ = 0, tile_ = 0;
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
