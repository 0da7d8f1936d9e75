// Pairs of a tile that its products could not tell apart from a best positive, decided by their scores.
#pragma once

#include "cuda/exact_dots.h"
#include "cuda/rank.h"
#include "keys.h"
#include "layout.h"

namespace goal_kernels::cuda {

// Of every thread: a bit for each of its pairs.
template <typename Warp>
class OpenPairs {
 public:
  using Word = typename Warp::template Value<std::uint32_t>;

  GOAL_KERNELS_WARP void clear() {
    GOAL_KERNELS_UNROLL
    for (int slice = 0; slice < kRowSlices; ++slice) bits_[slice] = 0u;
  }
  // open: 1 or 0.
  GOAL_KERNELS_WARP void add(int slice, int index, Word open) { bits_[slice] |= open << std::uint32_t(index); }
  // Bits of the next row slice; called kRowSlices times.
  GOAL_KERNELS_WARP Word take_slice() {
    const Word first = bits_[0];
    GOAL_KERNELS_UNROLL
    for (int slice = 1; slice < kRowSlices; ++slice) bits_[slice - 1] = bits_[slice];
    return first;
  }

 private:
  Word bits_[kRowSlices];
};

// First address of a field of a unit.
GOAL_KERNELS_BOTH const float* unit_bounds(const float* bounds, int field, int units, std::int64_t unit) {
  return bounds + (std::int64_t{field} * units + unit) * kBoundUnit;
}

// Adds scores to the counts [2, length] of their queries.
template <typename Warp>
GOAL_KERNELS_WARP void tally(const float* bounds, std::int32_t* counts, std::int64_t length,
                             typename Warp::template Value<std::int64_t> query,
                             typename Warp::template Value<float> score, typename Warp::template Value<bool> wanted) {
  using Int = typename Warp::template Value<int>;
  const auto best = load(bounds, query, wanted, 0.0f);  // kBoundBest is the first field
  atomic_add(counts, query, Int(1), wanted & (score > best));
  atomic_add(counts + length, query, Int(1), wanted & (score == best));
}

// As scores compare: NaN below every number, infinity as the largest one.
template <typename Warp>
GOAL_KERNELS_WARP typename Warp::template Value<float> comparable(typename Warp::template Value<float> score) {
  using Float = typename Warp::template Value<float>;
  const Float finite = select(score > kFloatMax, Float(kFloatMax), score);
  return select(score != score, Float(-kInfinity), finite);
}

// The lowest kDots lanes that have bits left give one pair each, until no lane has.
template <typename Warp, typename Element>
GOAL_KERNELS_WARP void decide(const RankArguments& a, OpenPairs<Warp>& open, int warp, int row_tile, int block) {
  using Int = typename Warp::template Value<int>;
  using Long = typename Warp::template Value<std::int64_t>;
  using Word = typename Warp::template Value<std::uint32_t>;
  using Float = typename Warp::template Value<float>;
  using Mask = typename Warp::template Value<bool>;
  using Dots = ExactDots<Warp, Element>;
  const ScoreArguments& scored = a.scored;
  const Int lane = lane_anew<Warp>();
  GOAL_KERNELS_KEEP_LOOP
  for (int slice = 0; slice < kRowSlices; ++slice) {
    Word bits = open.take_slice();
    GOAL_KERNELS_KEEP_LOOP
    for (std::uint32_t givers; (givers = ballot(bits != 0u)) != 0;) {
      std::uint32_t left = givers;
      Int giver = -1;
      GOAL_KERNELS_UNROLL
      for (int pair = 0; pair < kDots; ++pair) {
        giver = select(Dots::pair_of(lane) == pair, Int(lowest_bit(left)), giver);
        left &= left - (left != 0);
      }
      const Int index = lowest_bit(shuffle(bits, giver));
      const Long row = convert<std::int64_t>(fragment_row<Int>(warp, giver, slice)) + std::int64_t{row_tile} * kTile;
      const Long column = convert<std::int64_t>(fragment_column<Int>(giver, index)) + std::int64_t{block} * kTile;
      const Mask exists = (giver >= 0) & (row < scored.image.count) & (column < scored.text.count);
      const Mask wanted = exists & (load(scored.owner, column, exists, std::int64_t{0}) != row);
      if (any(wanted)) {
        const Float score =
            comparable<Warp>(convert<float>(Dots::of(scored.image, row, scored.text, column, wanted, scored.width)));
        const Mask stores = wanted & Dots::stores(lane);
        tally<Warp>(a.image_bounds, a.image_counts, scored.image.count, row, score, stores);
        tally<Warp>(a.text_bounds, a.text_counts, scored.text.count, column, score, stores);
      }
      const Mask gave = ((Word(givers & ~left) >> convert<std::uint32_t>(lane)) & 1u) != 0u;
      bits = select(gave, bits & (bits - 1u), bits);
    }
  }
}

}  // namespace goal_kernels::cuda
