// What mining does with a micro-tile of S: largest elements of its rows and columns, and the
// relative-similarity sums.
//
// In:  S [kRows][kColumns] of one tile, the states of its rows and columns (tile_kernel.h).
// Out: the states, as if the elements had been looked at one by one, rows ascending for a column and columns
//      ascending for a row, so that a strict comparison keeps the lowest index.
// Cost: about six vector operations per vector of S for the extrema; for the sums some twenty more per vector
//      with an element at or above the threshold, one exponential among them.
// Internal linkage and no std functions, see types.h.
#pragma once

#include "exclusions.h"

namespace goal_kernels {
namespace {

// P is a product (product_*.h): tile sizes and scalar type.
template <typename P, Relative kKind, bool kMasked>
struct MineEpilogue {
  using T = typename P::Scalar;
  using Tile = MineTile<T>;
  static constexpr int kLanes = Lanes<T>::count;
  static constexpr int kVectors = P::kVectors;
  static constexpr int kColumns = P::kColumns;
  // Rows rounded up to whole vectors.
  static constexpr int kPaddedRows = (P::kRows + kLanes - 1) / kLanes * kLanes;
  // Largest beta * (S - threshold) for which one exponential serves rows and columns: its inverse is
  // still a normal number.
  static constexpr T kSharedRange = T(sizeof(T) == sizeof(float) ? 80 : 700);

  static void run(const Tile& tile, const T* similarity) {
    find_extrema(tile, similarity);
    if constexpr (kKind == Relative::linear) add_sums<true>(tile, similarity, T(0));
    if constexpr (kKind == Relative::exponential) {
      const T top = largest_row_value(tile);
      if (tile.relative.beta * (top - tile.relative.threshold) <= kSharedRange)
        add_sums<true>(tile, similarity, top);
      else
        add_sums<false>(tile, similarity, top);
    }
  }

 private:
  // NaN if one of them is.
  static T largest_row_value(const Tile& tile) {
    T top = tile.row.value[0];
    for (int r = 1; r < tile.place.rows && top == top; ++r)
      top = tile.row.value[r] <= top ? top : tile.row.value[r];
    return top;
  }

  static const T* line_of(const T* similarity, int r) { return similarity + r * kColumns; }

  static Mask<T> allowed(const Tile& tile, int r, int v) {
    return allowed_lanes<kMasked>(tile.place, tile.exclusions, r, v);
  }

  // Columns are updated on the way: some lane nearly always improves. Rows rarely do, so they are only
  // tested. A NaN always shows as an improvement of its row, and columns with a NaN or without any element
  // yet are looked at again by the careful `improve_columns`.
  static void find_extrema(const Tile& tile, const T* similarity) {
    Vec<T> old_value[kVectors], value[kVectors];
    IntVec<T> old_index[kVectors], index[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      value[v] = old_value[v] = load<Vec<T>>(tile.column.value + v * kLanes);
      index[v] = old_index[v] = load<IntVec<T>>(tile.column.index + v * kLanes);
    }
    bool has_nan = false;
    for (int r = 0; r < tile.place.rows; ++r) {
      const T* line = line_of(similarity, r);
      const Vec<T> row_value = splat<T>(tile.row.value[r]);
      const IntVec<T> here = splat_int<T>(tile.place.first_row + Integer<T>(r));
      Mask<T> hit = no_lanes<T>();
      for (int v = 0; v < kVectors; ++v) {
        const Vec<T> s = load<Vec<T>>(line + v * kLanes);
        const Mask<T> ok = allowed(tile, r, v);
        hit |= ok & static_cast<Mask<T>>(~at_most(s, row_value));  // true for NaN
        const Mask<T> take = ok & less(value[v], s);
        value[v] = select(take, s, value[v]);
        index[v] = select(take, here, index[v]);
      }
      if (tile.row.index[r] < 0 || any(hit)) has_nan |= improve_row(tile, r, line);
    }
    for (int v = 0; v < kVectors; ++v)
      if (has_nan || any(less(old_index[v], IntVec<T>{})))
        improve_columns(tile, v, similarity);
      else
        store_columns(tile, v * kLanes, value[v], index[v]);
  }

  // Looks for a new largest element in row r. True if an allowed element is NaN.
  static bool improve_row(const Tile& tile, int r, const T* line) {
    const T old_value = tile.row.value[r];
    const Vec<T> lowest = splat<T>(T(-__builtin_inf()));
    Vec<T> largest = lowest;
    Mask<T> nan = no_lanes<T>();
    for (int v = 0; v < kVectors; ++v) {
      const Vec<T> s = load<Vec<T>>(line + v * kLanes);
      const Mask<T> ok = allowed(tile, r, v);
      nan |= ok & static_cast<Mask<T>>(~equal(s, s));
      largest = select(ok & less(largest, s), s, largest);
    }
    if (any(nan) || !(old_value == old_value)) return improve_row_carefully(tile, r, line);
    const Vec<T> value = largest_lane<T>(largest);
    if (value[0] > old_value) {
      store_row(tile, r, value[0], find_in_row(tile, r, line, value));
      return false;
    }
    // An element of -inf is still better than none.
    return tile.row.index[r] < 0 && improve_row_carefully(tile, r, line);
  }

  // Lowest column of row r whose allowed element has this value; there must be one.
  static Integer<T> find_in_row(const Tile& tile, int r, const T* line, Vec<T> value) {
    int v = 0;
    Mask<T> found = allowed(tile, r, 0) & equal(load<Vec<T>>(line), value);
    while (!any(found)) {
      ++v;
      found = allowed(tile, r, v) & equal(load<Vec<T>>(line + v * kLanes), value);
    }
    return tile.place.first_column + Integer<T>(v * kLanes + first_lane(found));
  }

  // One element at a time, NaN and infinities included. True if an allowed element is NaN.
  static bool improve_row_carefully(const Tile& tile, int r, const T* line) {
    const Integer<T> old_index = tile.row.index[r];
    T value = tile.row.value[r];
    Integer<T> index = old_index;
    bool has_nan = false;
    for (int column = 0; column < tile.place.columns; ++column) {
      const T s = line[column];
      if (!is_allowed<kMasked>(tile.place, tile.exclusions, r, column)) continue;
      has_nan |= s != s;
      if (s > value || index < 0 || (s != s && value == value)) {
        value = s;
        index = tile.place.first_column + column;
      }
    }
    if (index != old_index) store_row(tile, r, value, index);
    return has_nan;
  }

  // A new largest element of row r; makes its sums relative to it.
  static void store_row(const Tile& tile, int r, T value, Integer<T> index) {
    if constexpr (kKind == Relative::linear) tile.row.ties[r] = 0;
    if (kKind == Relative::exponential && tile.row.index[r] >= 0) {
      const T old_value = tile.row.value[r];
      const Vec<T> exponent = splat<T>(tile.relative.beta * (old_value - value));
      const double joins = old_value >= tile.relative.threshold ? 1.0 : 0.0;
      tile.row.sum[r] = (tile.row.sum[r] + joins) * double(exp_flushed<T>(exponent)[0]);
    }
    tile.row.value[r] = value;
    tile.row.index[r] = index;
  }

  // Looks for new largest elements in one vector of columns, NaN and absent ones included.
  static void improve_columns(const Tile& tile, int v, const T* similarity) {
    const int first = v * kLanes;
    Vec<T> value = load<Vec<T>>(tile.column.value + first);
    IntVec<T> index = load<IntVec<T>>(tile.column.index + first);
    for (int r = 0; r < tile.place.rows; ++r) {
      const Vec<T> s = load<Vec<T>>(line_of(similarity, r) + first);
      const Mask<T> nan_wins = static_cast<Mask<T>>(~equal(s, s)) & equal(value, value);
      const Mask<T> wins = less(value, s) | less(index, IntVec<T>{}) | nan_wins;
      const Mask<T> take = wins & allowed(tile, r, v);
      value = select(take, s, value);
      index = select(take, splat_int<T>(tile.place.first_row + Integer<T>(r)), index);
    }
    store_columns(tile, first, value, index);
  }

  // New largest elements of one vector of columns; makes their sums relative to them.
  static void store_columns(const Tile& tile, int first, Vec<T> value, IntVec<T> index) {
    if constexpr (kKind != Relative::none) {
      const IntVec<T> old_index = load<IntVec<T>>(tile.column.index + first);
      const Mask<T> kept = equal(index, old_index);
      if constexpr (kKind == Relative::linear) {
        const IntVec<T> ties = load<IntVec<T>>(tile.column.ties + first);
        store(tile.column.ties + first, select(kept, ties, IntVec<T>{}));
      } else {
        const Mask<T> replaced = static_cast<Mask<T>>(~(kept | less(old_index, IntVec<T>{})));
        if (any(replaced)) rebase_columns(tile, first, value, replaced);
      }
    }
    store(tile.column.value + first, value);
    store(tile.column.index + first, index);
  }

  // Exponential sums of the replaced lanes: relative to the new value, and the old one joins them.
  static void rebase_columns(const Tile& tile, int first, Vec<T> value, Mask<T> replaced) {
    const Vec<T> one = splat<T>(1);
    const Vec<T> old_value = load<Vec<T>>(tile.column.value + first);
    const Mask<T> over = replaced & at_most(splat<T>(tile.relative.threshold), old_value);
    const Vec<T> joins = select(over, one, Vec<T>{});
    const Vec<T> shrink = exp_flushed<T>(tile.relative.beta * (old_value - value));
    const Vec<T> factor = select(replaced, shrink, one);
    double* sum = tile.column.sum + first;
    for (int lane = 0; lane < kLanes; ++lane)
      sum[lane] = (sum[lane] + double(joins[lane])) * double(factor[lane]);
  }

  // Sums over the elements of the tile at or above the threshold, per lane.
  struct Sums {
    Vec<T> total;
    IntVec<T> count;
    IntVec<T> ties;  // linear only
  };

  // Adds them to the states. kShared: exponentials are taken relative to `top`, the largest of all row
  // values, once for rows and columns, and shifted to each one's own largest element when they are added
  // up; otherwise each direction takes its own.
  template <bool kShared>
  static void add_sums(const Tile& tile, const T* similarity, T top) {
    Sums rows[kPaddedRows];
    Sums columns[kVectors] = {};
    bool found = false;
    const Vec<T> threshold = splat<T>(tile.relative.threshold);
    for (int r = 0; r < tile.place.rows; ++r) {
      const T* line = line_of(similarity, r);
      Mask<T> over[kVectors], any_over = no_lanes<T>();
      for (int v = 0; v < kVectors; ++v) {
        over[v] = allowed(tile, r, v) & at_most(threshold, load<Vec<T>>(line + v * kLanes));
        any_over |= over[v];
      }
      rows[r] = Sums{};
      // Tested once a row: a test per vector costs more in wrong guesses than it saves.
      if (!any(any_over)) continue;
      found = true;
      for (int v = 0; v < kVectors; ++v) {
        const Vec<T> s = load<Vec<T>>(line + v * kLanes);
        if constexpr (kKind == Relative::linear)
          add_linear(tile, r, v, s, over[v], rows[r], columns[v]);
        else
          add_exponential<kShared>(tile, r, v, s, over[v], top, rows[r], columns[v]);
      }
    }
    if (!found) return;
    for (int first = 0; first < tile.place.rows; first += kLanes)
      store_rows<kShared>(tile, first, rows + first, top);
    for (int v = 0; v < kVectors; ++v)
      store_sums<kShared>(tile.column, v * kLanes, kLanes, columns[v], tile.relative.beta, top);
  }

  static IntVec<T> one_each(Mask<T> lanes) { return select(lanes, splat_int<T>(1), IntVec<T>{}); }

  static void add_linear(const Tile& tile, int r, int v, Vec<T> s, Mask<T> over, Sums& row, Sums& column) {
    const Vec<T> column_value = load<Vec<T>>(tile.column.value + v * kLanes);
    const Vec<T> term = select(over, s - tile.relative.offset, Vec<T>{});
    row.total += term;
    row.count += one_each(over);
    row.ties += one_each(over & equal(s, splat<T>(tile.row.value[r])));
    column.total += term;
    column.count += one_each(over);
    column.ties += one_each(over & equal(s, column_value));
  }

  template <bool kShared>
  static void add_exponential(const Tile& tile, int r, int v, Vec<T> s, Mask<T> over, T top, Sums& row,
                              Sums& column) {
    const T beta = tile.relative.beta;
    const IntVec<T> lane = lane_numbers<T>() + Integer<T>(v * kLanes);
    const IntVec<T> hardest_row = load<IntVec<T>>(tile.column.index + v * kLanes);
    const Mask<T> hardest = equal(lane, splat_int<T>(tile.row.index[r] - tile.place.first_column));
    const Mask<T> hardest_of_column =
        equal(hardest_row, splat_int<T>(tile.place.first_row + Integer<T>(r)));
    Vec<T> row_term, column_term;
    if constexpr (kShared) {
      row_term = column_term = select(over, exp_in_range<T>(beta * (s - top)), Vec<T>{});
    } else {
      const Vec<T> column_value = load<Vec<T>>(tile.column.value + v * kLanes);
      row_term = select(over, exp_flushed<T>(beta * (s - tile.row.value[r])), Vec<T>{});
      column_term = select(over, exp_flushed<T>(beta * (s - column_value)), Vec<T>{});
    }
    row.total += select(hardest, Vec<T>{}, row_term);
    row.count += one_each(over);
    column.total += select(hardest_of_column, Vec<T>{}, column_term);
    column.count += one_each(over);
  }

  // Adds the lanes of up to kLanes rows, then all of them at once.
  template <bool kShared>
  static void store_rows(const Tile& tile, int first, const Sums* rows, T top) {
    const int left = tile.place.rows - first;
    Vec<T> total[kLanes];
    IntVec<T> count[kLanes], ties[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      const Sums row = i < left ? rows[i] : Sums{};
      total[i] = row.total;
      count[i] = row.count;
      ties[i] = row.ties;
    }
    Sums sums = {row_sums<T>(total), row_sums<T>(count), {}};
    if constexpr (kKind == Relative::linear) sums.ties = row_sums<T>(ties);
    store_sums<kShared>(tile.row, first, left < kLanes ? left : kLanes, sums, tile.relative.beta, top);
  }

  // Adds the sums of `length` anchors from `first` on, one per lane. Nothing is read or written beyond them:
  // the next row may belong to another thread.
  template <bool kShared>
  static void store_sums(const Extrema<T>& state, int first, int length, const Sums& sums, T beta, T top) {
    Vec<T> total = sums.total;
    if constexpr (kKind == Relative::exponential && kShared) {
      Vec<T> value = splat<T>(top);
      std::memcpy(&value, state.value + first, static_cast<std::size_t>(length) * sizeof(T));
      // Without elements at or above the threshold the value may be anything.
      const Vec<T> shift = select(less(IntVec<T>{}, sums.count), beta * (top - value), Vec<T>{});
      total *= exp_flushed<T>(shift);
    }
    for (int lane = 0; lane < length; ++lane) {
      state.sum[first + lane] += double(total[lane]);
      state.count[first + lane] += sums.count[lane];
      if constexpr (kKind == Relative::linear) state.ties[first + lane] += sums.ties[lane];
    }
  }
};

// Whether a later candidate replaces an earlier one.
template <typename T>
inline bool later_wins(T earlier, Integer<T> earlier_index, T later, Integer<T> later_index) {
  if (later_index < 0) return false;
  return earlier_index < 0 || later > earlier || (later != later && earlier == earlier);
}

template <Relative kKind, typename T>
void merge_extrema(const Extrema<T>& into, const Extrema<T>& later, const RelativeTerms<T>& relative,
                   std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    const T value[2] = {into.value[i], later.value[i]};
    const Integer<T> index[2] = {into.index[i], later.index[i]};
    const int winner = later_wins(value[0], index[0], value[1], index[1]) ? 1 : 0;
    into.value[i] = value[winner];
    into.index[i] = index[winner];
    if constexpr (kKind == Relative::none) continue;
    into.count[i] += later.count[i];
    if constexpr (kKind == Relative::linear) {
      const Integer<T> ties[2] = {into.ties[i], later.ties[i]};
      into.ties[i] = value[0] == value[1] ? ties[0] + ties[1] : ties[winner];
      into.sum[i] += later.sum[i];
    } else if (index[1 - winner] >= 0) {
      const double sum[2] = {into.sum[i], later.sum[i]};
      const T loser = value[1 - winner];
      const double joins = loser >= relative.threshold ? 1.0 : 0.0;
      const Vec<T> shrink = exp_flushed<T>(splat<T>(relative.beta * (loser - value[winner])));
      into.sum[i] = sum[winner] + (sum[1 - winner] + joins) * double(shrink[0]);
    } else {
      into.sum[i] = winner == 1 ? later.sum[i] : into.sum[i];
    }
  }
}

}  // namespace
}  // namespace goal_kernels
