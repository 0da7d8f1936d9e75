// The barrier protocol of the tile kernels: the control flow of the three warpgroups of a thread block, over the
// Machine of a role (tile_roles.h). `program` is the number of its cluster, `programs` how many there are.
//
//   barrier     arrives                                   waits                    one phase is
//   kFull       the producers' loads of the slot          the consumer of a tile   one use of a ring slot
//   kEmpty      4 warps of its consumer in each member    every producer           one use of a ring slot
//   kTextFull   the producer's load of the slot           both consumers           one pass
//   kTextEmpty  the 4 warps of each consumer              the producer             one pass
//   kTurn       the 4 warps of the other consumer         one consumer             one tile of that consumer
//
// All roles use the slots of the ring in one order. A consumer takes every second tile of a pass, and the
// turn to issue products alternates strictly; where a pass has an odd number of tiles the second consumer only
// passes the turn on. So while one consumer looks at its tile, the other multiplies.
//
// Members of a cluster have barriers of their own, and go through the same uses of the same ring slots. A producer
// loads its part of an image slice into the slots of all members, so it waits until all of them have released it; no
// load can come before a member's phase of kFull has begun, as that member's own release ends the one before. Texts of
// the ring are loaded by each member for itself. There a warp may release a slot for another member before a slower
// warp of its own has released the use before; that member's phase may then end early, but not before all products of
// the use are retired, and not twice: the next image waits for everybody.
#pragma once

#include "layout.h"

namespace goal_kernels::cuda {

enum class Barrier { kFull, kEmpty, kTextFull, kTextEmpty, kTurn };

constexpr int kEmptyArrivals = kConsumerWarps;
constexpr int kTextEmptyArrivals = kConsumers * kConsumerWarps;
constexpr int kTurnArrivals = kConsumerWarps;

// A wait names the parity of the phase that has to be over. Barriers start in phase 0, and the phase before it,
// of parity 1, counts as over: the first use of a slot, and the first turn, wait for nothing.
GOAL_KERNELS_BOTH int before(int parity) { return parity ^ 1; }

// Position and parity of one role in a ring of Machine::kRing slots, which is kRingSlots but in tests.
template <typename Machine>
struct RingPlace {
  static constexpr int kRing = Machine::kRing;
  int slot = 0;
  int parity = 0;  // of the use of the slot

  GOAL_KERNELS_BOTH void advance() {
    if (++slot == kRing) {
      slot = 0;
      parity ^= 1;
    }
  }
  GOAL_KERNELS_BOTH void skip(int slots) {
    slot += slots;
    parity ^= (slot / kRing) & 1;
    slot %= kRing;
  }
};

template <typename Machine>
GOAL_KERNELS_BOTH void produce_tile(Machine& machine, const MineShape& shape, int tile, int block,
                                      bool first_of_pass, int pass_parity, RingPlace<Machine>& place) {
  for (StepWalker step(shape); !step.done(); step.advance()) {
    const bool resident = step.resident();
    if (resident && first_of_pass && step.first_use()) {
      machine.wait(Barrier::kTextEmpty, step.resident_slot(), before(pass_parity));
      machine.load_text(Barrier::kTextFull, step.resident_slot(), block, step);
    }
    machine.wait(Barrier::kEmpty, place.slot, before(place.parity));
    machine.load_image(Barrier::kFull, place.slot, tile, step);
    place.advance();
    if (!resident) {
      machine.wait(Barrier::kEmpty, place.slot, before(place.parity));
      machine.load_text(Barrier::kFull, place.slot, block, step);
      place.advance();
    }
  }
}

template <typename Machine>
GOAL_KERNELS_BOTH void produce(Machine& machine, const MineShape& shape, int program, int programs) {
  RingPlace<Machine> place;
  int pass_parity = 0;
  for (int index = program; index < shape.items(); index += programs) {
    const Item item = item_at(shape, index);
    for (int first = item.first_block; first < item.first_block + item.blocks; first += shape.members) {
      const int block = first + machine.member();
      machine.begin_pass(item, block);
      for (int tile = 0; tile < item.tiles; ++tile)
        produce_tile(machine, shape, item.first_tile + tile, block, tile == 0, pass_parity, place);
      pass_parity ^= 1;
    }
  }
}

// The slots of a step, and what to release once its products are done with them.
struct StepSlots {
  int image, text;
  bool streamed;      // text is in the ring too
  bool last_of_pass;  // text stays, and this consumer has used it for the last time in this pass

  template <typename Machine>
  GOAL_KERNELS_BOTH void release(Machine& machine) const {
    machine.arrive(Barrier::kEmpty, image);
    if (streamed) machine.arrive(Barrier::kEmpty, text);
    if (last_of_pass) machine.arrive(Barrier::kTextEmpty, text);
  }
};

// Products of one tile. The products of a step read shared memory until they are retired, which is after those
// of the next step were issued: hence slots are released one step late, and the turn is passed on before.
template <typename Machine>
GOAL_KERNELS_BOTH void consume_tile(Machine& machine, const MineShape& shape, int consumer, bool last_of_pass,
                                      int pass_parity, RingPlace<Machine>& place) {
  StepSlots previous{};
  for (StepWalker step(shape); !step.done(); step.advance()) {
    StepSlots slots{place.slot, step.resident_slot(), !step.resident(), false};
    machine.wait(Barrier::kFull, place.slot, place.parity);
    place.advance();
    if (slots.streamed) {
      slots.text = place.slot;
      machine.wait(Barrier::kFull, place.slot, place.parity);
      place.advance();
    } else {
      slots.last_of_pass = last_of_pass && step.last_use();
      machine.wait(Barrier::kTextFull, slots.text, pass_parity);
    }
    machine.multiply(slots.image, slots.text, step);
    if (!step.first()) {
      machine.template retire<1>();
      previous.release(machine);
    }
    previous = slots;
  }
  machine.arrive(Barrier::kTurn, 1 - consumer);
  machine.template retire<0>();
  previous.release(machine);
}

// Ends the phase of every text slot for a consumer without a tile in this pass. Having had its turn, it cannot be
// a phase ahead of the other one.
template <typename Machine>
GOAL_KERNELS_BOTH void release_text(Machine& machine, const MineShape& shape) {
  for (int slot = kRingSlots; slot < kRingSlots + shape.resident(); ++slot)
    machine.arrive(Barrier::kTextEmpty, slot);
}

template <typename Machine>
GOAL_KERNELS_BOTH void consume(Machine& machine, const MineShape& shape, int consumer, int program,
                                 int programs) {
  RingPlace<Machine> place;
  int pass_parity = 0;
  int turn_parity = consumer;  // of the next turn's phase, so that consumer 0 begins
  const int tile_slots = shape.ring_slots();
  for (int index = program; index < shape.items(); index += programs) {
    const Item item = item_at(shape, index);
    for (int first = item.first_block; first < item.first_block + item.blocks; first += shape.members) {
      const int block = first + machine.member();
      machine.begin_pass(item, block);
      for (int pair = 0; pair < item.tiles; pair += kConsumers) {
        const int tile = pair + consumer;
        const bool real = tile < item.tiles;
        if (consumer == 1) place.skip(tile_slots);
        if (real) machine.begin_tile(item, tile, block);
        machine.wait(Barrier::kTurn, consumer, before(turn_parity));
        turn_parity ^= 1;
        if (real) {
          consume_tile(machine, shape, consumer, tile + kConsumers >= item.tiles, pass_parity, place);
          machine.finish_tile(item, tile, block);
        } else {
          machine.arrive(Barrier::kTurn, 1 - consumer);
        }
        if (consumer == 0 && tile + 1 < item.tiles) place.skip(tile_slots);
      }
      if (consumer >= item.tiles) release_text(machine, shape);
      machine.finish_pass(item, block);
      pass_parity ^= 1;
    }
  }
}

}  // namespace goal_kernels::cuda
