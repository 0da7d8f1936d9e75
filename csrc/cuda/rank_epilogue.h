// What one warp counts in its part of a tile: pairs that score better than the best positive of their row, and of
// their column. Counts of rows are added to memory with every tile, those of columns when a pass ends.
//
// First every pair counts that S puts above a centre. If then some S lies too near to one, `settle` takes those pairs
// back, and their scores decide.
#pragma once

#include "cuda/rank_decisions.h"
#include "exchange.h"
#include "layout.h"

namespace goal_kernels::cuda {

static_assert(kBoundUnit == kTile, "bounds are those of a tile");

template <typename Warp, typename Element>
class RankEpilogue {
 public:
  using Arguments = RankArguments;
  using Float = typename Warp::template Value<float>;
  using Int = typename Warp::template Value<int>;
  using Long = typename Warp::template Value<std::int64_t>;
  using Word = typename Warp::template Value<std::uint32_t>;
  using Mask = typename Warp::template Value<bool>;
  using Scores = Float[kRegisters];

  GOAL_KERNELS_WARP RankEpilogue(const RankArguments& arguments, const MineShape& shape, int, int warp)
      : arguments_(arguments), shape_(shape), warp_(warp) {}

  GOAL_KERNELS_WARP void begin_pass(const Item&, int block) {
    const float* const centres = unit_bounds(arguments_.text_bounds, kBoundCentre, shape_.blocks, block);
    const Int lane = lane_anew<Warp>();
    GOAL_KERNELS_UNROLL
    for (int i = 0; i < kIndices; ++i)
      column_centre_[i] = load(centres, fragment_column<Int>(lane, i), Mask(true), 0.0f);
    GOAL_KERNELS_UNROLL
    for (int w = 0; w < kIndices / 4; ++w) column_better_[w] = 0u;
  }

  // Here, because what it reads takes a while.
  GOAL_KERNELS_WARP void begin_tile(const Item& item, int tile, int block) {
    const int row_tile = item.first_tile + tile;
    const auto row_bound = [&](int field) { return *unit_bounds(arguments_.image_bounds, field, shape_.tiles, row_tile); };
    const auto column_bound = [&](int field) { return *unit_bounds(arguments_.text_bounds, field, shape_.blocks, block); };
    slack_ = row_bound(kBoundLongest) * column_bound(kBoundLongest) +
             maximum(row_bound(kBoundResolution), column_bound(kBoundResolution));
    broken_ = row_bound(kBoundBroken) + column_bound(kBoundBroken) > 0.0f;
    const float* const centres = unit_bounds(arguments_.image_bounds, kBoundCentre, shape_.tiles, row_tile);
    const Int lane = lane_anew<Warp>();
    GOAL_KERNELS_UNROLL
    for (int slice = 0; slice < kRowSlices; ++slice)
      row_centre_[slice] = load(centres, fragment_row<Int>(warp_, lane, slice), Mask(true), 0.0f);
  }

  GOAL_KERNELS_WARP void finish_tile(Scores& score, const Item& item, int tile, int block) {
    const int row_tile = item.first_tile + tile;
    const bool ragged = (row_tile + 1) * std::int64_t{kTile} > shape_.rows ||
                        (block + 1) * std::int64_t{kTile} > shape_.columns;
    if (ragged) clear_outside(score, row_tile, block);
    Word better[kRowSlices];
    GOAL_KERNELS_UNROLL
    for (int slice = 0; slice < kRowSlices; ++slice) better[slice] = 0u;
    Float nearest = kInfinity;  // distance to a centre; NaN loses, but is broken
    GOAL_KERNELS_UNROLL
    for (int i = 0; i < kIndices; ++i) {
      Word column = 0u;
      GOAL_KERNELS_UNROLL
      for (int slice = 0; slice < kRowSlices; ++slice) {
        const Leads lead = leads(score[fragment_register(slice, i)], slice, i);
        nearest = minimum(nearest, absolute(lead.row));
        nearest = minimum(nearest, absolute(lead.column));
        better[slice] += sign(lead.row);
        column += sign(lead.column);
      }
      column_better_[i / 4] += column << std::uint32_t(8 * (i % 4));
    }
    OpenPairs<Warp> open;
    const bool settled = !broken_ && all(nearest > slack_);
    if (!settled) settle(score, better, open);
    count_rows(better, row_tile);
    if (!settled) decide<Warp, Element>(arguments_, open, warp_, row_tile, block);
  }

  GOAL_KERNELS_WARP void finish_pass(const Item&, int block) {
    const Int lane = lane_anew<Warp>();
    GOAL_KERNELS_UNROLL
    for (int k = 0; k < 2; ++k) {
      // Own columns k and k + 2 of the lane, 16 bits each: 8 lanes have at most 128 rows of each.
      const auto pair = [&](int index) { return (column_better_[index / 4] >> std::uint32_t(8 * k)) & 0x00ff00ffu; };
      const Word counts = meet_columns<Sum>(lane, 0, pair);
      count_column(lane, k, convert<int>(counts & 0xffffu), block);
      count_column(lane, k + 2, convert<int>(counts >> 16u), block);
    }
  }

 private:
  // Centre less S, of the row and of the column: negative where the pair is better.
  struct Leads {
    Float row, column;
  };

  GOAL_KERNELS_WARP Leads leads(Float value, int slice, int index) const {
    return {row_centre_[slice] - value, column_centre_[index] - value};
  }

  // The same, bit for bit, in instructions that the compiler does not know to be the same: it would keep the leads of
  // a whole tile, in case `settle` asks for them.
  GOAL_KERNELS_WARP Leads leads_anew(Float value, int slice, int index) const {
#ifdef __CUDACC__
    const float minus_one = copysignf(1.0f, -slack_);
    return {fused(value, minus_one, row_centre_[slice]), fused(value, minus_one, column_centre_[index])};
#else
    return leads(value, slice, index);
#endif
  }

  // 1 where negative. In bits, not by a comparison: there are fewer predicates than pairs.
  static GOAL_KERNELS_WARP Word sign(Float value) { return reinterpret<std::uint32_t>(value) >> 31u; }

  // Products outside the matrix are 0, as are the centres there: all would be open, for `decide` to drop one by one.
  GOAL_KERNELS_WARP void clear_outside(Scores& score, int row_tile, int block) const {
    const Int lane = lane_anew<Warp>();
    const Int first_row = fragment_row<Int>(warp_, lane, 0) + row_tile * kTile;
    const int rows = static_cast<int>(shape_.rows), columns = static_cast<int>(shape_.columns);
    GOAL_KERNELS_UNROLL
    for (int i = 0; i < kIndices; ++i) {
      const Mask inside = fragment_column<Int>(lane, i) + block * kTile < columns;
      GOAL_KERNELS_UNROLL
      for (int slice = 0; slice < kRowSlices; ++slice) {
        Float& value = score[fragment_register(slice, i)];
        value = select(inside & (first_row + fragment_row<int>(0, 0, slice) < rows), value, Float(-kFloatMax));
      }
    }
  }

  // Takes back what `finish_tile` counted of open pairs. Own pairs are among them: a text's centre is the score of its
  // own pair.
  GOAL_KERNELS_WARP void settle(const Scores& score, Word (&better)[kRowSlices], OpenPairs<Warp>& open) {
    open.clear();
    GOAL_KERNELS_UNROLL
    for (int i = 0; i < kIndices; ++i) {
      Word taken = 0u;
      GOAL_KERNELS_UNROLL
      for (int slice = 0; slice < kRowSlices; ++slice) {
        const Leads lead = leads_anew(score[fragment_register(slice, i)], slice, i);
        // The upper bit is set if both are farther from 0 than the slack; NaN, whose magnitude has no sign, is not.
        const Word known = reinterpret<std::uint32_t>(slack_ - absolute(lead.row)) &
                           reinterpret<std::uint32_t>(slack_ - absolute(lead.column));
        better[slice] -= (reinterpret<std::uint32_t>(lead.row) & ~known) >> 31u;
        taken += (reinterpret<std::uint32_t>(lead.column) & ~known) >> 31u;
        open.add(slice, i, ~known >> 31u);
      }
      column_better_[i / 4] -= taken << std::uint32_t(8 * (i % 4));
    }
  }

  GOAL_KERNELS_WARP void count_rows(const Word (&better)[kRowSlices], int row_tile) {
    const Int lane = lane_anew<Warp>();
    Word bytes = better[0];  // at most 32 each
    GOAL_KERNELS_UNROLL
    for (int slice = 1; slice < kRowSlices; ++slice) bytes += better[slice] << std::uint32_t(8 * slice);
    const Int count = own_byte<Warp>(lane, bytes);
    const Int row = fragment_row<Int>(warp_, lane, lane & 3) + row_tile * kTile;
    atomic_add(arguments_.image_counts, row, count, (row < static_cast<int>(shape_.rows)) & (count > 0));
  }

  GOAL_KERNELS_WARP void count_column(Int lane, int own, Int count, int block) {
    const Int column = fragment_column<Int>(lane, own_index(lane, own)) + block * kTile;
    const Mask inside = column < static_cast<int>(shape_.columns);
    atomic_add(arguments_.text_counts, column, count, inside & (count > 0));
  }

  const RankArguments& arguments_;
  const MineShape& shape_;
  int warp_;
  bool broken_;  // nothing is known of a row or a column of the tile under way
  float slack_;  // there, S tells if it is farther than this from a centre
  Float row_centre_[kRowSlices];
  Float column_centre_[kIndices];
  Word column_better_[kIndices / 4];  // a byte for each index: kMostTiles / kConsumers tiles of kRowSlices rows
};

static_assert(kMostTiles / kConsumers * kRowSlices <= 255, "a byte holds the count of a column of one thread");

}  // namespace goal_kernels::cuda
