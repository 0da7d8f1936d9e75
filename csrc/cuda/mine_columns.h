// What a warp knows about the columns of a block while row tiles go by.
//
// A thread has 32 columns and, of every tile, 4 rows. Comparing across the 8 lanes of a column for every tile
// would cost more than the products, so each thread keeps the maxima of its own rows, and lanes meet once a
// pass. Sums do meet in every tile that has any: that takes 28 registers fewer.
#pragma once

#include "exchange.h"
#include "keys.h"
#include "layout.h"
#include "mine.h"

namespace goal_kernels::cuda {

// The largest similarity of a column, its lowest row, and how many rows tie there.
template <typename Warp>
struct ColumnTop {
  typename Warp::template Value<float> value;
  typename Warp::template Value<int> row;
  typename Warp::template Value<int> ties;
};

template <typename Mask, typename Warp>
GOAL_KERNELS_WARP ColumnTop<Warp> choose(Mask mask, const ColumnTop<Warp>& a, const ColumnTop<Warp>& b) {
  return {select(mask, a.value, b.value), select(mask, a.row, b.row), select(mask, a.ties, b.ties)};
}
template <typename Warp>
GOAL_KERNELS_WARP ColumnTop<Warp> from_lane(const ColumnTop<Warp>& a, int mask) {
  return {shuffle_xor(a.value, mask), shuffle_xor(a.row, mask), shuffle_xor(a.ties, mask)};
}
template <typename Warp>
struct HigherTop {
  static GOAL_KERNELS_WARP ColumnTop<Warp> combine(const ColumnTop<Warp>& a, const ColumnTop<Warp>& b) {
    const auto tie = a.value == b.value;
    const auto first = (a.value > b.value) | (tie & (a.row < b.row));
    ColumnTop<Warp> result = choose(first, a, b);
    result.ties = select(tie, a.ties + b.ties, result.ties);
    return result;
  }
};

template <typename Warp, MineKind kKind>
class Columns {
 public:
  using Float = typename Warp::template Value<float>;
  using Int = typename Warp::template Value<int>;

  GOAL_KERNELS_WARP void start() {
    GOAL_KERNELS_UNROLL
    for (int i = 0; i < kIndices; ++i) {
      best_[i] = -kInfinity;
      word_[i] = 0;
    }
    GOAL_KERNELS_UNROLL
    for (int k = 0; k < kOwnColumns; ++k) totals_[k] = 0.0f;
    even_counts_ = odd_counts_ = 0;
  }

  // `tile`: number of the tile in its segment. Later rows must be larger to win, so the lowest stays.
  GOAL_KERNELS_WARP void add_scores(const Float (&score)[kRegisters], int tile) {
    GOAL_KERNELS_UNROLL
    for (int i = 0; i < kIndices; ++i) {
      GOAL_KERNELS_UNROLL
      for (int slice = 0; slice < kRowSlices; ++slice) {
        const Float value = score[fragment_register(slice, i)];
        const auto newer = value > best_[i];
        const int code = tile * kRowSlices + slice;
        if constexpr (kKind == MineKind::kLinear) {
          const Int word = word_[i] + select(value == best_[i], Int(1), Int(0));
          word_[i] = select(newer, Int(code << kTieBits | 1), word);
        } else {
          word_[i] = select(newer, Int(code), word_[i]);
        }
        best_[i] = maximum(best_[i], value);
      }
    }
  }

  // Sums of a tile by own column, and their numbers of terms (at most 32) in the bytes of a word.
  GOAL_KERNELS_WARP void add_sums(const Float (&totals)[kOwnColumns], Int counts) {
    GOAL_KERNELS_UNROLL
    for (int k = 0; k < kOwnColumns; ++k) totals_[k] += totals[k];
    even_counts_ += counts & 0x00ff00ff;
    odd_counts_ += (counts >> 8) & 0x00ff00ff;
  }

  // Of own column `k`, rows of the matrix; the segment starts at `first_row`.
  GOAL_KERNELS_WARP ColumnTop<Warp> top(int k, int warp, int first_row) const {
    const Int lane = lane_anew<Warp>();
    const auto state = [&](int index) {
      const Int code = kKind == MineKind::kLinear ? word_[index] >> kTieBits : word_[index];
      const Int row = (code >> 2) * kTile + fragment_row<Int>(warp, lane, code & 3) + first_row;
      return ColumnTop<Warp>{best_[index], row, word_[index] & ((1 << kTieBits) - 1)};
    };
    return meet_columns<HigherTop<Warp>>(lane, k, state);
  }

  GOAL_KERNELS_WARP Float total(int k) const { return totals_[k]; }
  GOAL_KERNELS_WARP Int count(int k) const {
    const Int pair = k % 2 ? odd_counts_ : even_counts_;
    return k < 2 ? pair & 0xffff : (pair >> 16) & 0xffff;
  }

 private:
  static constexpr int kTieBits = 16;

  Float best_[kIndices];
  Int word_[kIndices];  // tile and row slice of the best; for kLinear with the number of ties below
  Float totals_[kOwnColumns];
  Int even_counts_, odd_counts_;  // 16 bits a column
};

}  // namespace goal_kernels::cuda
