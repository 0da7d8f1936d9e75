// What ranking does with a micro-tile of S: compares and counts.
//
// In:  S [kRows][kColumns] of one tile and how far it may lie from the dot products (rank_tile.h).
// Out: the tallies of its rows and columns, increased.
// Cost: some twenty vector operations per vector of S; a dot product in double for each pair whose S lies too
//      close to a best positive to tell, NaN and infinities among them. No list of them is kept.
// Internal linkage and no std functions, see types.h.
#pragma once

#include "exact_dot.h"
#include "rank_tile.h"

namespace goal_kernels {
namespace {

// P is a product (product_*.h): tile sizes and scalar type.
template <typename P>
struct RankEpilogue {
  using T = typename P::Scalar;
  using Tile = RankTile<T>;
  static constexpr int kLanes = Lanes<T>::count;
  static constexpr int kVectors = P::kVectors;

  static void run(const Tile& tile, const T* similarity) {
    IntVec<T> column_better[kVectors] = {};
    for (int r = 0; r < tile.place.rows; ++r) {
      int row_better = 0;
      for (int v = 0; v < kVectors; ++v) {
        const Vec<T> s = load<Vec<T>>(similarity + r * P::kColumns + v * kLanes);
        const Vec<T> reach = tile.row_bar.reach[r] * load<Vec<T>>(tile.column_bar.reach + v * kLanes);
        const Sides row = sides(s, reach, splat<T>(tile.row_bar.above[r]), splat<T>(tile.row_bar.below[r]));
        const Sides column = sides(s, reach, load<Vec<T>>(tile.column_bar.above + v * kLanes),
                                   load<Vec<T>>(tile.column_bar.below + v * kLanes));
        const Mask<T> wrong = is_wrong(tile, r, v);
        const Mask<T> clear = wrong & (row.above | row.below) & (column.above | column.below);
        row_better += __builtin_popcount(lane_bits<T>(clear & row.above));
        column_better[v] += select(static_cast<Mask<T>>(clear & column.above), splat_int<T>(1), IntVec<T>{});
        const unsigned unclear = lane_bits<T>(static_cast<Mask<T>>(wrong & ~clear));
        if (unclear != 0) count_exactly(tile, r, v * kLanes, unclear);
      }
      tile.row.better[r] += row_better;
    }
    for (int v = 0; v < kVectors; ++v) {
      Integer<T>* better = tile.column.better + v * kLanes;
      store(better, load<IntVec<T>>(better) + column_better[v]);
    }
  }

 private:
  // Whose dot products certainly score better or worse than the best positive. Neither for NaN.
  struct Sides {
    Mask<T> above, below;
  };

  static Sides sides(Vec<T> s, Vec<T> reach, Vec<T> above, Vec<T> below) {
    return {less(reach, s - above), less(reach, below - s)};
  }

  static Mask<T> is_wrong(const Tile& tile, int r, int v) {
    const IntVec<T> lane = lane_numbers<T>() + Integer<T>(v * kLanes);
    const IntVec<T> owner = load<IntVec<T>>(tile.owner + v * kLanes);
    const Mask<T> own = equal(owner, splat_int<T>(tile.place.first_row + Integer<T>(r)));
    return less(lane, splat_int<T>(tile.place.columns)) & static_cast<Mask<T>>(~own);
  }

  // Both directions of the pairs of row r with the columns behind the bits of `lanes`.
  static void count_exactly(const Tile& tile, int r, int first, unsigned lanes) {
    while (__builtin_popcount(lanes) >= kTogether) lanes = count_some<kTogether>(tile, r, first, lanes);
    while (lanes != 0) lanes = count_some<1>(tile, r, first, lanes);
  }

  // Those of the lowest kCount bits. Returns the others.
  template <int kCount>
  static unsigned count_some(const Tile& tile, int r, int first, unsigned lanes) {
    int column[kCount];
    std::int64_t text[kCount];
    double dot[kCount];
    for (int i = 0; i < kCount; ++i, lanes &= lanes - 1) {
      column[i] = first + __builtin_ctz(lanes);
      text[i] = tile.place.first_column + column[i];
    }
    exact_dots<T, kCount>(*tile.image, tile.place.first_row + r, *tile.text, text, dot);
    for (int i = 0; i < kCount; ++i) {
      const float score = comparable(static_cast<float>(dot[i]));
      tally(score, tile.row_bar.best[r], tile.row, r);
      tally(score, tile.column_bar.best[column[i]], tile.column, column[i]);
    }
    return lanes;
  }

  static void tally(float score, float best, const Tally<T>& into, int query) {
    into.better[query] += score > best ? 1 : 0;
    into.ties[query] += score == best ? 1 : 0;
  }
};

}  // namespace
}  // namespace goal_kernels
