// What one warp does with its part of a tile of similarities: row results at once, column results in `Columns`
// until the pass ends. `score` holds 4 row slices times 32 indices, see layout.h.
#pragma once

#include "fixed_sums.h"
#include "mine_columns.h"
#include "mine_masks.h"

namespace goal_kernels::cuda {

// 2^x for x >= 0 without the care for denormal numbers.
template <typename Float>
GOAL_KERNELS_WARP Float exp2_positive(Float x) {
#ifdef __CUDACC__
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return exp2_of(x);
#endif
}

template <typename Warp, MineKind kKind>
class MineEpilogue {
 public:
  using Arguments = MineArguments;
  using Float = typename Warp::template Value<float>;
  using Int = typename Warp::template Value<int>;
  using Long = typename Warp::template Value<std::int64_t>;
  using Bytes = typename Warp::template Value<std::uint32_t>;  // four counts of at most 255
  using Mask = typename Warp::template Value<bool>;
  using Scores = Float[kRegisters];
  static constexpr bool kSums = kKind != MineKind::kNone;
  static constexpr bool kLinear = kKind == MineKind::kLinear;

  GOAL_KERNELS_WARP MineEpilogue(const MineArguments& arguments, const MineShape& shape, int, int warp)
      : arguments_(arguments), shape_(shape), warp_(warp) {
    const BatchStats stats = read_batch_stats<Warp>(arguments.batch_stats, arguments.parts, arguments.epsilon);
    special_ = is_special(stats);
    // Nothing reaches NaN: where sums must not start at the threshold there are none.
    const bool wide = wide_range(stats, kLinear, arguments.slope);
    threshold_ = wide ? NAN : stats.threshold;
    if constexpr (kLinear) scale_ = linear_scale(stats);
  }

  GOAL_KERNELS_WARP void begin_pass(const Item&, int) { columns_.start(); }

  // Here, because what it reads takes a while.
  GOAL_KERNELS_WARP void begin_tile(const Item& item, int tile, int block) {
    masked_ = needs_mask(arguments_, shape_, special_, item.first_tile + tile, block);
  }

  GOAL_KERNELS_WARP void finish_tile(Scores& score, const Item& item, int tile, int block) {
    const int matrix_tile = item.first_tile + tile;
    const Int lane = lane_anew<Warp>();
    const Int row = fragment_row<Int>(warp_, lane, lane & 3) + matrix_tile * kTile;  // own row of the lane
    const Mask inside = row < static_cast<int>(shape_.rows);
    if (masked_) mask_tile<Warp>(score, arguments_, shape_, warp_, matrix_tile, block);
    const Long known = load_shared_result(arguments_.row_keys, row, inside, std::int64_t{0});
    const Float best = row_maxima(score, lane);
    columns_.add_scores(score, tile);
    raise_rows(score, lane, best, row, known, inside, block);
    if constexpr (kSums) add_sums(score, lane, best, row, inside);
  }

  GOAL_KERNELS_WARP void finish_pass(const Item& item, int block) {
    const Int lane = lane_anew<Warp>();
    GOAL_KERNELS_UNROLL
    for (int k = 0; k < kOwnColumns; ++k) {
      const Int column = fragment_column<Int>(lane, own_index(lane, k)) + block * kTile;
      const Mask inside = column < static_cast<int>(shape_.columns);
      const Long known = load_shared_result(arguments_.column_keys, column, inside, std::int64_t{0});
      const ColumnTop<Warp> top = columns_.top(k, warp_, item.first_tile * kTile);
      const Int key = moved_key<Warp>(top.value);
      raise_keys<Warp>(arguments_.column_keys, column, known, key, top.row, inside);
      if constexpr (kSums) {
        const Int count = columns_.count(k);
        const Mask counted = inside & (count > 0);
        add_totals<Warp, kLinear>(arguments_.column_sums, column, shape_.columns, columns_.total(k), scale_, counted);
        atomic_add(arguments_.column_counts, column, count, counted);
        if constexpr (kLinear) raise_tops(arguments_.column_tops, column, key, top.ties, counted);
      }
    }
  }

 private:
  // The larger key wins, numbers of equal keys add up: in any order.
  static GOAL_KERNELS_WARP void raise_tops(std::int64_t* tops, Int anchor, Int key, Int ties, Mask inside) {
    const auto high = convert<std::uint64_t>(convert<std::uint32_t>(key)) << 32;
    const Long top = convert<std::int64_t>(high | convert<std::uint64_t>(convert<std::uint32_t>(ties)));
    const auto merged = [](std::int64_t known, std::int64_t fresh) {
      const bool same = (known >> 32) == (fresh >> 32);
      return same ? known + (fresh & 0xffffffff) : known > fresh ? known : fresh;
    };
    atomic_change(tops, anchor, top, inside, merged);
  }

  // The maximum of every lane's own row.
  static GOAL_KERNELS_WARP Float row_maxima(const Scores& score, Int lane) {
    Float best[kRowSlices];
    GOAL_KERNELS_UNROLL
    for (int slice = 0; slice < kRowSlices; ++slice) {
      best[slice] = score[fragment_register(slice, 0)];
      GOAL_KERNELS_UNROLL
      for (int i = 1; i < kIndices; ++i) best[slice] = maximum(best[slice], score[fragment_register(slice, i)]);
    }
    return meet_slices<Maximum>(lane, best);
  }

  // The lane that owns row slice `slice` of the lane's 4 lanes.
  static GOAL_KERNELS_WARP Int owner(Int lane, int slice) { return (lane & 28) + slice; }

  // Raises the keys of rows whose maximum may be new; in later blocks few are, and few warps search.
  GOAL_KERNELS_WARP void raise_rows(const Scores& score, Int lane, Float best, Int row, Long known, Mask inside,
                                    int block) {
    const Int key = moved_key<Warp>(best);
    const int column = block * kTile;
    const Mask wanted = inside & (key != kEmptyKey) & (Keys<Warp>::pack(key, Int(column)) > known);
    const std::uint32_t searched = ballot(wanted);
    if (searched == 0) return;
    Int place = 0;
    GOAL_KERNELS_UNROLL
    for (int slice = 0; slice < kRowSlices; ++slice) {
      if ((searched & (0x11111111u << slice)) == 0) continue;
      const Float largest = shuffle(best, owner(lane, slice));
      Int first = kTile;
      GOAL_KERNELS_UNROLL
      for (int i = kIndices - 1; i >= 0; --i) {
        const Int here = (i >> 1) * 8 + (i & 1);  // less the lane's part of `fragment_column`
        first = select(score[fragment_register(slice, i)] == largest, here, first);
      }
      first = meet_row<Minimum>(first + (lane & 3) * 2);
      place = select((lane & 3) == slice, first, place);
    }
    raise_keys<Warp>(arguments_.row_keys, row, known, key, place + column, wanted);
  }

  GOAL_KERNELS_WARP Float term(Float above, Mask reached) const {
    if constexpr (kLinear)
      return maximum(above, Float(0.0f));
    else
      return select(reached, exp2_positive(above * arguments_.slope), Float(0.0f));
  }

  // Sums over the tile of what reaches the threshold: those of rows are added, those of columns kept.
  GOAL_KERNELS_WARP void add_sums(const Scores& score, Int lane, Float best, Int row, Mask inside) {
    if (!any(best >= threshold_)) return;
    if constexpr (kLinear) {
      const Mask reached = inside & (best >= threshold_);
      raise_tops(arguments_.row_tops, row, moved_key<Warp>(best), row_ties(score, lane, best), reached);
    }
    Float row_totals[kRowSlices];
    GOAL_KERNELS_UNROLL
    for (int slice = 0; slice < kRowSlices; ++slice) row_totals[slice] = 0.0f;
    Bytes row_counts = 0u;  // a byte for each row slice
    Bytes column_counts[kIndices / 4];  // a byte for each index
    GOAL_KERNELS_UNROLL
    for (int w = 0; w < kIndices / 4; ++w) column_counts[w] = 0u;
    const auto column_total = [&](int index) {
      Float sum = 0.0f;
      GOAL_KERNELS_UNROLL
      for (int slice = 0; slice < kRowSlices; ++slice) {
        const Float above = score[fragment_register(slice, index)] - threshold_;
        const Mask reached = above >= 0.0f;
        const Float value = term(above, reached);
        sum += value;
        row_totals[slice] += value;
        row_counts += select(reached, Bytes(1u << 8 * slice), Bytes(0u));
        column_counts[index / 4] += select(reached, Bytes(1u << 8 * (index % 4)), Bytes(0u));
      }
      return sum;
    };
    Float column_totals[kOwnColumns];
    GOAL_KERNELS_UNROLL
    for (int k = 0; k < kOwnColumns; ++k) column_totals[k] = meet_columns<Sum>(lane, k, column_total);
    columns_.add_sums(column_totals, meet_counts(lane, column_counts));
    const Int count = own_byte<Warp>(lane, row_counts);
    const Mask counted = inside & (count > 0);
    add_totals<Warp, kLinear>(arguments_.row_sums, row, shape_.rows, meet_slices<Sum>(lane, row_totals), scale_,
                              counted);
    atomic_add(arguments_.row_counts, row, count, counted);
  }

  // Word (lane & 28) / 4 of 8, over the lanes of a column.
  static GOAL_KERNELS_WARP Int meet_counts(Int lane, const Bytes (&counts)[kIndices / 4]) {
    Bytes half[4];
    GOAL_KERNELS_UNROLL
    for (int w = 0; w < 4; ++w) half[w] = exchange<Sum>(lane, counts[w], counts[w + 4], 16);
    const Bytes even = exchange<Sum>(lane, half[0], half[2], 8);
    const Bytes odd = exchange<Sum>(lane, half[1], half[3], 8);
    return convert<int>(exchange<Sum>(lane, even, odd, 4));
  }

  // How often the maximum of the lane's own row occurs.
  static GOAL_KERNELS_WARP Int row_ties(const Scores& score, Int lane, Float best) {
    Bytes ties = 0u;
    GOAL_KERNELS_UNROLL
    for (int slice = 0; slice < kRowSlices; ++slice) {
      const Float largest = shuffle(best, owner(lane, slice));
      GOAL_KERNELS_UNROLL
      for (int i = 0; i < kIndices; ++i)
        ties += select(score[fragment_register(slice, i)] == largest, Bytes(1u << 8 * slice), Bytes(0u));
    }
    return own_byte<Warp>(lane, ties);
  }

  const MineArguments& arguments_;
  const MineShape& shape_;
  int warp_;
  bool special_;
  bool masked_;      // the tile under way
  float threshold_;  // NaN: no sums
  float scale_ = 0.0f;
  Columns<Warp, kKind> columns_;
};

}  // namespace goal_kernels::cuda
