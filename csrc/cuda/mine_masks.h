// Which pairs are negatives, and similarities that are not finite.
//
// Most tiles hold finite negatives alone and are left as they are; `needs_mask` tells the others. There, pairs
// that are no negatives become -inf, and what is not finite moves aside to keep its place in the order: NaN, the
// largest, to inf, and infinities to the largest finite numbers. `moved_key` moves them back.
#pragma once

#include "exchange.h"
#include "keys.h"
#include "layout.h"
#include "mine.h"

namespace goal_kernels::cuda {

// Whether the tile may hold anything that is no finite negative. special: see `is_special`.
GOAL_KERNELS_BOTH bool needs_mask(const MineArguments& arguments, const MineShape& shape, bool special, int tile,
                                  int block) {
  if (special || (tile + 1) * std::int64_t{kTile} > shape.rows || (block + 1) * std::int64_t{kTile} > shape.columns)
    return true;
  if (arguments.mixed == nullptr) return tile == block;
  const int bit = block % (32 * arguments.mask_words);
  const std::int32_t word = arguments.mixed[std::int64_t{tile} * arguments.mask_words + bit / 32];
  return (word >> bit % 32 & 1) != 0;
}

template <typename Warp>
GOAL_KERNELS_WARP void mask_tile(typename Warp::template Value<float> (&score)[kRegisters],
                                 const MineArguments& arguments, const MineShape& shape, int warp, int tile,
                                 int block) {
  using Float = typename Warp::template Value<float>;
  using Int = typename Warp::template Value<int>;
  using Long = typename Warp::template Value<std::int64_t>;
  using Mask = typename Warp::template Value<bool>;
  const int rows = static_cast<int>(shape.rows), columns = static_cast<int>(shape.columns);
  const bool ids = arguments.image_ids != nullptr;
  GOAL_KERNELS_UNROLL
  for (int slice = 0; slice < kRowSlices; ++slice) {
    const Int lane = lane_anew<Warp>();  // nothing is shared among slices: registers are scarce
    const Int row = fragment_row<Int>(warp, lane, slice) + tile * kTile;
    const Mask row_inside = row < rows;
    Int own = row;
    if (arguments.target != nullptr) {
      const Long target = load(arguments.target, row, row_inside, std::int64_t{-1});
      own = select((target >= std::int64_t{0}) & (target < shape.columns), convert<int>(target), Int(-1));
    }
    Long row_id = std::int64_t{0};
    if (ids) row_id = load(arguments.image_ids, row, row_inside, std::int64_t{0});
    GOAL_KERNELS_UNROLL
    for (int i = 0; i < kIndices; ++i) {
      const Int column = fragment_column<Int>(lane, i) + block * kTile;
      Mask negative = row_inside & (column < columns) & (own != column);
      if (ids) {  // a column outside has the id of the last one: it is no negative anyway
        const Int known = minimum(column, Int(columns - 1));
        negative = negative & (row_id != load(arguments.text_ids, known, Mask(true), std::int64_t{0}));
      }
      Float& value = score[fragment_register(slice, i)];
      const Float finite = minimum(maximum(value, Float(-kFloatMax)), Float(kFloatMax));
      const Float moved = select(value != value, Float(kInfinity), finite);
      value = select(negative, moved, Float(-kInfinity));
    }
  }
}

// Key of a maximum over similarities that `mask_tile` may have moved; kEmptyKey for -inf.
template <typename Warp>
GOAL_KERNELS_WARP typename Warp::template Value<std::int32_t> moved_key(
    typename Warp::template Value<float> value) {
  using Int = typename Warp::template Value<std::int32_t>;
  constexpr std::int32_t kInfinityKey = 0x7f800000;
  constexpr std::int32_t kMinusInfinityKey = -0x7f800001;  // ~kInfinityKey
  Int key = Keys<Warp>::encode(value);
  key = select(value == -kFloatMax, Int(kMinusInfinityKey), key);
  key = select(value == kFloatMax, Int(kInfinityKey), key);
  key = select(value == kInfinity, Int(kNanKey), key);
  return select(value == -kInfinity, Int(kEmptyKey), key);
}

// Atomic maximum of packed keys. A key only ever rises, so looking before costs nothing but a late look.
template <typename Warp>
GOAL_KERNELS_WARP void raise_keys(std::int64_t* keys, typename Warp::template Value<int> place,
                                  typename Warp::template Value<std::int64_t> known,
                                  typename Warp::template Value<std::int32_t> key,
                                  typename Warp::template Value<int> index,
                                  typename Warp::template Value<bool> inside) {
  const auto packed = Keys<Warp>::pack(key, index);
  atomic_max(keys, place, packed, inside & (key != kEmptyKey) & (packed > known));
}

}  // namespace goal_kernels::cuda
