// What the roles of a tile kernel do, the producer and the consumers of protocol.h, over a Hardware that runs their
// instructions on a GPU (device.cuh) or, in tests, writes them down and emulates them (python_tests/cuda/emulation).
// Every address, coordinate, byte count and descriptor is computed here, once for both. A Hardware has
//
//   kRing                                       slots of the ring
//   Map                                         names a tensor map
//   Accumulator                                 a register of products
//   elected()                                   whether this lane acts for its warp
//   initialize(barrier, arrivals)
//   member()                                    number of the thread block in its cluster
//   arrive(barrier), expect(barrier, bytes)     one of a warp; the other arrives, and awaits bytes besides
//   arrive_everywhere(barrier, members)         at that barrier of every member; called by a whole warp
//   wait(barrier, parity)                       until the phase of that parity is over
//   copy(slot, map, barrier, coordinates)       a box of the map -> slot; its bytes count at the barrier
//   copy_everywhere(slot, map, barrier, coordinates, members)      the same, in every member
//   fence()                                     orders register accesses before the products that follow
//   product(score, first, image, text, add)     64 registers from `first` on: (add ? score : 0) + the product of 64
//                                               image rows and 128 text rows, 16 elements of each
//   commit()                                    ends a group of products
//   retire<Pending>(score)                      until at most that many groups are under way
#pragma once

#include "protocol.h"
#include "tiles.h"

namespace goal_kernels::cuda {

// --- Global memory ------------------------------------------------------------------------------------------

enum class Swizzle { kNone, k32Bytes, k64Bytes, k128Bytes };  // as CUtensorMapSwizzle numbers them

// A matrix as the copy engine sees it: element, half of the row (a split row is [high | low]) and row, so that
// neither a ragged width nor a ragged end needs a mask.
struct TensorMap {
  const void* data;
  Operand operand;
  std::uint64_t extents[3];
  std::uint64_t strides[2];  // bytes from half to half, from row to row
  std::uint32_t box[3];
  Swizzle swizzle;
};

// rows: of a slice that are copied at once.
inline TensorMap slices_of(const Rows& matrix, const TileProducts& products, int rows) {
  const auto width = static_cast<std::uint64_t>(products.width);
  const auto row = static_cast<std::uint64_t>(matrix.stride) * 2;
  return {matrix.data,
          products.operand,
          {width, products.split ? 2u : 1u, static_cast<std::uint64_t>(matrix.count)},
          {products.split ? width * 2 : row, row},
          {kSlice, 1, static_cast<std::uint32_t>(rows)},
          Swizzle::k128Bytes};
}

struct Coordinates {
  int element, half, row;
};

// Rows of an image slice that one of 1 or 2 members loads.
GOAL_KERNELS_BOTH int rows_of_member(int members) { return kTile >> (members - 1); }
GOAL_KERNELS_BOTH Coordinates image_slice(int tile, const StepWalker& step) {
  return {step.slice() * kSlice, step.image_half(), tile * kTile};
}
GOAL_KERNELS_BOTH Coordinates text_slice(int block, const StepWalker& step) {
  return {step.slice() * kSlice, step.text_half(), block * kTile};
}

// --- Shared memory ------------------------------------------------------------------------------------------

constexpr int kBarriers = 2 * kSlots + kConsumers;
constexpr int kSlotAlignment = 1024;  // of the 128-byte swizzle

constexpr int shared_bytes(int resident) {
  return kSlotAlignment + (kRingSlots + resident) * kSlotBytes + kBarriers * 8;
}

static_assert(shared_bytes(kResidentSlots) <= 232448, "a thread block of compute capability 9.0 has no more");

// Addresses of slots and barriers, by the names of protocol.h. base: of what the thread block has.
struct SharedMemory {
  std::uint32_t slots, barriers;

  GOAL_KERNELS_BOTH SharedMemory(std::uint32_t base, int resident) {
    slots = (base + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
    barriers = slots + (kRingSlots + resident) * kSlotBytes;
  }
  GOAL_KERNELS_BOTH std::uint32_t slot(int index) const { return slots + index * kSlotBytes; }
  GOAL_KERNELS_BOTH std::uint32_t barrier(Barrier barrier, int index) const {
    const bool full = barrier == Barrier::kFull || barrier == Barrier::kTextFull;
    const int first = full ? 0 : barrier == Barrier::kTurn ? 2 * kSlots : kSlots;
    return barriers + 8 * (first + index);
  }
  template <typename Hardware>
  GOAL_KERNELS_WARP void initialize(Hardware hardware, int members) const {
    for (int slot = 0; slot < kSlots; ++slot) {
      hardware.initialize(barrier(Barrier::kFull, slot), 1);
      hardware.initialize(barrier(Barrier::kEmpty, slot),
                          slot < kRingSlots ? kEmptyArrivals * members : kTextEmptyArrivals);
    }
    for (int consumer = 0; consumer < kConsumers; ++consumer)
      hardware.initialize(barrier(Barrier::kTurn, consumer), kTurnArrivals);
  }
};

// Matrix descriptor of a slot: start address, 1024 bytes from one group of 8 rows to the next, 128-byte swizzle, all
// in units of 16 bytes. Slots are aligned to 1024 bytes; offsets are added to the descriptor.
GOAL_KERNELS_BOTH std::uint64_t slot_descriptor(std::uint32_t address) {
  return (std::uint64_t{1} << 62) | (std::uint64_t{1024 >> 4} << 32) | (std::uint64_t{1} << 16) |
         ((address & 0x3FFFF) >> 4);
}
constexpr std::uint64_t kNextProduct = 16 * 2 >> 4;         // 16 elements on
constexpr std::uint64_t kLowerRows = 64 * kSlice * 2 >> 4;  // 64 rows on

// --- Roles --------------------------------------------------------------------------------------------------

// One warp, so that its state is uniform and takes few registers; one lane of it arrives and copies.
template <typename Hardware>
class Producer {
 public:
  static constexpr int kRing = Hardware::kRing;
  using Map = typename Hardware::Map;

  GOAL_KERNELS_WARP Producer(Hardware hardware, SharedMemory shared, const MineShape& shape, Map image, Map text)
      : hardware_(hardware), shared_(shared), image_(image), text_(text), members_(shape.members) {}

  GOAL_KERNELS_WARP int member() const { return hardware_.member(); }
  GOAL_KERNELS_WARP void begin_pass(const Item&, int) {}
  GOAL_KERNELS_WARP void wait(Barrier barrier, int index, int parity) {
    hardware_.wait(shared_.barrier(barrier, index), parity);
  }
  GOAL_KERNELS_WARP void load_image(Barrier barrier, int slot, int tile, const StepWalker& step) {
    if (!hardware_.elected()) return;
    const int first = member() * rows_of_member(members_);
    Coordinates at = image_slice(tile, step);
    at.row += first;
    const std::uint32_t part = shared_.slot(slot) + first * kSlice * 2;
    hardware_.copy_everywhere(part, image_, expect(barrier, slot), at, members_);
  }
  GOAL_KERNELS_WARP void load_text(Barrier barrier, int slot, int block, const StepWalker& step) {
    if (!hardware_.elected()) return;
    hardware_.copy(shared_.slot(slot), text_, expect(barrier, slot), text_slice(block, step));
  }

 private:
  // A whole slot, whoever loads it. Returns the address of the barrier.
  GOAL_KERNELS_WARP std::uint32_t expect(Barrier barrier, int slot) {
    const std::uint32_t full = shared_.barrier(barrier, slot);
    hardware_.expect(full, kSlotBytes);
    return full;
  }

  Hardware hardware_;
  SharedMemory shared_;
  Map image_, text_;
  int members_;
};

// One warpgroup; every thread waits, one lane of each warp arrives.
template <typename Hardware, typename Epilogue>
class Consumer {
 public:
  static constexpr int kRing = Hardware::kRing;

  template <typename... Parts>
  GOAL_KERNELS_WARP Consumer(Hardware hardware, SharedMemory shared, const MineShape& shape,
                             const Parts&... of_epilogue)
      : hardware_(hardware), shared_(shared), shape_(shape), arrives_(hardware.elected()), epilogue_(of_epilogue...) {
    // The first product does not read them, but ptxas before 12.9 serialises products whose accumulators are undefined.
    GOAL_KERNELS_UNROLL
    for (auto& value : score_) value = 0;
  }

  GOAL_KERNELS_WARP int member() const { return hardware_.member(); }
  GOAL_KERNELS_WARP void wait(Barrier barrier, int index, int parity) {
    hardware_.wait(shared_.barrier(barrier, index), parity);
  }
  GOAL_KERNELS_WARP void arrive(Barrier barrier, int index) {
    const std::uint32_t address = shared_.barrier(barrier, index);
    if (barrier == Barrier::kEmpty)
      hardware_.arrive_everywhere(address, shape_.members);
    else if (arrives_)
      hardware_.arrive(address);
  }
  GOAL_KERNELS_WARP void begin_pass(const Item& item, int block) {
    if (exists(block)) epilogue_.begin_pass(item, block);
  }
  GOAL_KERNELS_WARP void begin_tile(const Item& item, int tile, int block) {
    if (exists(block)) epilogue_.begin_tile(item, tile, block);
  }
  GOAL_KERNELS_WARP void multiply(int image_slot, int text_slot, const StepWalker& step) {
    const std::uint64_t image = slot_descriptor(shared_.slot(image_slot));
    const std::uint64_t text = slot_descriptor(shared_.slot(text_slot));
    hardware_.fence();
    GOAL_KERNELS_UNROLL
    for (int k = 0; k < kSlice / 16; ++k) {
      const int add = k > 0 || !step.first();
      const std::uint64_t next = k * kNextProduct;
      hardware_.product(score_, 0, image + next, text + next, add);
      hardware_.product(score_, kRegisters / 2, image + kLowerRows + next, text + next, add);
    }
    hardware_.commit();
  }
  template <int kPending>
  GOAL_KERNELS_WARP void retire() {
    hardware_.template retire<kPending>(score_);
  }
  GOAL_KERNELS_WARP void finish_tile(const Item& item, int tile, int block) {
    if (exists(block)) epilogue_.finish_tile(score_, item, tile, block);
  }
  GOAL_KERNELS_WARP void finish_pass(const Item& item, int block) {
    if (exists(block)) epilogue_.finish_pass(item, block);
  }

 private:
  GOAL_KERNELS_WARP bool exists(int block) const { return block < shape_.blocks; }

  Hardware hardware_;
  SharedMemory shared_;
  const MineShape& shape_;
  bool arrives_;
  Epilogue epilogue_;
  typename Hardware::Accumulator score_[kRegisters];
};

}  // namespace goal_kernels::cuda
