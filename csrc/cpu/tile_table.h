// The table of a product: every epilogue behind every product. Internal linkage, see types.h.
#pragma once

#include "list_epilogue.h"
#include "mine_epilogue.h"
#include "rank_epilogue.h"
#include "screen_epilogue.h"
#include "tile_kernel.h"
#include "transpose_epilogue.h"

namespace goal_kernels {
namespace {

template <typename P, Relative kKind>
void mine_tile(const MineTile<typename P::Scalar>& tile) {
  alignas(64) typename P::Scalar similarity[P::kRows * P::kColumns];
  P::multiply(tile.place, similarity);
  if (has_exclusions<P>(tile.place, tile.exclusions))
    MineEpilogue<P, kKind, true>::run(tile, similarity);
  else
    MineEpilogue<P, kKind, false>::run(tile, similarity);
}

template <typename P>
int screen_tile(const ScreenTile<typename P::Scalar>& tile) {
  alignas(64) typename P::Scalar similarity[P::kRows * P::kColumns];
  P::multiply(tile.place, similarity);
  if (has_exclusions<P>(tile.place, tile.exclusions)) return screen<P, true>(tile, similarity);
  return screen<P, false>(tile, similarity);
}

template <typename P>
bool list_tile(const ListTile<typename P::Scalar>& tile) {
  alignas(64) typename P::Scalar similarity[P::kRows * P::kColumns];
  P::multiply(tile.place, similarity);
  const bool masked = has_exclusions<P>(tile.place, tile.exclusions);
  if (tile.column_floor != nullptr)
    return masked ? list<P, true, true>(tile, similarity) : list<P, false, true>(tile, similarity);
  return masked ? list<P, true, false>(tile, similarity) : list<P, false, false>(tile, similarity);
}

template <typename P>
void transpose_tile(const TilePlace<typename P::Scalar>& place, typename P::Scalar* out, std::int64_t stride,
                    bool add) {
  alignas(64) typename P::Scalar similarity[P::kRows * P::kColumns];
  constexpr int kLine = 64 / sizeof(similarity[0]);
  // The lines that are written come from a far cache: while the tile is multiplied.
  for (int c = 0; c < place.columns; ++c)
    for (int r = 0; r < place.rows; r += kLine) __builtin_prefetch(out + c * stride + r, 1);
  P::multiply(place, similarity);
  if (add)
    write_transposed<P, true>(place, similarity, out, stride);
  else
    write_transposed<P, false>(place, similarity, out, stride);
}

template <typename P>
void rank_tile(const RankTile<typename P::Scalar>& tile) {
  alignas(64) typename P::Scalar similarity[P::kRows * P::kColumns];
  P::multiply(tile.place, similarity);
  RankEpilogue<P>::run(tile, similarity);
}

template <typename P>
constexpr TileKernel<typename P::Scalar> tile_table() {
  using T = typename P::Scalar;
  return {P::kRows,
          P::kColumns,
          P::kDepthStep,
          P::kValueBytes,
          P::pack_rows,
          P::pack_columns,
          P::pack_across,
          P::enter,
          P::leave,
          {mine_tile<P, Relative::none>, mine_tile<P, Relative::linear>,
           mine_tile<P, Relative::exponential>},
          screen_tile<P>,
          list_tile<P>,
          transpose_tile<P>,
          {merge_extrema<Relative::none, T>, merge_extrema<Relative::linear, T>,
           merge_extrema<Relative::exponential, T>},
          P::error,
          rank_tile<P>,
          exact_dot<T>,
          exact_dot_roundings};
}

// Only what mining without sums needs.
template <typename P>
constexpr TileKernel<typename P::Scalar> mining_table() {
  using T = typename P::Scalar;
  TileKernel<T> table{};
  table.rows = P::kRows;
  table.columns = P::kColumns;
  table.depth_step = P::kDepthStep;
  table.value_bytes = P::kValueBytes;
  table.pack_rows = P::pack_rows;
  table.pack_columns = P::pack_columns;
  table.enter = P::enter;
  table.leave = P::leave;
  table.mine[0] = mine_tile<P, Relative::none>;
  table.merge[0] = merge_extrema<Relative::none, T>;
  return table;
}

}  // namespace
}  // namespace goal_kernels
