// A cluster of thread blocks of compute capability 9.0, as far as tile kernels use it: of each member shared memory in
// bytes and mbarriers in it, the copy engine and products of a warpgroup, as the PTX ISA defines them. It runs recorded
// programs, roles, copies and products in an order of its own choosing; nothing here is told where anything lies. What
// is wrong throws std::runtime_error, or leaves wrong scores.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <random>
#include <vector>

#include "programs.h"

namespace goal_kernels::cuda {

// Of a consumer: two products of 64 rows and 128 columns, those of registers 0 to 63 and 64 to 127.
using Accumulators = std::array<std::array<std::array<float, 128>, 64>, 2>;

// What a thread holds, by the PTX ISA's fragment layout of D of wgmma m64nNk16.
inline float register_of(const Accumulators& products, int warp, int lane, int index) {
  const int i = index % 64;
  return products[index / 64][16 * warp + lane / 4 + i / 2 % 2 * 8][i / 4 * 8 + lane % 4 * 2 + i % 2];
}

class Cluster {
 public:
  // A consumer is asked for what an epilogue does; between kBeginTile and kFinishTile it multiplies. Those of the
  // second member come after those of the first.
  using Epilogue = std::function<void(int consumer, const Instruction&, const Accumulators&)>;

  // maps: of images and texts, as cuTensorMapEncodeTiled takes them. seed: of the order; where it is odd, copies and
  // products come as late as they can.
  Cluster(const std::array<TensorMap, 2>& maps, int members, int shared_bytes, unsigned seed, Epilogue epilogue);

  // To the end of every role. All barriers are there before anything runs.
  void run(const Programs& programs);

 private:
  struct MBarrier {
    int arrivals, missing;  // of a phase
    std::int64_t bytes;     // expected and not copied yet
    bool phase;             // parity of the one under way
  };
  struct Member {
    std::vector<std::uint8_t> memory;
    std::map<std::uint32_t, MBarrier> barriers;
  };
  struct RoleState {
    const Program* program;
    int member;
    int consumer;  // -1: the producer
    std::size_t place = 0;
    bool fenced = false;
    std::vector<const Instruction*> open{};                // products that are not committed
    std::deque<std::vector<const Instruction*>> groups{};  // committed, under way
    bool done() const { return place == program->size(); }
  };

  bool can_go_on(const RoleState& role) const;
  void step(int role);
  void issue_copy(const Instruction& copy);
  void land(std::size_t copy);
  void multiply(int role);
  void arrive(int member, std::uint32_t address, int arrivals, std::int64_t bytes);
  const MBarrier& barrier(int member, std::uint32_t address) const;
  std::uint8_t* memory(int member, std::uint32_t address, std::uint32_t bytes);
  std::uint32_t box_bytes(const TensorMap& map) const;
  void copy_box(const Instruction& copy);
  template <typename Element>
  void product(int member, Accumulators& accumulators, const Instruction& instruction);
  // 16 elements of some rows of a matrix, [element][row]; bits of those elements that are not zero in every row.
  template <typename Element>
  unsigned gather(int member, std::uint64_t descriptor, int rows, float (*out)[128]);

  std::array<TensorMap, 2> maps_;
  std::vector<Member> members_;
  std::vector<RoleState> roles_;
  std::vector<Instruction> copies_;  // under way
  std::vector<Accumulators> accumulators_;
  bool late_;
  std::minstd_rand random_;
  Epilogue epilogue_;
};

}  // namespace goal_kernels::cuda
