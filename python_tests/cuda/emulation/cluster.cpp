#include "cluster.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "cuda/element.h"

namespace goal_kernels::cuda {

namespace {

constexpr int kProductRows = 64, kProductColumns = 128, kProductElements = 16;
constexpr std::uint32_t kChunk = 16;  // bytes that a swizzle moves together
constexpr std::int64_t kMostBytes = (1 << 20) - 1;  // that an mbarrier counts

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error("emulated cluster: " + what); }

void require(bool holds, const char* what) {
  if (!holds) fail(what);
}

// Exchanges chunks of 16 bytes within `span` bytes, 32, 64 or 128, by the address' bits from 7 on.
std::uint32_t swizzled(std::uint32_t address, std::uint32_t span) {
  return address ^ (address >> 3 & (span - kChunk));
}

std::uint32_t span_of(Swizzle swizzle) { return swizzle == Swizzle::kNone ? kChunk : 16u << static_cast<int>(swizzle); }

// The 64 bits of a matrix descriptor of wgmma, for matrices whose rows are adjacent elements ("K-major").
class MatrixDescriptor {
 public:
  explicit MatrixDescriptor(std::uint64_t bits)
      : start_(field(bits, 0)), leading_(field(bits, 16)), stride_(field(bits, 32)), swizzle_(bits >> 62) {
    require((bits & ~0xC00E'3FFF'3FFF'3FFFull) == 0, "a matrix descriptor has reserved bits set");
    require((bits >> 49 & 7) == 0, "a matrix descriptor has a base offset, which is not emulated");
    require(swizzle_ == 0 || start_ % (8 * span()) < span(), "a matrix begins amid the pattern of its swizzle");
  }
  // Of elements 8 `chunk` to 8 `chunk` + 7 of a row.
  std::uint32_t address(int row, int chunk) const {
    if (swizzle_ == 0) return start_ + row / 8 * stride_ + row % 8 * kChunk + chunk * leading_;
    return swizzled(start_ + row / 8 * stride_ + row % 8 * span() + chunk * kChunk, span());
  }

 private:
  std::uint32_t span() const { return 256u >> swizzle_; }  // 1: 128 bytes, 2: 64, 3: 32
  static std::uint32_t field(std::uint64_t bits, int first) {
    return static_cast<std::uint32_t>(bits >> first & 0x3FFF) << 4;
  }
  std::uint32_t start_, leading_, stride_;
  int swizzle_;
};

}  // namespace

Cluster::Cluster(const std::array<TensorMap, 2>& maps, int members, int shared_bytes, unsigned seed, Epilogue epilogue)
    : maps_(maps),
      members_(members, {std::vector<std::uint8_t>(shared_bytes, 0xFF), {}}),
      late_(seed % 2 != 0),
      random_(seed + 1),
      epilogue_(std::move(epilogue)) {
  for (const TensorMap& map : maps) {  // cuTensorMapEncodeTiled refuses the rest
    require(reinterpret_cast<std::uintptr_t>(map.data) % 16 == 0, "a tensor map's address is not a multiple of 16");
    for (std::uint64_t stride : map.strides)
      require(stride % 16 == 0 && stride < std::uint64_t{1} << 40, "a tensor map's stride is not a multiple of 16");
    for (std::uint64_t extent : map.extents) require(extent > 0, "a tensor map has no elements");
    for (std::uint32_t side : map.box) require(side > 0 && side <= 256, "a tensor map's box is empty or too large");
    const std::uint32_t inner = map.box[0] * 2;
    require(inner % 16 == 0, "rows of a tensor map's box are not multiples of 16 bytes");
    require(map.swizzle == Swizzle::kNone || inner <= span_of(map.swizzle),
            "rows of a tensor map's box are longer than the swizzle");
  }
}

void Cluster::run(const Programs& programs) {
  const int members = static_cast<int>(members_.size());
  require(programs.size() == members_.size() * kRoles, "not as many programs as the members have roles");
  for (int member = 0; member < members; ++member) {
    const Program* const of_member = &programs[member * kRoles];
    for (const Instruction& first : of_member[kSetup]) {
      require(first.kind == Instruction::kInitialize && first.barrier % 8 == 0, "no address of a barrier");
      memory(member, first.barrier, 8);
      members_[member].barriers[first.barrier] = {first.number, first.number, 0, false};
    }
    roles_.push_back({&of_member[kProducer], member, -1});
    for (int consumer = 0; consumer < kConsumers; ++consumer)
      roles_.push_back({&of_member[kFirstConsumer + consumer], member, member * kConsumers + consumer});
  }
  accumulators_.resize(members * kConsumers);
  const int roles = static_cast<int>(roles_.size());
  while (true) {
    std::vector<int> choices;  // roles, then consumers that multiply, then copies that land
    for (int role = 0; role < roles; ++role)
      if (!roles_[role].done() && can_go_on(roles_[role])) choices.push_back(role);
    if (!late_ || choices.empty()) {
      for (int role = 0; role < roles; ++role)
        if (!roles_[role].groups.empty()) choices.push_back(roles + role);
      for (std::size_t copy = 0; copy < copies_.size(); ++copy) choices.push_back(2 * roles + static_cast<int>(copy));
    }
    if (choices.empty()) break;
    const int choice = choices[random_() % choices.size()];
    if (choice < roles)
      step(choice);
    else if (choice < 2 * roles)
      multiply(choice - roles);
    else
      land(choice - 2 * roles);
  }
  for (const RoleState& role : roles_)
    if (!role.done()) fail("it hangs at instruction " + std::to_string(role.place) + " of a role");
}

bool Cluster::can_go_on(const RoleState& role) const {
  const Instruction& next = (*role.program)[role.place];
  if (next.kind == Instruction::kWait) return barrier(role.member, next.barrier).phase != (next.number != 0);
  if (next.kind == Instruction::kRetire) return role.groups.size() <= static_cast<std::size_t>(next.number);
  return true;
}

void Cluster::step(int index) {
  RoleState& role = roles_[index];
  const Instruction& next = (*role.program)[role.place++];
  switch (next.kind) {
    case Instruction::kInitialize: fail("a barrier is initialised while it is used");
    case Instruction::kWait:
    case Instruction::kPass:
    case Instruction::kRetire: return;
    case Instruction::kArrive: return arrive(next.member, next.barrier, next.number, 0);
    case Instruction::kExpect: return arrive(role.member, next.barrier, 1, next.number);
    case Instruction::kCopy: return issue_copy(next);
    case Instruction::kFence: role.fenced = true; return;
    case Instruction::kProduct:
      require(role.fenced, "products follow accesses to their registers without a fence");
      role.open.push_back(&next);
      return;
    case Instruction::kCommit:
      role.groups.push_back(std::move(role.open));
      role.open.clear();
      return;
    case Instruction::kFinishTile:
      require(role.open.empty() && role.groups.empty(), "products are read while they are under way");
      role.fenced = false;
      break;
    default: break;
  }
  epilogue_(role.consumer, next, accumulators_[role.consumer]);
}

void Cluster::arrive(int member, std::uint32_t address, int arrivals, std::int64_t bytes) {
  barrier(member, address);
  MBarrier& barrier = members_[member].barriers[address];
  require(barrier.missing >= arrivals, "a barrier has more arrivals than a phase takes");
  barrier.missing -= arrivals;
  barrier.bytes += bytes;
  require(std::abs(barrier.bytes) <= kMostBytes, "a barrier cannot count so many bytes");
  if (barrier.missing > 0 || barrier.bytes != 0) return;
  barrier.missing = barrier.arrivals;
  barrier.phase = !barrier.phase;
}

const Cluster::MBarrier& Cluster::barrier(int member, std::uint32_t address) const {
  const auto& barriers = members_.at(member).barriers;
  const auto found = barriers.find(address);
  if (found == barriers.end()) fail("there is no barrier at " + std::to_string(address));
  return found->second;
}

std::uint8_t* Cluster::memory(int member, std::uint32_t address, std::uint32_t bytes) {
  auto& memory = members_.at(member).memory;
  const bool inside = address >= kSharedBase && address - kSharedBase + bytes <= memory.size();
  if (!inside) fail("address " + std::to_string(address) + " lies outside of shared memory");
  return &memory[address - kSharedBase];
}

std::uint32_t Cluster::box_bytes(const TensorMap& map) const { return map.box[0] * map.box[1] * map.box[2] * 2; }

// Until it lands there is NaN, of either type: what was there may be overwritten in any order.
void Cluster::issue_copy(const Instruction& copy) {
  const std::uint32_t bytes = box_bytes(maps_[copy.map]);
  require(copy.slot % 128 == 0, "a copy goes to an address that is not a multiple of 128");
  std::memset(memory(copy.member, copy.slot, bytes), 0xFF, bytes);
  const auto& barriers = members_[copy.member].barriers;
  const auto next = barriers.lower_bound(copy.slot);
  require(next == barriers.end() || next->first >= copy.slot + bytes, "a copy overwrites a barrier");
  copies_.push_back(copy);
}

// Elements outside of the matrix are zero, and counted.
void Cluster::land(std::size_t index) {
  const Instruction copy = copies_[index];
  copies_.erase(copies_.begin() + static_cast<std::ptrdiff_t>(index));
  copy_box(copy);
  arrive(copy.member, copy.barrier, 0, -std::int64_t{box_bytes(maps_[copy.map])});
}

void Cluster::copy_box(const Instruction& copy) {
  const TensorMap& map = maps_[copy.map];
  const auto* const data = static_cast<const std::uint8_t*>(map.data);
  const std::uint32_t span = span_of(map.swizzle), chunks = map.box[0] * 2 / kChunk;
  const auto left = static_cast<std::int64_t>(map.extents[0]) - copy.at.element;  // elements of a row
  std::uint32_t to = copy.slot;
  for (std::uint32_t r = 0; r < map.box[2]; ++r) {
    for (std::uint32_t h = 0; h < map.box[1]; ++h) {
      const std::int64_t row = std::int64_t{copy.at.row} + r, half = std::int64_t{copy.at.half} + h;
      // Negative coordinates lie outside too.
      const bool exists = row >= 0 && row < static_cast<std::int64_t>(map.extents[2]) && half >= 0 &&
                          half < static_cast<std::int64_t>(map.extents[1]) && copy.at.element >= 0;
      const std::int64_t from = half * static_cast<std::int64_t>(map.strides[0]) +
                                row * static_cast<std::int64_t>(map.strides[1]) + std::int64_t{copy.at.element} * 2;
      for (std::uint32_t chunk = 0; chunk < chunks; ++chunk, to += kChunk) {
        std::uint8_t* const place = memory(copy.member, swizzled(to, span), kChunk);
        std::memset(place, 0, kChunk);
        const std::int64_t inside = exists ? std::clamp<std::int64_t>(left - chunk * 8, 0, 8) : 0;
        if (inside > 0) std::memcpy(place, data + from + chunk * kChunk, static_cast<std::size_t>(inside) * 2);
      }
    }
  }
}

// The oldest group of a consumer.
void Cluster::multiply(int index) {
  RoleState& role = roles_[index];
  Accumulators& accumulators = accumulators_[role.consumer];
  for (const Instruction* instruction : role.groups.front()) {
    if (maps_[0].operand == Operand::kBfloat16)
      product<bfloat16>(role.member, accumulators, *instruction);
    else
      product<float16>(role.member, accumulators, *instruction);
  }
  role.groups.pop_front();
}

template <typename Element>
unsigned Cluster::gather(int member, std::uint64_t bits, int rows, float (*out)[128]) {
  const MatrixDescriptor descriptor(bits);
  constexpr int kElements = kChunk / sizeof(Element);
  unsigned some = 0;
  for (int row = 0; row < rows; ++row)
    for (int chunk = 0; chunk < kProductElements / kElements; ++chunk) {
      Element elements[kElements];
      std::memcpy(elements, memory(member, descriptor.address(row, chunk), kChunk), kChunk);
      for (int e = 0; e < kElements; ++e) {
        const int element = chunk * kElements + e;
        out[element][row] = to_float(elements[e]);
        some |= static_cast<unsigned>(out[element][row] != 0.0f) << element;
      }
    }
  return some;
}

template <typename Element>
void Cluster::product(int member, Accumulators& accumulators, const Instruction& instruction) {
  require(instruction.first == 0 || instruction.first == 64, "a product begins amid the registers of another");
  auto& sums = accumulators[instruction.first / 64];
  if (!instruction.add) sums = {};
  float image[kProductElements][128], text[kProductElements][128];
  // Where both are zero nothing is added, not even a sign: sums begin at +0.
  unsigned some = gather<Element>(member, instruction.image, kProductRows, image);
  some |= gather<Element>(member, instruction.text, kProductColumns, text);
  for (int row = 0; row < kProductRows; ++row)
    for (int element = 0; element < kProductElements; ++element)
      if (some >> element & 1)
        for (int column = 0; column < kProductColumns; ++column)
          sums[row][column] += image[element][row] * text[element][column];
}

}  // namespace goal_kernels::cuda
