// What the warpgroups of the mining kernel do, written down: input of the model of its barriers.
#pragma once

#include <cstdint>
#include <vector>

#include "layout.h"
#include "protocol.h"

namespace goal_kernels::cuda {

struct ProtocolStep {
  enum Kind { kWait, kArrive, kLoad, kMultiply, kRetire };
  Kind kind;
  Barrier barrier;  // of kWait, kArrive and kLoad
  int index;        // of the barrier; of kRetire: how many products may stay under way
  int parity;       // of kWait
  // What is loaded into or read from slots: kLoad has one, kMultiply that of images and that of text.
  struct Use {
    int slot;
    std::int64_t content;
  } uses[2];
};

// Role 0: the producer; 1 and 2: the consumers. `ring` is 4 or kRingSlots.
std::vector<ProtocolStep> protocol_trace(const MineShape& shape, int role, int program, int programs, int ring);

}  // namespace goal_kernels::cuda
