#include "programs.h"

#include <stdexcept>

namespace goal_kernels::cuda {

namespace {

template <int kSlotsOfRing>
class Recorder {
 public:
  static constexpr int kRing = kSlotsOfRing;
  using Map = int;
  using Accumulator = char;  // there are no registers

  Recorder(Program& program, int member, int warps) : program_(&program), member_(member), warps_(warps) {}

  bool elected() const { return true; }
  int member() const { return member_; }
  void initialize(std::uint32_t barrier, int arrivals) { add(Instruction::kInitialize, barrier, arrivals); }
  void wait(std::uint32_t barrier, int parity) { add(Instruction::kWait, barrier, parity); }
  void arrive(std::uint32_t barrier) { add(Instruction::kArrive, barrier, warps_); }
  void arrive_everywhere(std::uint32_t barrier, int members) {
    for (int member = 0; member < members; ++member) add(Instruction::kArrive, barrier, warps_).member = member;
  }
  void expect(std::uint32_t barrier, int bytes) { add(Instruction::kExpect, barrier, bytes); }
  void copy(std::uint32_t slot, int map, std::uint32_t barrier, const Coordinates& at) {
    Instruction& copied = add(Instruction::kCopy, barrier, 0);
    copied.slot = slot;
    copied.map = map;
    copied.at = at;
  }
  void copy_everywhere(std::uint32_t slot, int map, std::uint32_t barrier, const Coordinates& at, int members) {
    for (int member = 0; member < members; ++member) {
      copy(slot, map, barrier, at);
      program_->back().member = member;
    }
  }
  void fence() { add(Instruction::kFence, 0, 0); }
  void product(const char*, int first, std::uint64_t image, std::uint64_t text, int adds) {
    Instruction& multiplied = add(Instruction::kProduct, 0, 0);
    multiplied.first = first;
    multiplied.image = image;
    multiplied.text = text;
    multiplied.add = adds != 0;
  }
  void commit() { add(Instruction::kCommit, 0, 0); }
  template <int kPending>
  void retire(const char*) {
    add(Instruction::kRetire, 0, kPending);
  }

 private:
  Instruction& add(Instruction::Kind kind, std::uint32_t barrier, int number) {
    Instruction instruction{kind, member_};
    instruction.barrier = barrier;
    instruction.number = number;
    program_->push_back(instruction);
    return program_->back();
  }

  Program* program_;
  int member_;
  int warps_;  // that issue what is recorded
};

class RecordedEpilogue {
 public:
  explicit RecordedEpilogue(Program* program) : program_(program) {}

  void begin_pass(const Item& item, int block) { add(Instruction::kBeginPass, item, 0, block); }
  void begin_tile(const Item& item, int tile, int block) { add(Instruction::kBeginTile, item, tile, block); }
  void finish_tile(const char*, const Item& item, int tile, int block) {
    add(Instruction::kFinishTile, item, tile, block);
  }
  void finish_pass(const Item& item, int block) { add(Instruction::kFinishPass, item, 0, block); }

 private:
  void add(Instruction::Kind kind, const Item& item, int tile, int block) {
    Instruction instruction{kind};
    instruction.item = item;
    instruction.tile = tile;
    instruction.block = block;
    program_->push_back(instruction);
  }

  Program* program_;
};

template <typename Hardware>
class RecordedProducer : public Producer<Hardware> {
 public:
  RecordedProducer(Hardware hardware, SharedMemory shared, const MineShape& shape, Program* program)
      : Producer<Hardware>(hardware, shared, shape, 0, 1), program_(program) {}
  void begin_pass(const Item&, int) { program_->push_back({Instruction::kPass}); }

 private:
  Program* program_;
};

template <typename Hardware>
class RecordedConsumer : public Consumer<Hardware, RecordedEpilogue> {
 public:
  using Base = Consumer<Hardware, RecordedEpilogue>;

  RecordedConsumer(Hardware hardware, SharedMemory shared, const MineShape& shape, Program* program)
      : Base(hardware, shared, shape, program), program_(program) {}
  void begin_pass(const Item& item, int block) {
    program_->push_back({Instruction::kPass});
    Base::begin_pass(item, block);
  }
  // Besides, what a product is meant to multiply, which its descriptors do not tell.
  void multiply(int image_slot, int text_slot, const StepWalker& step) {
    const std::size_t before = program_->size();
    Base::multiply(image_slot, text_slot, step);
    for (std::size_t i = before; i < program_->size(); ++i) {
      (*program_)[i].at = image_slice(tile_, step);
      (*program_)[i].text_at = text_slice(block_, step);
    }
  }
  void begin_tile(const Item& item, int tile, int block) {
    Base::begin_tile(item, tile, block);
    tile_ = item.first_tile + tile;
    block_ = block;
  }

 private:
  Program* program_;
  int tile_ = 0, block_ = 0;
};

template <int kRing>
Programs record_with(const MineShape& shape, int program, int programs) {
  using Hardware = Recorder<kRing>;
  const SharedMemory shared(kSharedBase, shape.resident());
  Programs result(shape.members * kRoles);
  for (int member = 0; member < shape.members; ++member) {
    Program* const roles = &result[member * kRoles];
    shared.initialize(Hardware(roles[kSetup], member, 1), shape.members);
    RecordedProducer<Hardware> producer(Hardware(roles[kProducer], member, 1), shared, shape, &roles[kProducer]);
    produce(producer, shape, program, programs);
    for (int consumer = 0; consumer < kConsumers; ++consumer) {
      Program& recorded = roles[kFirstConsumer + consumer];
      RecordedConsumer<Hardware> machine(Hardware(recorded, member, kConsumerWarps), shared, shape, &recorded);
      consume(machine, shape, consumer, program, programs);
    }
  }
  return result;
}

}  // namespace

Programs record(const MineShape& shape, int program, int programs, int ring) {
  if (ring == kRingSlots) return record_with<kRingSlots>(shape, program, programs);
  if (ring == 4) return record_with<4>(shape, program, programs);
  throw std::invalid_argument("record: no ring of this size");
}

}  // namespace goal_kernels::cuda
