// The instructions of a cluster of thread blocks of a tile kernel, written down: none depends on data, so each role's
// program is known before anything runs. The roles are the kernel's own (csrc/cuda/tile_roles.h), over a Hardware that
// records.
#pragma once

#include <vector>

#include "cuda/tile_roles.h"

namespace goal_kernels::cuda {

struct Instruction {
  enum Kind {
    kInitialize, kWait, kArrive, kExpect, kCopy, kFence, kProduct, kCommit, kRetire,
    kPass,  // a role goes on to the next one
    kBeginPass, kBeginTile, kFinishTile, kFinishPass  // what an epilogue is asked for
  };
  Kind kind;
  int member = 0;  // kArrive, kCopy: whose barrier and slot; an instruction for each
  std::uint32_t barrier = 0;
  int number = 0;          // arrivals, by kExpect bytes, of kWait the parity, of kRetire groups that may stay
  std::uint32_t slot = 0;  // kCopy: where to
  int map = 0;             // kCopy: 0 images, 1 texts
  Coordinates at{};        // kCopy: where from; kProduct: of the image slice that it is meant to multiply
  Coordinates text_at{};   // kProduct: of the text slice
  int first = 0;           // kProduct: register
  std::uint64_t image = 0, text = 0;  // kProduct: matrix descriptors
  bool add = false;
  Item item{};
  int tile = 0, block = 0;
};

using Program = std::vector<Instruction>;

// Of every member: what sets the barriers up, the producer and the consumers.
enum Role { kSetup, kProducer, kFirstConsumer, kRoles = kFirstConsumer + kConsumers };
using Programs = std::vector<Program>;  // [members * kRoles]

// Where a thread block has its shared memory: aligned as little as could be.
constexpr std::uint32_t kSharedBase = 1024 + 16;

// `ring` is kRingSlots, or 4 for the smallest ring that works.
Programs record(const MineShape& shape, int program, int programs, int ring = kRingSlots);

}  // namespace goal_kernels::cuda
